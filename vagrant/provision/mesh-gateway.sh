#!/usr/bin/env bash
# Envoy as a mesh gateway, between the datacenter's network and the WAN; waits until it is healthy.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/service.sh
. "$here/lib/service.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
# shellcheck source=lib/envoy.sh
. "$here/lib/envoy.sh"
need LAB_FEDERATION LAB_ADDRESS LAB_WAN_ADDRESS LAB_SECRETS

token_file=$(service_token mesh-gateway envoy)
CONSUL_HTTP_TOKEN=$(<"$token_file")
export CONSUL_HTTP_TOKEN
# Registered here rather than by `consul connect envoy -register`: its check of every 10 s begins as critical.
registration=$(mktemp --suffix=.hcl)
trap 'rm -f "$registration"' EXIT
cat >"$registration" <<HCL
service {
  kind = "mesh-gateway"
  name = "mesh-gateway"
  address = "$LAB_ADDRESS"
  port = 8443
  # Federated through mesh gateways, the servers are reached through them as well.
  meta { consul-wan-federation = "$([[ $LAB_FEDERATION == gateways ]] && echo 1 || echo 0)" }
  tagged_addresses {
    lan { address = "$LAB_ADDRESS", port = 8443 }
    wan { address = "$LAB_WAN_ADDRESS", port = 8443 }
  }
  proxy {
    config {
      envoy_gateway_no_default_bind = true
      envoy_gateway_bind_addresses {
        lan { address = "$LAB_ADDRESS", port = 8443 }
        wan { address = "$LAB_WAN_ADDRESS", port = 8443 }
      }
    }
  }
  check {
    name = "listens"
    tcp = "$LAB_ADDRESS:8443"
    interval = "1s"
    timeout = "1s"
  }
}
HCL
# A secondary datacenter may not have heard of the token yet.
wait_for 60 "it is registered" consul services register "$registration"
envoy_service mesh-gateway 19000 "$token_file" -gateway=mesh -proxy-id mesh-gateway
