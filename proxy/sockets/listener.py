"""Accepting connections from inherited, listening sockets."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

from proxy.logs import emit

logger = logging.getLogger(__name__)

_ACCEPTS_PER_WAKE = 32
_PAUSE_S = 0.2
# Out of descriptors or memory: the queue waits in the kernel until some are free again. Trying at once would spin.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_QUEUE = struct.Struct("24xII")
"""``tcpi_unacked`` and ``tcpi_sacked`` of TCP_INFO: a listening socket's queue, as it is and at most (tcp(7))."""


class Listener:
    """One listening socket. ``admit`` gets every accepted, non-blocking socket and the client's ``ip:port``."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        address: str,
        admit: Callable[[socket.socket, str], None],
    ) -> None:
        self.address = address
        self.socket = listening
        self._loop = loop
        self._family = listening.family
        self._admit = admit
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._pauses = False
        """Nothing could be accepted since; told once, tried again and again."""
        listening.setblocking(False)
        # Accepted sockets inherit both. A client whose host has vanished says nothing more; after a while the kernel
        # asks it (tcp(7)).
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def start(self) -> None:
        if not self._closed:
            self._timer = None
            self._loop.add_reader(self.socket.fileno(), self._accept)

    def stop(self) -> None:
        """Accept nothing more. Whoever else holds the socket goes on."""
        if self._closed:
            return
        self._closed = True
        # Who is in the queue was promised a connection: closing the last descriptor would reset them.
        self._accept_queued()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self.socket.fileno())
        self.socket.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if not self._accept_one():
                return

    def _accept_queued(self) -> None:
        """All that wait now, and of those who come meanwhile at most one queue's length: they might never end."""
        waiting, most = _QUEUE.unpack(self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUE.size))
        for _ in range(waiting + most):
            if not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """False when there is nothing to accept, or nothing can be."""
        try:
            # As socket.accept() does it, without looking up again what every connection of this socket is.
            descriptor, address = self.socket._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._pause(error)
                return False
            return True  # the client gave up while it was queued
        client = socket.socket(self._family, socket.SOCK_STREAM, 0, descriptor)
        client.setblocking(False)
        if self._pauses:
            emit(logger, logging.INFO, "accept.resumed", f"accepting on {self.address} again")
            self._pauses = False
        self._admit(client, printed(address))
        return True

    def _pause(self, error: OSError) -> None:
        if not self._pauses:
            self._pauses = True
            message = f"accepting on {self.address} pauses: {error.strerror}; raise the limit of open files"
            emit(logger, logging.WARNING, "accept.paused", message)
        self._loop.remove_reader(self.socket.fileno())
        if not self._closed:
            self._timer = self._loop.call_later(_PAUSE_S, self.start)


def printed(address: tuple[Any, ...]) -> str:
    """``ip:port`` of what the kernel calls an address of IPv4 or IPv6."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{host}:{address[1]}"
