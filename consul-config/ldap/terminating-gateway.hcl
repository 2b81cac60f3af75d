# The whole entry is replaced when it is written: put the links into the entry of your gateway.
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # ldaps: TLS from the first byte. StartTLS on port 389 begins in plain text: for that, leave CAFile and SNI out, and let
    # the client ask for it.
    Name   = "directory"
    CAFile = "${TLS_DIR}/ldap-ca.pem"
    SNI    = "ldap.corp.example"
  },
]
