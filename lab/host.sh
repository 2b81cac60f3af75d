#!/usr/bin/env bash
# The first process of a host in namespaces: host.sh FOLDER NAME SHARED...
# Runs in fresh net, mount, uts, ipc and pid namespaces. Gives the host a file system of its own, which is this machine's
# as long as nothing is written: what is written goes to memory, and is gone with this process, as all others here.
# FOLDER/secrets, if there, is /etc/lab/secrets in it. SHARED are folders that every
# user can reach there, also when they are on another file system than / is.
set -euo pipefail
folder=$1 name=$2
shift 2
exec 3>"$folder/ready"

mount --make-rprivate /
mkdir -p "$folder/disk"
mount -t tmpfs -o mode=755,size=2g lab "$folder/disk"
mkdir "$folder"/disk/{written,work,root}
root=$folder/disk/root
if ! mount -t overlay lab -o "lowerdir=/,upperdir=$folder/disk/written,workdir=$folder/disk/work" "$root"; then
    echo "this kernel lays no overlay over /: the lab needs CONFIG_OVERLAY_FS, and / on a file system that can be a lower layer" >&2
    exit 1
fi
for path in "$@"; do
    # Services do not run as root, and these may be in a home that is closed to others: here it is open.
    parent=$(dirname "$path")
    until [[ $parent == / ]]; do
        mkdir -p "$root$parent"
        chmod o+x "$root$parent"
        parent=$(dirname "$parent")
    done
    if [[ $(stat -c %d "$path") != "$(stat -c %d /)" ]]; then
        mkdir -p "$root$path"
        mount --rbind "$path" "$root$path"
    fi
done
mkdir -p "$root/etc/lab"
rm -rf "$root/etc/lab/secrets"
if [[ -d $folder/secrets ]]; then
    cp -a "$folder/secrets" "$root/etc/lab/secrets"
fi
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 lab "$root/run"
mount -t tmpfs -o mode=1777 lab "$root/tmp"
# An own /dev/shm: that of the machine has its own users' names in it.
mount -t tmpfs -o mode=1777 lab "$root/dev/shm"
mkdir "$root/run/machine"
cd "$root"
pivot_root . run/machine
umount -l /run/machine
rmdir /run/machine

hostname "$name"
echo "$name" >/etc/hostname
# Nothing is passed on, and there is one way to another host only: its address on a network that both are on.
echo 0 >/proc/sys/net/ipv4/ip_forward
if [[ -d /proc/sys/net/ipv6 ]]; then
    echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
    echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
fi
ip link set lo up

echo ready >&3
exec 3>&-
# Wait for ever, and for whoever is left behind by its parent.
while :; do
    sleep 3600 &
    wait $! || true
done
