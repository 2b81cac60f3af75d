# How the gateway reaches the instances of billing-db.
Kind = "service-resolver"
Name = "billing-db"

# How long the gateway waits for one instance before it tries another.
ConnectTimeout = "3s"

# least_request prefers the instance with fewer open connections: good for connections that live long.
LoadBalancer = {
  Policy = "least_request"
}
