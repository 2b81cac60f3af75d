# What the mesh knows about the service. tcp is right for databases: bytes are carried as they are.
Kind     = "service-defaults"
Name     = "billing-db"
Protocol = "tcp"

# The gateway ends a connection that was silent for that long in both directions. Without it, never.
# Databases keep idle connections in pools: leave it out, or make it longer than the pool's own limit.
# "tgw-max-lifetime" = "24h" would end every connection within a day, busy or not: a database that has moved
# behind its name is found again by new connections only.
Meta = {
  "tgw-idle-timeout" = "8h"
}
