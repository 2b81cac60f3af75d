# What all scripts share: refusing bad settings, writing files, waiting. Sourced, never run.
# shellcheck shell=bash

# Remedies are for whoever builds the lab, so errors name the script.
fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

# need NAME...: each variable is set and not empty.
need() {
    local name
    for name in "$@"; do
        [[ -n "${!name:-}" ]] || fail "$name is not set: see provision/README.md, or take it from \`python -m lab plan\`"
    done
}

# write FILE MODE OWNER: standard input becomes FILE, as a whole; true when that has changed it.
write() {
    local file=$1 mode=$2 owner=$3 new
    # Callers ask whether it has changed, so a failure here would be taken for an answer.
    if ! { new=$(mktemp "$file.XXXXXX") && cat >"$new" && chmod "$mode" "$new" && chown "$owner" "$new"; }; then
        fail "cannot write $file"
    fi
    if cmp -s "$new" "$file" && [[ "$(stat -c '%a %U' "$file")" == "$(stat -c '%a %U' "$new")" ]]; then
        rm "$new"
        return 1
    fi
    mv "$new" "$file" || fail "cannot write $file"
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local seconds=$1 what=$2 said
    local end=$((SECONDS + seconds))
    shift 2
    until said=$("$@" 2>&1); do
        ((SECONDS < end)) || fail "waited $seconds s in vain until $what; last: $said"
        sleep 0.2
    done
}

# Scripts for hosts; secrets.sh, which is none, sources this with LAB_ANYONE set.
[[ -n "${LAB_ANYONE:-}" || $EUID -eq 0 ]] || fail "not root: these scripts make a host of the whole machine"
