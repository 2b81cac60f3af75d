Kind     = "service-defaults"
Name     = "directory"
Protocol = "tcp"

# Many clients bind once and forget the connection. Directories end idle connections themselves; ending them here first
# keeps firewalls in between from dropping them without a word.
Meta = {
  "tgw-idle-timeout" = "15m"
}
