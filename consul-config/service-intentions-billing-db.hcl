# Who may connect to billing-db.
Kind = "service-intentions"
Name = "billing-db"

Sources = [
  {
    Name   = "web"
    Action = "allow"
  },
  {
    # Not needed where the default is to deny, and good to have where it is not. Change it to "allow", or remove web
    # above, and watch: live connections that are no longer allowed end at once, all others go on.
    Name   = "batch"
    Action = "deny"
  },
]
