# Linking everything allows nobody: each service needs an intention of its own. This one is for those that have none,
# and says the same as a default of deny. A more exact destination goes before it.
Kind = "service-intentions"
Name = "*"

Sources = [
  {
    Name   = "*"
    Action = "deny"
  },
]
