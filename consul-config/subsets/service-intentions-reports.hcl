# For all subsets: intentions know none.
Kind = "service-intentions"
Name = "reports"

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
