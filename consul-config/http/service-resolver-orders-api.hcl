Kind = "service-resolver"
Name = "orders-api"

# From the end of a request until its answer is complete; without it 15 s.
RequestTimeout = "30s"

# Requests of one user go to one instance; who has no such cookie is given one.
LoadBalancer = {
  Policy = "maglev"
  HashPolicies = [
    {
      Field      = "cookie"
      FieldValue = "orders-instance"
      CookieConfig = {
        TTL  = "1h"
        Path = "/"
      }
    },
  ]
}
