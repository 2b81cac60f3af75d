#!/usr/bin/env bash
# A Consul client agent; waits until it has joined its datacenter and is in the catalog.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/service.sh
. "$here/lib/service.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
need LAB_FEDERATION LAB_HOST LAB_DATACENTER LAB_ADDRESS LAB_SERVERS LAB_SECRETS

in_catalog() {
    local answer
    answer=$(curl --silent --show-error --fail --max-time 5 --header @- \
        "$CONSUL_HTTP_ADDR/v1/catalog/node/$LAB_HOST" <<<"X-Consul-Token: $(<"$LAB_SECRETS/agent.token")")
    [[ $answer == *"\"$LAB_ADDRESS\""* ]] || {
        echo "the catalog has: $answer"
        return 1
    }
}

{
    agent_settings
    cat <<HCL
server = false
auto_encrypt { tls = true }
HCL
} | install_agent ""
wait_for 60 "$LAB_DATACENTER has a leader, as this agent sees it" has_leader
wait_for 60 "$LAB_HOST is in the catalog" in_catalog
