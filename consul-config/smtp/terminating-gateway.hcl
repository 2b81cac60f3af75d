# The whole entry is replaced when it is written: put the links into the entry of your gateway.
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # Port 465: TLS from the first byte (RFC 8314). A relay on port 587 or 25 begins in plain text and turns to TLS by
    # STARTTLS: for that, leave CAFile and SNI out, and let the client ask for it, end to end.
    Name   = "mail-relay"
    CAFile = "${TLS_DIR}/smtp-ca.pem"
    SNI    = "relay.mail.example"
  },
]
