#!/usr/bin/env bash
# A host outside the mesh, which knows nothing of Consul: PostgreSQL on 5432 and a web server on 8080, in plain text, for
# the terminating gateways' addresses alone.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/service.sh
. "$here/lib/service.sh"
need LAB_LEGACY_ADDRESS LAB_GATEWAYS LAB_SECRETS
without_own_services postgresql nginx

# Debian and Ubuntu keep the programs of each major version in a folder of its own.
programs=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
data=/var/lib/postgresql/billing
as_postgres() { (cd / && setpriv --reuid postgres --regid postgres --init-groups "$@"); }

install -d -o postgres /var/lib/postgresql
if [[ ! -s $data/PG_VERSION ]]; then
    install -m 400 -o postgres "$LAB_SECRETS/database.password" /run/database.password
    as_postgres "$programs/initdb" --pgdata="$data" --username=app --pwfile=/run/database.password \
        --auth=scram-sha-256 --encoding=UTF8 --locale=C >/dev/null
    rm /run/database.password
fi
{
    echo "local all all scram-sha-256"
    for gateway in $LAB_GATEWAYS; do
        echo "host all all $gateway/32 scram-sha-256"
    done
} | write "$data/pg_hba.conf" 600 postgres || true
service billing-db postgres "$programs/postgres" -D "$data" -c "listen_addresses=$LAB_LEGACY_ADDRESS" -c port=5432 \
    -c unix_socket_directories="$data"

PGPASSWORD=$(<"$LAB_SECRETS/database.password")
export PGPASSWORD
sql() { psql --no-psqlrc --quiet --host="$data" --username=app --dbname=postgres --set=ON_ERROR_STOP=1 --command "$1"; }
wait_for 60 "PostgreSQL answers" sql "select 1"
sql "select pg_reload_conf()" >/dev/null
sql "set client_min_messages = warning; create table if not exists invoices (number int primary key, customer text, total numeric)"
sql "insert into invoices values (1, 'Ada', 120.50), (2, 'Grace', 99.00) on conflict do nothing"

install -d /etc/legacy-http
write /etc/legacy-http/nginx.conf 644 root <<NGINX && changed=--restart || changed=
daemon off;
user www-data;
worker_processes 1;
pid /run/legacy-http/nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    # Certificates come with it, which are long.
    large_client_header_buffers 4 32k;
    map \$http_x_forwarded_client_cert \$caller {
        default nobody;
        "~(?:^|;)URI=(?<caller_uri>[^;,]+)" \$caller_uri;
    }
    server {
        listen $LAB_LEGACY_ADDRESS:8080;
$(for gateway in $LAB_GATEWAYS; do echo "        allow $gateway;"; done)
        deny all;
        default_type text/plain;
        # Whose request it is, as the gateway tells it.
        return 200 "legacy-http of \$hostname, asked for \$request_uri by \$remote_addr for \$caller\\n";
    }
}
NGINX
# shellcheck disable=SC2086 # nothing, or one word
service $changed legacy-http root /usr/sbin/nginx -c /etc/legacy-http/nginx.conf
legacy_http_listens() { : <"/dev/tcp/$LAB_LEGACY_ADDRESS/8080"; }
wait_for 30 "the web server listens" legacy_http_listens
