Kind     = "service-defaults"
Name     = "reports-api"
Protocol = "http"
