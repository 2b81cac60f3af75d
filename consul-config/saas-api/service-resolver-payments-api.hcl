Kind = "service-resolver"
Name = "payments-api"

ConnectTimeout = "5s"

# From the end of a request until its answer is complete; 15 s when it is not set.
RequestTimeout = "60s"
