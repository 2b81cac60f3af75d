# Subscriptions and blocking reads are silent for as long as nothing happens: no tgw-idle-timeout here. Connections whose
# host has vanished are found by TCP keepalive.
Kind     = "service-defaults"
Name     = "sessions"
Protocol = "tcp"
