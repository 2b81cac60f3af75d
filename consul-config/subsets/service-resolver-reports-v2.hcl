# A name for the other subset: an upstream reports-v2 leads to it. It is no service of its own, and needs neither a link nor
# an intention: those of reports hold.
Kind = "service-resolver"
Name = "reports-v2"

Redirect {
  Service       = "reports"
  ServiceSubset = "v2"
}
