# http: each request is decided and logged by itself, and may be told apart by its intention.
Kind     = "service-defaults"
Name     = "payments-api"
Protocol = "http"
