# Which services outside the mesh the gateway carries, and how it reaches them.
# The name is the service name with which the gateway was started: consul-tgw run --service terminating-gateway
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # A PostgreSQL server. Without CAFile the bytes leave the gateway as the client sent them.
    Name = "billing-db"
  },
  {
    # A partner's API. With CAFile the gateway speaks TLS to it, and trusts only the certificates in that file.
    # Paths are those of the gateway's host; a file that is replaced is read again, no restart is needed.
    Name   = "partner-api"
    CAFile = "${TLS_DIR}/partner-ca.pem"

    # Sent as the TLS server name, and compared with the names in the server's certificate.
    # Without SNI no name is compared: any certificate of the CA is accepted.
    SNI = "api.partner.example"

    # For a partner that asks for a client certificate, set both:
    # CertFile = "${TLS_DIR}/client.pem"
    # KeyFile  = "${TLS_DIR}/client.key"
  },
  {
    # A plain HTTP service.
    Name = "legacy-http"
  },

  # One link for every service without a sidecar. An explicit link above replaces it as a whole: no field is inherited.
  # { Name = "*" }
]
