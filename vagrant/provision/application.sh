#!/usr/bin/env bash
# web, which asks services of the other datacenter, and its sidecar: the database on 127.0.0.1:5432, the HTTP service on
# 127.0.0.1:8080. Its own page on port 80 is that of the HTTP service.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/service.sh
. "$here/lib/service.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
# shellcheck source=lib/envoy.sh
. "$here/lib/envoy.sh"
need LAB_FEDERATION LAB_ADDRESS LAB_PEER LAB_SECRETS
without_own_services nginx

token_file=$(service_token web envoy)
CONSUL_HTTP_TOKEN=$(<"$token_file")
export CONSUL_HTTP_TOKEN
if [[ $LAB_FEDERATION == peering ]]; then
    elsewhere="destination_peer = \"$LAB_PEER\""
else
    elsewhere="datacenter = \"$LAB_PEER\""
fi
registration=$(mktemp --suffix=.hcl)
trap 'rm -f "$registration"' EXIT
cat >"$registration" <<HCL
service {
  name = "web"
  port = 80
  connect {
    sidecar_service {
      port = 21000
      proxy {
        upstreams = [
          {
            destination_name = "billing-db"
            $elsewhere
            local_bind_port = 5432
            mesh_gateway { mode = "local" }
          },
          {
            destination_name = "legacy-http"
            $elsewhere
            local_bind_port = 8080
            mesh_gateway { mode = "local" }
          },
        ]
      }
      check {
        name = "listens"
        tcp = "$LAB_ADDRESS:21000"
        interval = "1s"
        timeout = "1s"
      }
    }
  }
}
HCL
# A secondary datacenter may not have heard of the token yet.
wait_for 60 "it is registered" consul services register "$registration"
envoy_service web-sidecar 19000 "$token_file" -sidecar-for web

install -d /etc/web
write /etc/web/nginx.conf 644 root <<NGINX && changed=--restart || changed=
daemon off;
user www-data;
worker_processes 1;
pid /run/web/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    server {
        listen 80;
        location / {
            proxy_pass http://127.0.0.1:8080;
            # Envoy takes no HTTP/1.0, which is what nginx speaks by default.
            proxy_http_version 1.1;
            proxy_set_header Host legacy-http;
        }
    }
}
NGINX
# shellcheck disable=SC2086 # nothing, or one word
service $changed web root /usr/sbin/nginx -c /etc/web/nginx.conf

# For whoever tries things here: psql needs no password to be typed.
write /root/.pgpass 600 root <<<"*:*:*:app:$(<"$LAB_SECRETS/database.password")" || true
upstreams_listen() { : </dev/tcp/127.0.0.1/5432 && : </dev/tcp/127.0.0.1/8080; }
wait_for 60 "the sidecar listens for its upstreams" upstreams_listen
