# The whole entry is replaced when it is written: put the links into the entry of your gateway.
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # The application speaks plain HTTP to its sidecar and never sees the provider's certificate. For a provider with a
    # public certificate, CAFile is the bundle of the gateway's host: /etc/ssl/certs/ca-certificates.crt
    Name   = "payments-api"
    CAFile = "${TLS_DIR}/payments-ca.pem"
    SNI    = "api.payments.example"

    # Host is rewritten to the hostname of the instance, because providers choose a customer's site by it.
    # DisableAutoHostRewrite = true leaves what the caller wrote.
  },
]
