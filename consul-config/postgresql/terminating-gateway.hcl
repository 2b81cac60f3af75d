# The whole entry is replaced when it is written: put the links into the entry of your gateway.
Kind = "terminating-gateway"
Name = "terminating-gateway"

Services = [
  {
    # No CAFile: PostgreSQL begins in plain text and turns to TLS when the client asks for it (SSLRequest). A gateway that
    # began with TLS would be taken for a client that speaks nonsense. The client speaks TLS to the database, end to end.
    Name = "orders-db"
  },
]
