# A Redis without a password is open to whoever reaches it: this is what keeps others away.
Kind = "service-intentions"
Name = "sessions"

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
