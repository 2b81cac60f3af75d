# web may read orders, and nobody anything else, whatever the default is. The more exact source decides, not the order
# in this list; the first permission that a request matches decides, and that order counts.
Kind = "service-intentions"
Name = "legacy-http"

Sources = [
  {
    Name = "web"
    Permissions = [
      {
        Action = "allow"
        HTTP = {
          PathPrefix = "/orders"
          Methods    = ["GET"]
        }
      },
      {
        Action = "deny"
        HTTP = {
          PathPrefix = "/"
        }
      },
    ]
  },
  {
    Name   = "*"
    Action = "deny"
  },
]
