# Where the default is to deny, the entry for * says what holds anyway; it stays true when somebody changes the default.
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
