"""Both sides of HTTP/1.1 on real sockets, driven one turn at a time, and what they told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from proxy.errors import UpstreamError
from proxy.http.h1.client import H1Client
from proxy.http.h1.outgoing import H1Outgoing
from proxy.http.h1.server import H1Server
from proxy.http.message import Data, Headers, RequestHead, ResponseHead, Version
from proxy.http.streams import ClientConnection, Incoming, IncomingEvents
from proxy.http.wire import Turn, Wire, WireOwner
from proxy.model import CloseReason
from proxy.sockets.channel import Buffers, TCPChannel
from proxy.sockets.poller import Poller
from tests.support.eventually import SCALE
from tests.support.plane import Peer

_TURNS = 3
_PATIENCE_S = 20.0


def pair() -> tuple[socket.socket, socket.socket]:
    """Ours, without blocking, and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    return ours, peer


class Nobody:
    """Owns a wire that is not driven yet."""

    def on_bytes(self, data: memoryview) -> None:
        raise AssertionError("bytes before there is a protocol")

    def on_end(self, *, cut: bool) -> None:
        raise AssertionError("an end before there is a protocol")

    def on_lost(self, error: Exception) -> None:
        raise error

    def on_room(self) -> None:
        raise AssertionError("room before there is a protocol")


@dataclass
class Asked:
    """A request that a server connection delivered."""

    incoming: Incoming
    body: bytes = b""
    trailers: Headers | None = None
    lost: tuple[CloseReason, str] | None = None
    rooms: int = 0

    @property
    def head(self) -> RequestHead:
        return self.incoming.head

    def on_request_data(self, data: Data) -> None:
        assert self.trailers is None
        assert self.lost is None
        assert len(data) > 0
        self.body += data

    def on_request_end(self, trailers: Headers) -> None:
        assert self.trailers is None
        assert self.lost is None
        self.trailers = trailers

    def on_request_lost(self, reason: CloseReason, detail: str) -> None:
        assert self.lost is None
        self.lost = reason, detail

    def on_client_room(self) -> None:
        self.rooms += 1


@dataclass
class Session:
    """What a server connection told."""

    requests: list[Asked] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)
    closed: list[tuple[CloseReason, str]] = field(default_factory=list)
    answer: Callable[[Asked], None] | None = None
    """At once, from within ``on_request``."""

    def on_request(self, incoming: Incoming) -> IncomingEvents:
        assert not self.closed
        asked = Asked(incoming)
        self.requests.append(asked)
        if self.answer is not None:
            self.answer(asked)
        return asked

    def on_bad_request(self, status: int, what: str) -> None:
        self.refused.append((status, what))

    def on_closed(self, reason: CloseReason, detail: str) -> None:
        assert not self.closed
        self.closed.append((reason, detail))


@dataclass
class Answer:
    """What an external service answered to one request."""

    informed: list[ResponseHead] = field(default_factory=list)
    head: ResponseHead | None = None
    body: bytes = b""
    trailers: Headers | None = None
    lost: UpstreamError | None = None
    unprocessed: bool = False
    rooms: int = 0

    @property
    def complete(self) -> bool:
        return self.trailers is not None

    def on_informed(self, head: ResponseHead) -> None:
        assert self.head is None
        self.informed.append(head)

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        assert self.head is None
        self.head = head
        if end:
            self.trailers = []

    def on_response_data(self, data: Data) -> None:
        assert self.head is not None
        assert not self.complete
        assert len(data) > 0
        self.body += data

    def on_response_end(self, trailers: Headers) -> None:
        assert self.head is not None
        assert not self.complete
        self.trailers = trailers

    def on_response_lost(self, error: UpstreamError, *, unprocessed: bool) -> None:
        assert not self.complete
        assert self.lost is None
        self.lost, self.unprocessed = error, unprocessed

    def on_upstream_room(self) -> None:
        self.rooms += 1


@dataclass
class Pool:
    """What a client connection told."""

    available: int = 0
    gone: int = 0

    def on_available(self, connection: ClientConnection) -> None:
        assert connection.available
        self.available += 1

    def on_gone(self, connection: ClientConnection) -> None:
        assert not connection.available
        self.gone += 1


class Rig:
    """One worker's poller, buffers and turn; sockets and the connections on them."""

    def __init__(self) -> None:
        self.poller = Poller()
        self.loop = self.poller.loop
        self.buffers = Buffers()
        self.turns = Turn(self.loop)
        self._peers: list[Peer] = []
        self._wires: list[Wire] = []

    def wire(self, owner: WireOwner | None = None) -> tuple[Wire, Peer]:
        ours, theirs = pair()
        wire = Wire(self.poller, self.buffers, self.turns, TCPChannel(ours, self.buffers), owner or Nobody())
        peer = Peer(theirs)
        self._peers.append(peer)
        self._wires.append(wire)
        return wire, peer

    def server(self, answer: Callable[[Asked], None] | None = None, **limits: float) -> tuple[H1Server, Session, Peer]:
        wire, peer = self.wire()
        session = Session(answer=answer)
        server = H1Server(wire, session, **limits)  # type: ignore[arg-type]
        self.call(server.start)
        return server, session, peer

    def client(self) -> tuple[H1Client, Pool, Peer]:
        wire, peer = self.wire()
        pool = Pool()
        client = H1Client(wire, pool)
        self.call(client.start)
        return client, pool, peer

    def call(self, function: Callable[[], object]) -> None:
        """In the event loop."""

        async def within() -> None:
            function()

        self.loop.run_until_complete(within())

    def turn(self) -> None:
        """Let the loop see what the kernel has for it."""
        for _ in range(_TURNS):
            self.loop.run_until_complete(asyncio.sleep(0))
        for peer in self._peers:
            peer.step()

    def until(self, holds: Callable[[], object]) -> None:
        give_up_s = time.monotonic() + _PATIENCE_S * SCALE
        while not holds():
            assert time.monotonic() < give_up_s, "it did not come about"
            self.turn()

    def forget(self, peer: Peer) -> None:
        """It is done with."""
        peer.close()
        self._peers.remove(peer)

    def close(self) -> None:
        for wire in self._wires:
            self.call(lambda wire=wire: wire.close(reset=True))  # type: ignore[misc]
        for peer in self._peers:
            peer.close()
        self.turn()
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class Asking:
    """One request of a client connection: on a new one, or on that of another request."""

    def __init__(self, on: Rig, method: bytes = b"GET", *, end: bool = True, after: Asking | None = None, **of: object):
        self.client: H1Client
        self.pool: Pool
        self.service: Peer
        if after is None:
            self.client, self.pool, self.service = on.client()
        else:
            self.client, self.pool, self.service = after.client, after.pool, after.service
        self.on = on
        self.answer = Answer()
        self.outgoing: H1Outgoing
        head = RequestHead(method, b"/x", b"a", Version.HTTP_1_1, **of)  # type: ignore[arg-type]

        def ask() -> None:
            self.outgoing = self.client.request(head, self.answer, end=end)

        on.call(ask)

    def complete(self) -> Answer:
        self.on.until(lambda: self.answer.complete or self.answer.lost)
        assert self.answer.complete, self.answer.lost
        return self.answer

    def lost(self) -> Answer:
        self.on.until(lambda: self.answer.complete or self.answer.lost)
        assert not self.answer.complete
        assert self.answer.lost is not None
        return self.answer


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    made = Rig()
    try:
        yield made
    finally:
        made.close()
