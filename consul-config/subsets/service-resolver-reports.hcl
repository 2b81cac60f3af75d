# Subsets are chosen by what instances were registered with. Who asks for reports gets the default one.
#
# Consul evaluates a filter twice: for the gateway over the instances of reports, and for sidecars over what they are to
# connect to, which is the gateway. Without its second half no sidecar would find the gateway, and nothing would get here.
Kind          = "service-resolver"
Name          = "reports"
DefaultSubset = "v1"

Subsets = {
  v1 = {
    Filter = "Service.Meta.version == v1 or Service.Kind == `terminating-gateway`"
  }
  v2 = {
    Filter = "Service.Meta.version == v2 or Service.Kind == `terminating-gateway`"

    # Only instances whose checks all pass; without it a warning is good enough.
    OnlyPassing = true
  }
}
