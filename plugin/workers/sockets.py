"""Listening sockets: one ``SO_REUSEPORT`` socket for each worker and address, bound once and kept.

The control process never accepts on them; it keeps its copies open so that the kernel goes on queueing connections
while a worker is replaced.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Sequence

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


def provide(
    addresses: Sequence[HostPort],
    count: int,
    inherited: Iterable[socket.socket],
    shared_with: Iterable[socket.socket],
) -> list[tuple[socket.socket, ...]]:
    """``count`` sets of listening sockets, one for each address; what is ``inherited`` is used first.

    Inherited sockets that are not needed are closed. An address that nobody of ``inherited`` and ``shared_with``
    listens on yet must be free. A port 0 is chosen once, for all sets.

    :raises StartError: when an address cannot be bound; nothing that was inherited is lost then, its owner has it.
    """
    spare: dict[HostPort, list[socket.socket]] = {}
    for listener in inherited:
        spare.setdefault(bound_address(listener), []).append(listener)
    known = {*spare, *map(bound_address, shared_with)}
    columns: list[list[socket.socket]] = []
    for address in addresses:
        available = spare.pop(address, [])
        column = available[:count]
        for unneeded in available[count:]:
            unneeded.close()
        if address not in known and count:
            check_free(address)
        while len(column) < count:
            column.append(listen(bound_address(column[0]) if column else address))
        columns.append(column)
    for unwanted in (listener for left in spare.values() for listener in left):
        unwanted.close()
    return [tuple(column[index] for column in columns) for index in range(count)]


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
