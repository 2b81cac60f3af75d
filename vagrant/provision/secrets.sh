#!/usr/bin/env bash
# Where the lab is built, not on a host: secrets.sh DIRECTORY, with `python -m lab plan` on standard input.
# Makes what each host may know into DIRECTORY/HOST/secrets, so that no host needs a way to another for that. Datacenters
# that are peered share nothing; those that are federated share CA and gossip key. Existing secrets are kept.
# shellcheck source-path=SCRIPTDIR disable=SC2016 # jq has variables of its own
set -euo pipefail
LAB_ANYONE=yes # whoever may write there
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
need LAB_CONSUL
(($# == 1)) || fail "usage: python -m lab plan | LAB_CONSUL=/path/to/consul secrets.sh DIRECTORY"
umask 077
mkdir -p "$1"
directory=$(cd "$1" && pwd)
plan=$(cat)

ask() { jq -r "$@" <<<"$plan"; }
of_host() { ask --arg host "$1" --arg name "$2" '.hosts[$host].environment[$name] // ""'; }
new_token() { cat /proc/sys/kernel/random/uuid; }

# keep FILE COMMAND...: FILE is what the command prints, unless it is there already.
keep() {
    local file=$1
    shift
    [[ -s $file ]] || "$@" >"$file"
}

federation=$(ask .federation)

# The folder of what the whole datacenter knows, and what it is made of.
domain_of() {
    if [[ $federation == peering ]]; then
        echo "$directory/datacenter-$1"
    else
        echo "$directory/federation"
    fi
}

authority() {
    local domain=$1
    mkdir -p "$domain"
    if [[ ! -s $domain/consul-agent-ca-key.pem ]]; then
        (cd "$domain" && "$LAB_CONSUL" tls ca create -days=365 >/dev/null)
    fi
    keep "$domain/gossip.key" "$LAB_CONSUL" keygen
    keep "$domain/management.token" new_token
    keep "$domain/replication.token" new_token
}

server_certificate() {
    local domain=$1 datacenter=$2 host=$3 own=$directory/$3/secrets made
    [[ ! -s $own/server.pem ]] || return 0
    made=$(mktemp -d "$directory/certificate.XXXXXX")
    (
        cd "$made"
        # Federated through mesh gateways, servers find each other by the name of the node in the certificate.
        "$LAB_CONSUL" tls cert create -server -dc "$datacenter" -node "$host" -days=365 \
            -ca "$domain/consul-agent-ca.pem" -key "$domain/consul-agent-ca-key.pem" >/dev/null
        cp ./*-server-consul-0.pem "$own/server.pem"
        cp ./*-server-consul-0-key.pem "$own/server-key.pem"
    )
    rm -r "$made"
}

keep "$directory/database.password" new_token
for host in $(ask '.hosts | keys_unsorted[]'); do
    own=$directory/$host/secrets
    mkdir -p "$own"
    datacenter=$(of_host "$host" LAB_DATACENTER)
    roles=" $(of_host "$host" LAB_ROLES) "
    if [[ $roles == *" legacy "* || $roles == *" application "* ]]; then
        cp "$directory/database.password" "$own/database.password"
    fi
    [[ -n $datacenter ]] || continue
    domain=$(domain_of "$datacenter")
    authority "$domain"
    cp "$domain/consul-agent-ca.pem" "$own/ca.pem"
    cp "$domain/gossip.key" "$own/gossip.key"
    keep "$own/agent.token" new_token
    if [[ $roles == *" server "* ]]; then
        cp "$domain/management.token" "$own/management.token"
        cp "$domain/replication.token" "$own/replication.token"
        server_certificate "$domain" "$datacenter" "$host"
    else
        keep "$own/service.token" new_token
    fi
done

# The operator makes the tokens, so that host knows those of all of its datacenter.
for host in $(ask '.hosts | keys_unsorted[]'); do
    datacenter=$(of_host "$host" LAB_DATACENTER)
    [[ -n $datacenter ]] || continue
    operator=$(ask --arg datacenter "$datacenter" '.operators[$datacenter]')
    tokens=$directory/$operator/secrets/tokens/$host
    mkdir -p "$tokens"
    cp "$directory/$host/secrets/agent.token" "$tokens/"
    if [[ -e $directory/$host/secrets/service.token ]]; then
        cp "$directory/$host/secrets/service.token" "$tokens/"
        of_host "$host" LAB_ROLES >"$tokens/roles"
    fi
done
