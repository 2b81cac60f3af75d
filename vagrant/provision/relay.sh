#!/usr/bin/env bash
# On mesh gateways of the secondary datacenter, federated through mesh gateways: passes connections of its servers on to the
# mesh gateways of the primary one, unread. The servers need them before the gateways here can be configured.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/service.sh
. "$here/lib/service.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
# shellcheck source=lib/federation.sh
. "$here/lib/federation.sh"
# shellcheck source=lib/envoy.sh
. "$here/lib/envoy.sh"
need LAB_ADDRESS LAB_PEER_MESH_GATEWAYS
read -ra targets <<<"$LAB_PEER_MESH_GATEWAYS"

install -d /etc/relay
{
    cat <<YAML
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 19001}}}
static_resources:
  listeners:
    - name: relay
      address: {socket_address: {address: $LAB_ADDRESS, port_value: $RELAY_PORT}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: relay
                cluster: primary
                max_connect_attempts: ${#targets[@]}
  clusters:
    - name: primary
      type: STATIC
      connect_timeout: 2s
      load_assignment:
        cluster_name: primary
        endpoints:
          - lb_endpoints:
YAML
    for target in "${targets[@]}"; do
        echo "              - endpoint: {address: {socket_address: {address: $target, port_value: 8443}}}"
    done
} | write /etc/relay/envoy.yaml 644 root && changed=--restart || changed=
# shellcheck disable=SC2086 # nothing, or one word
service $changed relay envoy /usr/local/bin/envoy --config-path /etc/relay/envoy.yaml --concurrency 1 \
    --use-dynamic-base-id --log-level warning
wait_for 60 "the relay is live" envoy_is_live 19001
