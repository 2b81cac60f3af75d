# More exact than the entry for *, and so it decides.
Kind = "service-intentions"
Name = "inventory"

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
