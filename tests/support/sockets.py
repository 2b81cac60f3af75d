"""What the kernel knows of a TCP connection between two ports of loopback (proc_net_tcp(5))."""

from __future__ import annotations

import os
from pathlib import Path

_ESTABLISHED = "01"
_KEEPALIVE = "02"


def keepalive_s(local_port: int, remote_port: int) -> float | None:
    """Seconds until the kernel asks the other side whether it lives; ``None`` when it is not going to.

    While a segment is not acknowledged, another timer runs and hides this one: ask again.
    """
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, _, timer, *_ = line.split()
        ports = (int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16))
        kind, _, ticks = timer.partition(":")
        if ports == (local_port, remote_port) and state == _ESTABLISHED and kind == _KEEPALIVE:
            return int(ticks, 16) / os.sysconf("SC_CLK_TCK")
    return None


def remote_ports(local_port: int) -> list[int]:
    """The other sides of the established connections of ``local_port``."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [
        int(row[2].partition(":")[2], 16)
        for row in rows
        if row[3] == _ESTABLISHED and int(row[1].partition(":")[2], 16) == local_port
    ]
