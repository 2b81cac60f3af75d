Kind = "service-intentions"
Name = "reports-api"

# Every request needs a valid token of this provider, also where an intention below allows it.
JWT = {
  Providers = [
    {
      Name = "login"
    },
  ]
}

Sources = [
  {
    Name = "web"
    Permissions = [
      {
        # This one needs a token with a claim, too: {"groups": {"reports": "write"}}
        Action = "allow"
        HTTP = {
          PathPrefix = "/reports"
          Methods    = ["PUT", "DELETE"]
        }
        JWT = {
          Providers = [
            {
              Name = "login"
              VerifyClaims = [
                {
                  Path  = ["groups", "reports"]
                  Value = "write"
                },
              ]
            },
          ]
        }
      },
      {
        Action = "allow"
        HTTP = {
          PathPrefix = "/reports"
          Methods    = ["GET", "HEAD"]
        }
      },
    ]
  },
  {
    Name   = "*"
    Action = "deny"
  },
]
