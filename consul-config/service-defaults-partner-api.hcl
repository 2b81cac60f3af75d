# The sidecar sends plain bytes; the gateway wraps them in TLS, because the link has a CAFile.
Kind     = "service-defaults"
Name     = "partner-api"
Protocol = "tcp"
