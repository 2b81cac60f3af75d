Kind     = "service-defaults"
Name     = "orders-db"
Protocol = "tcp"

# A managed database that fails over moves behind its name, and a connection pool keeps what it has. Within a day every
# connection is a new one, to where the name leads by then. It is less than that where the pool recycles sooner.
Meta = {
  "tgw-max-lifetime" = "24h"
}
