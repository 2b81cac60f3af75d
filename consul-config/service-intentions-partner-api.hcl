# web and nobody else, whatever the default is. The more exact source decides, not the order in this list.
Kind = "service-intentions"
Name = "partner-api"

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
