# Envoy as a proxy that the agent of this host configures. Sourced, never run; needs lib/consul.sh and lib/service.sh.
# shellcheck shell=bash

# service_token NAME USER: the host's service token, where that user's program reads it; prints the file.
service_token() {
    local file=/etc/lab/$1.token
    install -d /etc/lab
    write "$file" 400 "$2" <"$LAB_SECRETS/service.token" || true
    echo "$file"
}

# envoy_service NAME ADMIN_PORT TOKEN_FILE ARGUMENT...: run Envoy for what the arguments of `consul connect envoy` say,
# which is registered already.
envoy_service() {
    local name=$1 admin_port=$2 token_file=$3
    shift 3
    service "$name" envoy /usr/local/bin/consul connect envoy "$@" \
        -token-file "$token_file" -http-addr "$CONSUL_HTTP_ADDR" -grpc-addr 127.0.0.1:8502 -ignore-envoy-compatibility \
        -envoy-binary /usr/local/bin/envoy -admin-bind "127.0.0.1:$admin_port" \
        -- --concurrency 1 --log-level warning
    wait_for 60 "the Envoy of $name is live" envoy_is_live "$admin_port"
}

envoy_is_live() { [[ $(curl --silent --show-error --max-time 5 "http://127.0.0.1:$1/ready") == LIVE ]]; }
