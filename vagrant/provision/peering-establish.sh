#!/usr/bin/env bash
# On the operator's host of the callers: reads a peering token, and waits until both clusters are peers.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
need LAB_PEER LAB_SECRETS
CONSUL_HTTP_TOKEN=$(<"$LAB_SECRETS/management.token")
export CONSUL_HTTP_TOKEN

peering() { curl --silent --show-error --fail --header @- "$CONSUL_HTTP_ADDR/v1/peering/$LAB_PEER" <<<"X-Consul-Token: $CONSUL_HTTP_TOKEN"; }
is_active() {
    local answer
    answer=$(peering) || return 1
    [[ $(jq -r '.State' <<<"$answer") == ACTIVE ]] || {
        jq --compact-output '{State, StreamStatus}' <<<"$answer"
        return 1
    }
}

token=$(cat)
if ! is_active >/dev/null 2>&1; then
    wait_for 60 "a mesh gateway is healthy" service_passing mesh-gateway
    establish() { consul peering establish -name "$LAB_PEER" -peering-token "$token"; }
    # Until the gateways of both sides know the way.
    wait_for 60 "the peering is established" establish
fi
wait_for 60 "the peering is active" is_active
for service in billing-db legacy-http; do
    wait_for 60 "$service of $LAB_PEER is healthy here" service_passing "$service" "peer=$LAB_PEER"
done
