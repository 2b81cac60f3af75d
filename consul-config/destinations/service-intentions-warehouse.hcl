# For every address of the destination.
Kind = "service-intentions"
Name = "warehouse"

Sources = [
  {
    Name   = "web"
    Action = "allow"
  },
  {
    Name   = "*"
    Action = "deny"
  },
]
