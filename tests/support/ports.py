"""Ports on loopback that behave as distant hosts do: deaf ones, and one that is the same on many addresses."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence

_TRIES = 50


@contextlib.contextmanager
def deaf(address: str, port: int = 0) -> Iterator[int]:
    """A port that lets no connection come about and refuses none: its SYNs are dropped, as by a firewall.

    The kernel drops a SYN while the queue of a listening socket is full; nobody accepts from this one.
    """
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_bound(address, port))
        listening.listen(0)
        name = listening.getsockname()
        for _ in range(2):
            filler = stack.enter_context(socket.socket(listening.family, socket.SOCK_STREAM))
            filler.setblocking(False)
            filler.connect_ex(name)
        yield name[1]


def shared_port(addresses: Sequence[str]) -> int:
    """A port that is free on all of ``addresses`` at this moment."""
    for _ in range(_TRIES):
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(_bound(addresses[0], 0)).getsockname()[1]
            try:
                for address in addresses[1:]:
                    stack.enter_context(_bound(address, port))
            except OSError:
                continue
            return int(port)
    raise AssertionError(f"no port is free on all of {', '.join(addresses)}")


def _bound(address: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
    except OSError:
        one.close()
        raise
    return one
