"""A data plane in this process with real sockets, driven one turn at a time, and its peers, driven by hand.

Nothing runs between two calls of :meth:`PlaneUnderTest.turn`, so that a test chooses the order of everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from proxy.carrier import Carrier
from proxy.connection import State
from proxy.dataplane import DataPlane
from proxy.messages import Limits, Update
from proxy.model import CloseReason
from proxy.records.access_log import AccessLog
from proxy.sockets.listener import Listener
from proxy.sockets.poller import Poller
from tests.support.eventually import SCALE

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_TURNS = 3
_PATIENCE_S = 20.0
_READ = 65_536


class Peer:
    """One side of a connection. It never waits: :meth:`step` does what can be done."""

    def __init__(
        self, connected: socket.socket, context: ssl.SSLContext | None = None, server_name: str | None = None
    ) -> None:
        connected.setblocking(False)
        self.socket = connected
        self.sent = b""
        """Plaintext that was given to the socket or the session."""
        self.received = b""
        self.ended = ""
        """``end``, ``cut`` or ``reset``, once the other side has ended."""
        self.open = True
        self.established = context is None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            self._tls = context.wrap_bio(
                self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
            )
        self._waiting = b""
        self._finishing = False

    def send(self, data: bytes) -> None:
        if not (self.open and self.established) or self._finishing or (self._tls is not None and self.ended):
            return
        if self._tls is None:
            self._waiting += data
        else:
            self._tls.write(data)
        self.sent += data
        self.step()

    def raw(self, data: bytes) -> None:
        """Bytes beside the session."""
        if self.open:
            with contextlib.suppress(OSError):
                self.socket.send(data)

    def hello(self, part: float = 1.0) -> None:
        """Send so much of what the session wants to send first, and nothing more of it."""
        assert self._tls is not None
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        first = self._outgoing.read()
        self.raw(first[: max(1, int(len(first) * part))])
        self._waiting = first[max(1, int(len(first) * part)) :]

    def finish(self) -> None:
        """End this direction."""
        if not (self.open and self.established) or self._finishing:
            return
        self.step()
        self._finishing = True
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        self.step()
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        if self.open:
            self.open = False
            with contextlib.suppress(OSError):
                if reset:
                    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self.socket.close()

    def step(self) -> None:
        if not self.open:
            return
        self._receive()
        self._progress()
        self._flush()

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while not self.ended:
                try:
                    data = self.socket.recv(_READ)
                except ConnectionError:
                    self.ended = "reset"
                    return
                if not data:
                    self.ended = "end" if self._tls is None else "cut"
                elif self._tls is None:
                    self.received += data
                else:
                    self._incoming.write(data)

    def _progress(self) -> None:
        if self._tls is None:
            return
        try:
            if not self.established:
                self._tls.do_handshake()
                self.established = True
            while data := self._tls.read(_READ):
                self.received += data
        except (ssl.SSLWantReadError, ssl.SSLSyscallError):
            return
        except ssl.SSLZeroReturnError:
            self.ended = "end"
        except ssl.SSLError as error:
            self.ended = error.reason or "reset"
        else:
            self.ended = "end"

    def _flush(self) -> None:
        self._waiting += self._outgoing.read()
        with contextlib.suppress(OSError):
            while self._waiting:
                self._waiting = self._waiting[self.socket.send(self._waiting) :]


class PlaneUnderTest:
    """Use as a context manager: leaving it checks that nothing is left."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._descriptors = _descriptors()
        self.poller = Poller()
        self.loop = self.poller.loop
        bounds = limits or Limits()
        self.plane: DataPlane = self.call(
            lambda: DataPlane(self.poller, worker=1, limits=bounds, access_log=AccessLog(-1), descriptors=1_024)
        )
        self.closed: Counter[int] = Counter()
        """How often each connection was counted as ended, by its number."""
        self.reasons: Counter[CloseReason] = Counter()
        self.counted = [0, 0]
        """Bytes from and to clients, of ended connections."""
        self._generation = 0
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = listening.getsockname()[1]
        self.listener = self.call(lambda: Listener(self.loop, listening, f"127.0.0.1:{self.port}", self.plane.admit))
        self.call(self.listener.start)
        self._note_ends()

    def _note_ends(self) -> None:
        ended = self.plane.ended

        def noted(carrier: Carrier, received: int, sent: int) -> None:
            self.closed[carrier.life.number] += 1
            assert carrier.life.reason is not None
            self.reasons[carrier.life.reason] += 1
            self.counted[0] += received
            self.counted[1] += sent
            ended(carrier, received, sent)

        self.plane.ended = noted  # type: ignore[method-assign]

    def call(self, function: Callable[[], Any]) -> Any:
        """In the event loop."""

        async def within() -> Any:
            return function()

        return self.loop.run_until_complete(within())

    def update(self, **fields: Any) -> None:
        self._generation += 1
        update = Update(generation=self._generation, **fields)
        problems = self.call(lambda: self.plane.apply(update)).problems
        assert problems == ()

    def turn(self) -> None:
        """Let the loop see what the kernel has for it."""
        for _ in range(_TURNS):
            self.loop.run_until_complete(asyncio.sleep(0))

    def until(self, holds: Callable[[], object], *peers: Peer) -> bool:
        """Turn until it does; false when it does not for a long time."""
        give_up_s = time.monotonic() + _PATIENCE_S * SCALE
        while not holds():
            if time.monotonic() > give_up_s:
                return False
            self.turn()
            for peer in peers:
                peer.step()
        return True

    def check(self) -> None:
        """What holds at every moment."""
        plane = self.plane
        live = list(plane.live)
        counters = plane.counters()
        assert plane.telemetry.accepted == len(live) + sum(self.closed.values())
        assert set(self.closed.values()) <= {1}, "a connection was ended twice"
        assert sum(count.connections for count in counters.counts) == counters.accepted
        assert len(plane.pending) == sum(one.life.state is State.HANDSHAKING for one in live)
        for one in live:
            assert (one.life.permit is not None) == (one.life.state in (State.DIALLING, State.OPEN))
            assert (one.life.endpoint is not None) == (one.life.state is State.OPEN)
            assert one.life.reason is None
            assert one.life.state is not State.CLOSED
        counted = [sum(one.traffic[side] for one in live) + self.counted[side] for side in (0, 1)]
        assert [sum(c.bytes_received for c in counters.counts), sum(c.bytes_sent for c in counters.counts)] == counted

    def __enter__(self) -> PlaneUnderTest:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self.call(self.listener.stop)
            self.call(lambda: self.plane.end_all(CloseReason.DRAIN, "the test is over"))
            if kind is None:
                self._nothing_is_left()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def _nothing_is_left(self) -> None:
        assert self.until(lambda: not self.plane.live), "connections are left"
        self.check()
        assert self.until(lambda: not self.poller._interests), f"still waited for: {self.poller._interests}"
        assert self.until(lambda: not self._timers()), f"timers are left: {self._timers()}"
        own = 3  # epoll, and the loop's pair of sockets
        assert _descriptors() <= self._descriptors + own, "descriptors are left"

    def _timers(self) -> list[asyncio.TimerHandle]:
        scheduled: list[asyncio.TimerHandle] = self.loop._scheduled  # type: ignore[attr-defined]
        # Those for all handshakes and for all connections come back by themselves, and find nothing.
        expected = (self.plane.pending._timer, self.poller.timers._wake)
        return [timer for timer in scheduled if not timer.cancelled() and timer not in expected]


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
