#!/usr/bin/env bash
# What an operator does once, on the first server of a datacenter: ACL policies, tokens, config entries, and where the
# gateways are also the services outside the mesh. Nobody may call them yet: intentions are for `consul config write`.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
need LAB_FEDERATION LAB_DATACENTER LAB_PEER LAB_GATEWAY_DATACENTER LAB_SECRETS LAB_LEGACY_HOST
CONSUL_HTTP_TOKEN=$(<"$LAB_SECRETS/management.token")
export CONSUL_HTTP_TOKEN

# policy NAME: standard input are its rules from now on.
policy() {
    local name=$1 rules
    rules=$(cat)
    # A secondary datacenter may not have heard yet of one that there is already.
    wait_for 30 "the policy $name is as it should be" create_or_update "$name" "$rules"
}

create_or_update() {
    if consul acl policy read -name "$1" >/dev/null 2>&1; then
        consul acl policy update -name "$1" -rules "$2"
    else
        consul acl policy create -name "$1" -rules "$2"
    fi
}

# token FILE DESCRIPTION ARGUMENT...: there is a token with the secret in FILE, with what the arguments grant.
token() {
    local secret
    secret=$(<"$1")
    CONSUL_HTTP_TOKEN=$secret consul acl token read -self >/dev/null 2>&1 ||
        consul acl token create -secret "$secret" -description "$2" "${@:3}" >/dev/null
}

# linked NAME...: the gateway's entry has these services.
linked() {
    local entry name
    entry=$(consul config read -kind terminating-gateway -name terminating-gateway) || return 1
    for name in "$@"; do
        [[ $entry == *"\"$name\""* ]] || {
            echo "$name is not in $entry"
            return 1
        }
    done
}

may_manage() { consul acl policy list; }
wait_for 60 "the management token counts" may_manage

if [[ $LAB_FEDERATION != peering && $LAB_DATACENTER == "$LAB_PRIMARY" ]]; then
    # With it, servers of the secondary datacenter copy tokens and config entries, and have their CA certified.
    policy replication <<'HCL'
acl = "write"
operator = "write"
service_prefix "" { policy = "read" intentions = "read" }
HCL
    token "$LAB_SECRETS/replication.token" replication -policy-name replication
fi

for folder in "$LAB_SECRETS"/tokens/*; do
    host=$(basename "$folder")
    token "$folder/agent.token" "agent $host" -node-identity "$host:$LAB_DATACENTER"
done

consul config write - <<HCL
Kind = "proxy-defaults"
Name = "global"
# Applications have no way to the other datacenter but through the gateways of their own.
MeshGateway { Mode = "local" }
HCL
if [[ $LAB_FEDERATION == peering ]]; then
    # Before the peering token is made: it says where the other cluster has to go.
    consul config write - <<HCL
Kind = "mesh"
Peering { PeerThroughMeshGateways = true }
HCL
fi

# mesh:write is for the certificate with which a mesh gateway speaks for a peer's callers.
policy mesh-gateway <<'HCL'
service "mesh-gateway" { policy = "write" }
service_prefix "" { policy = "read" }
node_prefix "" { policy = "read" }
agent_prefix "" { policy = "read" }
mesh = "write"
peering = "read"
HCL

if [[ $LAB_DATACENTER == "$LAB_GATEWAY_DATACENTER" ]]; then
    while read -r name protocol; do
        consul config write - <<HCL
Kind = "service-defaults"
Name = "$name"
Protocol = "$protocol"
HCL
    done <<'SERVICES'
billing-db tcp
legacy-http http
SERVICES
    if [[ $LAB_FEDERATION == peering ]]; then
        consul config write - <<HCL
Kind = "exported-services"
Name = "default"
Services = [
  { Name = "billing-db", Consumers = [{ Peer = "$LAB_PEER" }] },
  { Name = "legacy-http", Consumers = [{ Peer = "$LAB_PEER" }] },
]
HCL
    fi
    link=(consul-tgw link --gateway terminating-gateway --create --node legacy --no-wait)
    "${link[@]}" billing-db "$LAB_LEGACY_HOST:5432"
    "${link[@]}" legacy-http "$LAB_LEGACY_HOST:8080"
    # In a federation they are written in the primary datacenter, and come here by and by.
    wait_for 60 "what is linked is known here" linked billing-db legacy-http
    # Of what is linked now, the least that the gateway needs.
    consul-tgw acl-policy --service terminating-gateway | policy terminating-gateway
fi

for folder in "$LAB_SECRETS"/tokens/*; do
    host=$(basename "$folder")
    [[ -e $folder/service.token ]] || continue
    case $(<"$folder/roles") in
        mesh-gateway) grants=(-policy-name mesh-gateway) ;;
        terminating-gateway) grants=(-policy-name terminating-gateway) ;;
        application) grants=(-service-identity web) ;;
        *) fail "$folder/roles: no tokens are known for $(<"$folder/roles")" ;;
    esac
    token "$folder/service.token" "service on $host" "${grants[@]}"
done
