# HTTP is carried as tcp here: the intention decides once, for the connection.
Kind     = "service-defaults"
Name     = "legacy-http"
Protocol = "tcp"
