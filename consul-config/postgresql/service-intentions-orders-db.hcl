# The database asks for a password as well; this keeps everybody else from guessing.
Kind = "service-intentions"
Name = "orders-db"

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
