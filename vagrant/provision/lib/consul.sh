# Configuration of Consul agents, servers and clients, as production would have it. Sourced, never run.
# shellcheck shell=bash

# The HTTP API and the configuration of proxies are on loopback, for this host's own programs.
export CONSUL_HTTP_ADDR=http://127.0.0.1:8500

hcl_list() {
    local separator='' value
    printf '['
    for value in "$@"; do
        printf '%s"%s"' "$separator" "$value"
        separator=', '
    done
    printf ']'
}

# agent_settings: what servers and clients share.
agent_settings() {
    local servers
    read -ra servers <<<"$LAB_SERVERS"
    cat <<HCL
datacenter = "$LAB_DATACENTER"
node_name = "$LAB_HOST"
data_dir = "/var/lib/consul"
bind_addr = "$LAB_ADDRESS"
client_addr = "127.0.0.1"
log_level = "info"
disable_update_check = true
retry_join = $(hcl_list "${servers[@]}")
# Consul's own is 30 s, which is long for hosts that come up together.
retry_interval = "2s"
encrypt = "$(<"$LAB_SECRETS/gossip.key")"
connect { enabled = true }
peering { enabled = $([[ $LAB_FEDERATION == peering ]] && echo true || echo false) }
primary_datacenter = "$([[ $LAB_FEDERATION == peering ]] && echo "$LAB_DATACENTER" || echo "$LAB_PRIMARY")"
ports {
  grpc = 8502
  dns = -1
}
acl {
  enabled = true
  default_policy = "deny"
  # An operator's change of a token's policies counts soon.
  token_ttl = "5s"
  policy_ttl = "5s"
  role_ttl = "5s"
  tokens { agent = "$(<"$LAB_SECRETS/agent.token")" }
}
tls {
  defaults {
    ca_file = "/etc/consul.d/ca.pem"
    verify_outgoing = true
  }
  internal_rpc {
    verify_incoming = true
    verify_server_hostname = true
  }
}
HCL
}

# install_agent [--restart]: standard input is its configuration; run Consul with it.
install_agent() {
    local changed=${1:-}
    install -d -m 750 -o consul /etc/consul.d
    install -d -m 700 -o consul /var/lib/consul
    write /etc/consul.d/ca.pem 644 consul <"$LAB_SECRETS/ca.pem" && changed=--restart
    write /etc/consul.d/agent.hcl 640 consul && changed=--restart
    # shellcheck disable=SC2086 # nothing, or one word
    service $changed consul consul /usr/local/bin/consul agent -config-dir /etc/consul.d
}

has_leader() {
    local answer
    answer=$(curl --silent --show-error --fail --max-time 5 "$CONSUL_HTTP_ADDR/v1/status/leader")
    [[ $answer == *:* ]] || {
        echo "no leader: $answer"
        return 1
    }
}

# service_passing NAME QUERY: whether an instance of it is healthy; CONSUL_HTTP_TOKEN must allow to read that.
service_passing() {
    local answer
    answer=$(curl --silent --show-error --fail --max-time 5 --header @- \
        "$CONSUL_HTTP_ADDR/v1/health/service/$1?passing=true${2:+&$2}" <<<"X-Consul-Token: $CONSUL_HTTP_TOKEN") || {
        echo "$answer"
        return 1
    }
    [[ $answer != "[]" ]] || {
        echo "no healthy instance of $1"
        return 1
    }
}
