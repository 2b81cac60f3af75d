#!/usr/bin/env bash
# On the operator's host of each datacenter of a federation: waits until it sees all servers, and the services of both.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
need LAB_GATEWAY_DATACENTER LAB_PEER LAB_SECRETS
CONSUL_HTTP_TOKEN=$(<"$LAB_SECRETS/management.token")
export CONSUL_HTTP_TOKEN

# Each datacenter has its mesh gateways in the other's catalog, which is asked over the WAN.
wait_for 90 "$LAB_PEER answers" service_passing mesh-gateway "dc=$LAB_PEER"
for service in billing-db legacy-http; do
    wait_for 60 "$service is known here" service_passing "$service" "dc=$LAB_GATEWAY_DATACENTER"
done
no_server_is_away() {
    local members
    members=$(consul members -wan) || return 1
    [[ $(wc -l <<<"$members") -gt 2 && $members != *failed* && $members != *left* ]] || {
        echo "$members"
        return 1
    }
}
wait_for 60 "all servers of the federation are alive" no_server_is_away
