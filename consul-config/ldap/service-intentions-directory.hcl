# Who may bind and search.
Kind = "service-intentions"
Name = "directory"

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
