# Carried request by request: its intention may tell paths, methods and headers apart.
Kind     = "service-defaults"
Name     = "legacy-http"
Protocol = "http"
