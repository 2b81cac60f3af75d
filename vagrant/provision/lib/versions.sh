# What the lab runs. A test holds these to what `make setup` builds and installs. Sourced, never run.
# shellcheck shell=bash disable=SC2034
CONSUL_VERSION=1.21.0
ENVOY_VERSION=1.40
