"""Sockets of refused clients, kept for a moment so that the client can read why.

Closing a socket with unread bytes makes the kernel send a reset, which may overtake the alert; so what still comes is
read and dropped until the client closes, or for a second. There are never more than a set number of them: then the
oldest is closed early, so that a flood of refused clients holds no descriptors.
"""

from __future__ import annotations

import asyncio
import functools
import socket

from proxy.sockets.poller import Poller

_LINGER_S = 1.0
_DROPPED_AT_ONCE = 65_536


class Lingering:
    """Those of one worker, with one timer."""

    def __init__(self, poller: Poller, most: int) -> None:
        """``most`` of 0 is no limit."""
        self._poller = poller
        self._most = most
        self._until_s: dict[socket.socket, float] = {}
        """In the order in which they are to be closed."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._until_s)

    def add(self, client: socket.socket) -> None:
        """Take ``client`` over, to whom everything was sent that will be."""
        try:
            client.shutdown(socket.SHUT_WR)
        except OSError:
            self._poller.close_socket(client)
            return
        if self._most and len(self._until_s) >= self._most:
            self._close(next(iter(self._until_s)))
        loop = self._poller.loop
        self._until_s[client] = loop.time() + _LINGER_S
        self._poller.on_readable(client.fileno(), functools.partial(self._discard, client))
        if self._timer is None:
            self._timer = loop.call_later(_LINGER_S, self._sweep)

    def _discard(self, client: socket.socket) -> None:
        try:
            if client.recv(_DROPPED_AT_ONCE):
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass  # a reset is an end, too
        self._close(client)

    def _close(self, client: socket.socket) -> None:
        del self._until_s[client]
        self._poller.close_socket(client)

    def _sweep(self) -> None:
        self._timer = None
        loop = self._poller.loop
        now_s = loop.time()
        for client in [one for one, until_s in self._until_s.items() if until_s <= now_s]:
            self._close(client)
        if self._until_s:
            self._timer = loop.call_later(next(iter(self._until_s.values())) - now_s, self._sweep)
