#!/usr/bin/env bash
# Sets the project up on a fresh Debian machine, and proves that it works. Safe to run again.
set -euo pipefail

cd /opt/consul-tgw
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -y -q --no-install-recommends make
chown -R vagrant:vagrant /opt/consul-tgw
make run ARGS=--once
