"""Listening sockets from systemd (sd_listen_fds(3)): the gateway needs no right to bind, and a restart refuses nobody.

Each worker accepts from a socket of its own, so the ``.socket`` unit repeats ``ListenStream=`` once for each worker,
with ``ReusePort=yes``. systemd binds as root, so this process cannot add sockets to theirs.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, MutableMapping, Sequence

from plugin.addresses import HostPort
from plugin.errors import StartError
from plugin.workers.sockets import bound_address, is_listening

_FIRST = 3
"""``SD_LISTEN_FDS_START``."""


def receive(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets that this process was given, once; its children are given none.

    :raises StartError: when one of them is no listening TCP socket, or the variables are not understood.
    """
    pid, number, names = (environment.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if not pid or pid != str(os.getpid()):
        return []
    if not number.isdecimal():
        raise StartError(f"LISTEN_FDS={number!r} is no number; it is set by systemd, see systemd.socket(5)")
    named = names.split(":")
    found = []
    for place in range(int(number)):
        given = _socket(_FIRST + place, named[place] if place < len(named) else "")
        given.setblocking(False)
        os.set_inheritable(given.fileno(), False)
        found.append(given)
    return found


def _socket(descriptor: int, name: str) -> socket.socket:
    try:
        given = socket.socket(fileno=descriptor)
    except OSError:
        given = None
    if given is None or not is_listening(given):
        if given is not None:
            given.detach()  # it is not ours to close
        raise StartError(
            f"descriptor {descriptor} ({name or 'without a name'}) of systemd is no listening TCP socket; the .socket"
            " unit must have ListenStream=IP:PORT and Accept=no"
        )
    return given


def for_each_worker(given: Sequence[socket.socket], bound: Collection[HostPort], workers: int) -> int:
    """How many workers ``given`` does for; 0 when there is none.

    :param bound: every address that the gateway listens on.
    :param workers: how many were asked for; 0: as many as there are sockets.
    :raises StartError: when an address of a socket is not wanted, or there are not enough for the workers.
    """
    numbers: dict[HostPort, int] = {}
    for one in given:
        address = bound_address(one)
        if address not in bound:
            wanted = ", ".join(map(str, bound))
            raise StartError(
                f"systemd listens on {address}, and the gateway on {wanted}: make ListenStream= of the .socket unit and"
                " --address the same"
            )
        numbers[address] = numbers.get(address, 0) + 1
    fewest = min(numbers.values(), default=0)
    if fewest and workers > fewest:
        address = min(numbers, key=lambda one: numbers[one])
        raise StartError(
            f"systemd has {fewest} socket(s) for {address}, and --workers asks for {workers}: write"
            f" ListenStream={address} {workers} times, with ReusePort=yes, or give --workers {fewest}"
        )
    return fewest
