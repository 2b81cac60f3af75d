# Settings of the whole mesh. The gateway reads protocol (where service-defaults says none), connect_timeout_ms and the
# envoy_gateway_remote_tcp_* keys of Config; keys in the gateway's own --proxy-config go before these.
Kind = "proxy-defaults"
Name = "global"

Config {
  protocol           = "tcp"
  connect_timeout_ms = 5000

  # TCP keepalive towards external services, for firewalls that forget silent connections.
  envoy_gateway_remote_tcp_enable_keepalive   = true
  envoy_gateway_remote_tcp_keepalive_time     = 60
  envoy_gateway_remote_tcp_keepalive_interval = 10
  envoy_gateway_remote_tcp_keepalive_probes   = 6
}
