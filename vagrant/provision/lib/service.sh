# Programs that stay: a unit where systemd runs, else a service of runit. Nothing else here knows which of them it is.
# shellcheck shell=bash

# A folder of systemd's that is there only while it is the one that runs.
_systemd() { [[ -d /run/systemd/system ]]; }

# service NAME USER COMMAND...: keep it running as that user, and start it anew when the definition has changed.
# With --restart first, also when it has not; with --unit FILE, that is its unit under systemd. Its output: journalctl -u NAME, or /var/log/lab/NAME.log.
service() {
    local restart='' unit=''
    while [[ $1 == --* ]]; do
        case $1 in
            --restart) restart=yes ;;
            --unit)
                unit=$2
                shift
                ;;
        esac
        shift
    done
    local name=$1 user=$2
    shift 2
    if _systemd; then
        if [[ -n $unit ]]; then
            _systemd_service "$restart" "$name" <"$unit"
        else
            _unit "$name" "$user" "$@" | _systemd_service "$restart" "$name"
        fi
    else
        _runit_service "$restart" "$name" "$user" "$@"
    fi
}

# service_control NAME stop|start|restart|kill: kill is SIGKILL, after which its supervisor starts it again.
service_control() {
    local name=$1 verb=$2
    if _systemd; then
        if [[ $verb == kill ]]; then
            systemctl kill --signal=KILL "$name"
        else
            systemctl "$verb" "$name"
        fi
    elif [[ $verb == kill ]]; then
        sv kill "/etc/sv/$name"
    else
        sv -w 60 "$verb" "/etc/sv/$name" >/dev/null
    fi
}

# Words of a command, as systemd reads them: no variables, no specifiers.
_systemd_words() {
    local word
    for word in "$@"; do
        word=${word//\\/\\\\}
        word=${word//\"/\\\"}
        word=${word//%/%%}
        printf '"%s" ' "${word//\$/\$\$}"
    done
}

_unit() {
    local name=$1 user=$2
    shift 2
    cat <<UNIT
[Unit]
Description=$name of the lab
After=network-online.target
Wants=network-online.target

[Service]
User=$user
ExecStart=$(_systemd_words "$@")
Restart=always
RestartSec=1
LimitNOFILE=65536
RuntimeDirectory=$name
RuntimeDirectoryMode=0700

[Install]
WantedBy=multi-user.target
UNIT
}

# Standard input is the unit.
_systemd_service() {
    local restart=$1 name=$2
    if write "/etc/systemd/system/$name.service" 644 root; then
        systemctl daemon-reload
        restart=yes
    fi
    systemctl enable --quiet "$name"
    if [[ -n $restart ]]; then
        systemctl restart "$name"
    else
        systemctl start "$name"
    fi
}

_runit_service() {
    local restart=$1 name=$2 user=$3
    shift 3
    mkdir -p "/etc/sv/$name" /var/log/lab
    if write "/etc/sv/$name/run" 755 root <<RUN; then
#!/bin/bash
exec >>/var/log/lab/$name.log 2>&1
ulimit -Sn "\$(ulimit -Hn)"
install -d -m 700 -o $user /run/$name
export RUNTIME_DIRECTORY=/run/$name
exec chpst -u $user $(printf '%q ' "$@")
RUN
        restart=yes
    fi
    if ! sv status "/etc/sv/$name" >/dev/null 2>&1; then
        setsid runsv "/etc/sv/$name" </dev/null >/dev/null 2>&1 &
        wait_for 10 "runit supervises $name" sv status "/etc/sv/$name"
    elif [[ -n $restart ]]; then
        sv -w 60 restart "/etc/sv/$name" >/dev/null
    else
        sv -w 60 start "/etc/sv/$name" >/dev/null
    fi
}

# without_own_services NAME...: Debian's packages start theirs when a machine boots; here scripts do.
without_own_services() {
    if _systemd; then
        systemctl disable --quiet --now "$@"
    fi
}
