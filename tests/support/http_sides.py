"""HTTP connections on real sockets, driven by hand: what they tell their sessions, and the loop between the steps."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from proxy.errors import UpstreamError
from proxy.http.message import Data, Headers, RequestHead, ResponseHead
from proxy.http.streams import ClientConnection, Incoming, IncomingEvents
from proxy.http.wire import Turn, Wire, WireOwner
from proxy.model import CloseReason
from proxy.sockets.channel import Buffers, TCPChannel
from proxy.sockets.poller import Poller
from tests.support.eventually import SCALE

DEADLINE_S = 10.0 * SCALE


class Silent:
    """The owner of a wire until there is one."""

    def on_bytes(self, data: memoryview) -> None: ...

    def on_end(self, *, cut: bool) -> None: ...

    def on_lost(self, error: Exception) -> None: ...

    def on_room(self) -> None: ...


class Bench:
    """One worker's loop, buffers and wires."""

    def __init__(self, stalled_limit: int = 0) -> None:
        self.poller = Poller()
        self.buffers = Buffers(stalled_limit)
        self.turn = Turn(self.poller.loop)
        self._sockets: list[socket.socket] = []
        self._wires: list[Wire] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self.poller.loop

    def pair(self, *, small: bool = False) -> tuple[Wire, socket.socket]:
        """A wire, and the peer's end of it; ``small``: the kernel keeps little between the two."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
            if small:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._sockets.append(theirs)
        owner: WireOwner = Silent()
        wire = Wire(self.poller, self.buffers, self.turn, TCPChannel(ours, self.buffers), owner)
        self._wires.append(wire)
        return wire, theirs

    def joined(self) -> tuple[Wire, Wire]:
        """Both ends of one connection."""
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        one, other = (
            Wire(self.poller, self.buffers, self.turn, TCPChannel(end, self.buffers), Silent()) for end in ends
        )
        self._wires += (one, other)
        return one, other

    def turns(self, number: int = 1) -> None:
        """Everything that is ready now, so many times."""
        for _ in range(number):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def until(self, condition: Callable[[], object]) -> None:
        """Go on until ``condition`` holds."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline_s, "the deadline has passed"
            self.turns()

    def close(self) -> None:
        for wire in self._wires:
            wire.close(reset=True)
        for one in self._sockets:
            one.close()
        self.loop.close()


class Exchange:
    """What is heard of one request, of its client's side; answers only what it is told to."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self.body = bytearray()
        self.trailers: Headers | None = None
        self.lost: tuple[CloseReason, str] | None = None
        self.rooms = 0
        self.on_data: Callable[[Exchange], None] = lambda _exchange: None

    @property
    def head(self) -> RequestHead:
        return self.incoming.head

    @property
    def over(self) -> bool:
        return self.trailers is not None

    def on_request_data(self, data: Data) -> None:
        assert not self.over
        assert self.lost is None
        self.body += data
        self.on_data(self)

    def on_request_end(self, trailers: Headers) -> None:
        assert not self.over
        assert self.lost is None
        self.trailers = trailers

    def on_request_lost(self, reason: CloseReason, detail: str) -> None:
        assert self.lost is None
        self.lost = (reason, detail)

    def on_client_room(self) -> None:
        assert self.lost is None
        self.rooms += 1


class Session:
    """What a server's connection tells."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.refused: list[tuple[int, str]] = []
        self.closed: tuple[CloseReason, str] | None = None
        self.on_exchange: Callable[[Exchange], None] = lambda _exchange: None

    def on_request(self, incoming: Incoming) -> IncomingEvents:
        exchange = Exchange(incoming)
        self.exchanges.append(exchange)
        self.on_exchange(exchange)
        return exchange

    def on_bad_request(self, status: int, what: str) -> None:
        self.refused.append((status, what))

    def on_closed(self, reason: CloseReason, detail: str) -> None:
        assert self.closed is None
        self.closed = (reason, detail)


class Answer:
    """What is heard of one request, of the external service's side."""

    def __init__(self) -> None:
        self.informed: list[ResponseHead] = []
        self.head: ResponseHead | None = None
        self.body = bytearray()
        self.trailers: Headers | None = None
        self.lost: tuple[UpstreamError, bool] | None = None
        self.rooms = 0

    @property
    def over(self) -> bool:
        return self.trailers is not None

    def on_informed(self, head: ResponseHead) -> None:
        self.informed.append(head)

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        assert self.head is None
        self.head = head
        if end:
            self.trailers = []

    def on_response_data(self, data: Data) -> None:
        assert not self.over
        assert self.lost is None
        self.body += data

    def on_response_end(self, trailers: Headers) -> None:
        assert not self.over
        assert self.lost is None
        self.trailers = trailers

    def on_response_lost(self, error: UpstreamError, *, unprocessed: bool) -> None:
        assert not self.over
        assert self.lost is None
        self.lost = (error, unprocessed)

    def on_upstream_room(self) -> None:
        self.rooms += 1


class Pool:
    """What a client's connection tells."""

    def __init__(self) -> None:
        self.available = 0
        self.gone = 0

    def on_available(self, connection: ClientConnection) -> None:
        self.available += 1

    def on_gone(self, connection: ClientConnection) -> None:
        self.gone += 1
