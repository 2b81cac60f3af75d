"""Listening sockets: one ``SO_REUSEPORT`` socket for each worker and address, bound once and kept.

The control process never accepts on them; it keeps its copies open so that the kernel goes on queueing connections
while a worker is replaced.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from plugin.addresses import HostPort
from plugin.errors import StartError

BACKLOG = 4096
"""Connections the kernel queues for one socket (``net.core.somaxconn`` may be lower)."""


def bound_address(listener: socket.socket) -> HostPort:
    host, port = listener.getsockname()[:2]
    return HostPort(host, port)


def can_bind(host: str) -> bool:
    """Whether the IP address ``host`` is one of this host; an unspecified one is none."""
    if host in ("0.0.0.0", "::"):
        return False
    try:
        with _socket(HostPort(host, 0)) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def check_free(address: HostPort) -> None:
    """:raises StartError: when anything else listens there; with ``SO_REUSEPORT`` alone we would share its traffic."""
    with _socket(address) as probe:
        _bind(probe, address)


def check_can_listen(addresses: Iterable[HostPort]) -> None:
    """:raises StartError: names the first address that cannot be bound now."""
    for address in addresses:
        check_free(address)
        listen(address).close()


def listen(address: HostPort) -> socket.socket:
    """A listening socket that others of this user may share (``SO_REUSEPORT``). :raises StartError: when not."""
    listener = _socket(address)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _bind(listener, address)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


@dataclass(slots=True)
class Allotment:
    places: list[tuple[socket.socket, ...]]
    """For each worker, at least one socket for each address."""
    unwanted: list[socket.socket]
    """Of the sockets that were there, those of other addresses."""
    problems: list[StartError]
    """One for each address that cannot be bound; nobody listens there then."""


def allot(
    addresses: Sequence[HostPort], own: Sequence[Sequence[socket.socket]], spare: Sequence[socket.socket] = ()
) -> Allotment:
    """Sockets for as many workers as there are elements of ``own``, which are those that each has already.

    What is there is used before anything is bound: first what a worker has, then ``spare``. Where there are more than
    workers, some workers get several, for closing one would reset the connections in its queue. An address that
    nobody here listens on yet must be free. A port 0 is chosen once, for all.
    """
    places: list[list[socket.socket]] = [[] for _ in own]
    having = [_by_address(mine) for mine in own]
    spares = _by_address(spare)
    problems: list[StartError] = []
    for address in addresses:
        mine = [one.pop(address, []) for one in having]
        try:
            _complete(address, mine, spares.pop(address, []))
        except StartError as error:
            problems.append(error)
            continue
        for place, listeners in zip(places, mine, strict=True):
            place += listeners
    unwanted = [one for left in (*having, spares) for listeners in left.values() for one in listeners]
    return Allotment([tuple(place) for place in places], unwanted, problems)


def _by_address(listeners: Iterable[socket.socket]) -> dict[HostPort, list[socket.socket]]:
    found: dict[HostPort, list[socket.socket]] = {}
    for listener in listeners:
        found.setdefault(bound_address(listener), []).append(listener)
    return found


def _complete(address: HostPort, mine: list[list[socket.socket]], spare: list[socket.socket]) -> None:
    """Give each of ``mine`` at least one socket. :raises StartError: when ``address`` cannot be bound."""
    if not spare and not any(mine):
        check_free(address)
    made: list[socket.socket] = []
    for place in mine:
        if not place and spare:
            place.append(spare.pop(0))
    for place in mine:
        if not place:
            known = next((one for listeners in mine for one in listeners), None)
            try:
                made.append(listen(bound_address(known) if known is not None else address))
            except StartError:
                for one in made:
                    one.close()
                raise
            place.append(made[-1])
    for number, surplus in enumerate(spare):
        mine[number % len(mine)].append(surplus)


def distinct(listeners: Iterable[socket.socket]) -> list[socket.socket]:
    """Each socket once, however many descriptors of it are among them; the others are closed."""
    found: dict[int, socket.socket] = {}
    for listener in listeners:
        if found.setdefault(os.fstat(listener.fileno()).st_ino, listener) is not listener:
            listener.close()
    return list(found.values())


def is_listening(listener: socket.socket) -> bool:
    return (
        listener.family in (socket.AF_INET, socket.AF_INET6)
        and listener.type == socket.SOCK_STREAM
        and bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


def _socket(address: HostPort) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    created = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    created.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        # "::" and "0.0.0.0" can then both be bound, each for its own family.
        created.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return created


_REMEDIES = {
    errno.EADDRINUSE: "another process listens there; stop it, or choose another --address",
    errno.EADDRNOTAVAIL: "this host has no such address; choose one that `ip address` lists, or bind another one with"
    " envoy_gateway_bind_addresses",
    errno.EACCES: "a port below 1024 needs CAP_NET_BIND_SERVICE; choose a higher one",
}


def _bind(unbound: socket.socket, address: HostPort) -> None:
    try:
        unbound.bind((address.host, address.port))
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, error.strerror)
        raise StartError(f"cannot listen on {address}: {remedy}") from error
