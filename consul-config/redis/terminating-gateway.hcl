# The whole entry is replaced when it is written: put the links into the entry of your gateway.
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # The application speaks plain Redis to its sidecar; the gateway speaks TLS to Redis, and compares the name.
    Name   = "sessions"
    CAFile = "${TLS_DIR}/redis-ca.pem"
    SNI    = "sessions.cache.example"
  },
]
