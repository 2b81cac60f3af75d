# http, http2 or grpc: only then may its intentions speak of paths, methods, headers and tokens.
Kind     = "service-defaults"
Name     = "orders-api"
Protocol = "http"
