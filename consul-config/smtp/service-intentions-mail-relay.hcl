# Who may hand in mail. A relay often trusts the address that it is called from: here, that of the gateway.
Kind = "service-intentions"
Name = "mail-relay"

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
