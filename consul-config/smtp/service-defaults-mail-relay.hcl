# The server speaks first in SMTP. tcp carries whoever speaks first.
Kind     = "service-defaults"
Name     = "mail-relay"
Protocol = "tcp"

# RFC 5321 4.5.3.2 lets a server wait 5 minutes for the next command, and 10 minutes for the end of a message.
Meta = {
  "tgw-idle-timeout" = "11m"
}
