# The first permission that a request matches decides; what matches none is up to the default intention action.
Kind = "service-intentions"
Name = "orders-api"

Sources = [
  {
    Name = "web"
    Permissions = [
      {
        # A path is compared in one form: /v1//admin, /v1/%61dmin and /v1/x/../admin are /v1/admin.
        Action = "deny"
        HTTP = {
          PathPrefix = "/v1/admin"
        }
      },
      {
        Action = "allow"
        HTTP = {
          PathPrefix = "/v1/orders"
          Methods    = ["GET", "POST"]

          # All of them must match. One of Present, Exact, Prefix, Suffix, Contains and Regex in each.
          Header = [
            {
              Name       = "content-type"
              Prefix     = "text/html"
              IgnoreCase = true
              Invert     = true
            },
          ]
        }
      },
      {
        # RE2, and all of the path.
        Action = "allow"
        HTTP = {
          PathRegex = "/v1/items/[0-9]+"
        }
      },
      {
        # Whatever the default is.
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
