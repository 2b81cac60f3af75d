# The whole entry is replaced when it is written: put the links into the entry of your gateway.
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # Subsets need nothing here: the gateway reads them from the service-resolver.
    Name = "reports"
  },
]
