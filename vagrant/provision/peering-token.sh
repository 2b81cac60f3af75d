#!/usr/bin/env bash
# On the operator's host with the gateways: prints the token by which the other cluster becomes a peer.
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

# It says where to go: to the mesh gateways, so they have to be known.
wait_for 60 "a mesh gateway is healthy" service_passing mesh-gateway
consul peering generate-token -name "$LAB_PEER"
