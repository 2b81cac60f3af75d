#!/usr/bin/env bash
# Every host: packages, programs of pinned versions, users. In network namespaces there is no way to a mirror: what is
# installed on the machine is there already, and nothing is fetched.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/versions.sh
. "$here/lib/versions.sh"
need LAB_HOST LAB_ROLES

# install_packages PROGRAM:PACKAGE...: the packages whose programs are not there.
install_packages() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
    done
    ((${#missing[@]})) || return 0
    export DEBIAN_FRONTEND=noninteractive
    # Services of packages are the business of the scripts for roles, which configure them first.
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    apt-get update -q
    apt-get install -y -q --no-install-recommends "${missing[@]}"
    rm /usr/sbin/policy-rc.d
}

# install_program NAME FILE VERSION: NAME is FILE from now on, which must say that it is of VERSION. A link, since hosts
# in namespaces share the file, and the memory that it takes.
install_program() {
    local name=$1 file=$2 version=$3 said
    [[ -x $file ]] || fail "$file is no program: run \`make setup\` where the lab is built, which makes it"
    said=$("$file" --version 2>&1) || fail "$file --version failed: $said"
    [[ $said == *"$version"* ]] || fail "$file is not $name $version but: ${said%%$'\n'*}"
    ln -sfn "$file" "/usr/local/bin/$name"
}

# install_gateway: consul-tgw of the checkout in which these scripts are, unless LAB_CONSUL_TGW is one already.
install_gateway() {
    local checkout venv=/opt/consul-tgw-venv
    checkout=$(cd "$here/../.." && pwd)
    if [[ -n "${LAB_CONSUL_TGW:-}" ]]; then
        [[ -x $LAB_CONSUL_TGW ]] || fail "$LAB_CONSUL_TGW is no program: run \`make setup\`, or leave LAB_CONSUL_TGW unset"
        ln -sfn "$LAB_CONSUL_TGW" /usr/bin/consul-tgw
        return
    fi
    if [[ "$(cat "$venv/.installed" 2>/dev/null)" != "$(sha256sum <"$checkout/requirements/run.lock")" ]]; then
        python3 -c 'import ensurepip' 2>/dev/null || install_packages lacking-venv:python3-venv
        python3 -m venv --clear "$venv"
        "$venv/bin/pip" --disable-pip-version-check install --quiet --require-hashes -r "$checkout/requirements/run.lock"
        sha256sum <"$checkout/requirements/run.lock" >"$venv/.installed"
    fi
    # As `make setup` does, but from a copy of the checkout that is as old as this run.
    "$venv/bin/pip" --disable-pip-version-check install --quiet --no-deps "$checkout"
    ln -sfn "$venv/bin/consul-tgw" /usr/bin/consul-tgw
}

# user NAME: of the system, without a shell.
user() {
    getent passwd "$1" >/dev/null || useradd --system --user-group --no-create-home --shell /usr/sbin/nologin "$1"
}

packages=(curl:curl ip:iproute2 tc:iproute2 jq:jq ps:procps)
for role in $LAB_ROLES; do
    case $role in
        server | terminating-gateway) packages+=(python3:python3) ;;
        legacy) packages+=(pg_createcluster:postgresql nginx:nginx-light) ;;
        application) packages+=(psql:postgresql-client nginx:nginx-light) ;;
        mesh-gateway) ;;
        *) fail "LAB_ROLES has the role $role, which is none: see provision/README.md" ;;
    esac
done
install_packages "${packages[@]}"

if [[ -n "${LAB_DATACENTER:-}" ]]; then
    need LAB_CONSUL LAB_ENVOY
    user consul
    install_program consul "$LAB_CONSUL" "$CONSUL_VERSION"
fi
for role in $LAB_ROLES; do
    case $role in
        mesh-gateway | application)
            user envoy
            install_program envoy "$LAB_ENVOY" "$ENVOY_VERSION"
            ;;
        server) install_gateway ;; # the operator's: it prints the gateway's ACL policy
        terminating-gateway)
            user consul-tgw
            install_gateway
            ;;
    esac
done
