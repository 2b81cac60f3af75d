# The whole entry is replaced when it is written: put the links into the entry of your gateway.
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # Every service of the catalog that has no sidecar, also those that are registered later. They are reached in plain TCP.
    # The token of the gateway needs service:write on each: service_prefix "" in its policy is the other side of this.
    Name = "*"
  },
  {
    # Replaces the link above as a whole for this service: no field is inherited.
    Name   = "ledger"
    CAFile = "${TLS_DIR}/ledger-ca.pem"
    SNI    = "ledger.corp.example"
  },
]
