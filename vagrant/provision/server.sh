#!/usr/bin/env bash
# A Consul server; waits until its datacenter has a leader. Federations other than peering add to it in lib/federation.sh.
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
need LAB_FEDERATION LAB_HOST LAB_DATACENTER LAB_ADDRESS LAB_SERVERS LAB_SECRETS

read -ra servers <<<"$LAB_SERVERS"
install -d -m 750 -o consul /etc/consul.d
changed=
write /etc/consul.d/server.pem 644 consul <"$LAB_SECRETS/server.pem" && changed=--restart
write /etc/consul.d/server-key.pem 600 consul <"$LAB_SECRETS/server-key.pem" && changed=--restart
write /etc/consul.d/server.hcl 640 consul <<HCL && changed=--restart
server = true
bootstrap_expect = ${#servers[@]}
# Elections that need not wait for a slow machine: a lost leader is noticed in a second or two.
performance { raft_multiplier = 1 }
# Where peers arrive, through the mesh gateways.
ports { grpc_tls = 8503 }
addresses { grpc_tls = "$LAB_ADDRESS" }
# Client agents get their certificates from the servers.
auto_encrypt { allow_tls = true }
acl { tokens { initial_management = "$(<"$LAB_SECRETS/management.token")" } }
tls {
  defaults {
    cert_file = "/etc/consul.d/server.pem"
    key_file = "/etc/consul.d/server-key.pem"
  }
}
HCL
federation_settings | write /etc/consul.d/federation.hcl 640 consul && changed=--restart
agent_settings | install_agent $changed
wait_for 60 "$LAB_DATACENTER has a leader" has_leader
