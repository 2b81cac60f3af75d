# The provider's key may do everything; web may only make charges and read them.
Kind = "service-intentions"
Name = "payments-api"

Sources = [
  {
    Name = "web"
    Permissions = [
      {
        Action = "allow"
        HTTP = {
          PathPrefix = "/v1/charges"
          Methods    = ["GET", "POST"]
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
