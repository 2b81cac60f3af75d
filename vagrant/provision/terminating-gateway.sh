#!/usr/bin/env bash
# consul-tgw, an instance of the service terminating-gateway; waits until it serves what is linked.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source=lib/service.sh
. "$here/lib/service.sh"
# shellcheck source=lib/consul.sh
. "$here/lib/consul.sh"
need LAB_ADDRESS LAB_SECRETS

# Where the project's own unit looks for both.
install -d /etc/consul-tgw
install -d -m 750 -o consul-tgw /var/log/consul-tgw
changed=
write /etc/consul-tgw/token 400 consul-tgw <"$LAB_SECRETS/service.token" && changed=--restart
write /etc/consul-tgw/env 600 consul-tgw <<ENV && changed=--restart
GATEWAY_FLAGS="--service terminating-gateway --address $LAB_ADDRESS:8443 --access-log /var/log/consul-tgw/access.log --audit-log /var/log/consul-tgw/audit.log --log-format json"
CONSUL_HTTP_TOKEN_FILE=/etc/consul-tgw/token
ENV
# shellcheck disable=SC2086,SC2016 # nothing, or one word; what is quoted is for the shell that is started
service $changed --unit "$here/../../packaging/systemd/consul-tgw.service" consul-tgw consul-tgw /bin/bash -c \
    'set -a; . /etc/consul-tgw/env; exec /usr/bin/consul-tgw run $GATEWAY_FLAGS'

serves() {
    local answer
    answer=$(consul-tgw status --json --runtime-dir /run/consul-tgw) || {
        echo "$answer"
        return 1
    }
    [[ $(jq '.services | length > 0 and all(.served)' <<<"$answer") == true ]] || {
        jq --compact-output '.services' <<<"$answer"
        return 1
    }
}
wait_for 60 "the gateway serves what is linked" serves
