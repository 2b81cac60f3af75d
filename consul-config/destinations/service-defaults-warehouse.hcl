# An external service without a registration in the catalog. Only sidecars in transparent mode reach it: they catch what an
# application sends to one of these addresses, and it needs no upstream. Consul 1.13 and later.
Kind     = "service-defaults"
Name     = "warehouse"
Protocol = "tcp"

# The gateway resolves the names itself and dials no other address than the one that was asked for.
Destination {
  Addresses = ["warehouse.example"]
  Port      = 1521
}
