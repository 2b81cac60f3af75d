# More exact than the entry for *, and so it decides.
Kind = "service-intentions"
Name = "ledger"

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
