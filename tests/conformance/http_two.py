"""A client of HTTP/2 over a connection of the mesh, by prior knowledge, and what it got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from tests.conformance.http_one import ENDED
from tests.conformance.stand import Stand
from tests.support.eventually import SCALE
from tests.support.mesh_client import MeshConnection, Refused

_DEADLINE_S = 30.0
Pairs = Sequence[tuple[str, str]]


@dataclass(slots=True)
class Stream:
    """One request and what came back."""

    number: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[str] = field(default_factory=list)
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    reset: str = ""
    """The code of a RST_STREAM, in words."""

    @property
    def status(self) -> str:
        return self.value(":status")

    def value(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key == name)

    @property
    def outcome(self) -> str:
        """The status; ``reset NAME`` for a stream that was reset, with the status before it if any."""
        return " ".join(part for part in (self.status, f"reset {self.reset}" if self.reset else "") if part) or "ended"


class TwoConnection:
    """Streams on one connection. Nothing runs in the background: what waits for a stream reads for all of them."""

    def __init__(self, connection: MeshConnection) -> None:
        self.mesh = connection
        self.streams: dict[int, Stream] = {}
        self.goaway: str = ""
        """The code of a GOAWAY, in words."""
        self._received = b""
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="utf-8",
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.core = h2.connection.H2Connection(config=config)

    async def start(self) -> None:
        self.core.initiate_connection()
        await self.flush()

    async def flush(self) -> None:
        if data := self.core.data_to_send():
            await self.mesh.send(data)

    async def open(self, headers: Pairs, *, end: bool = True) -> Stream:
        number = self.core.get_next_available_stream_id()
        self.streams[number] = stream = Stream(number)
        self.core.send_headers(number, headers, end_stream=end)
        await self.flush()
        return stream

    async def send(self, stream: Stream, data: bytes, *, end: bool = False) -> None:
        """As the peer's windows allow."""
        view = memoryview(data)
        while view:
            room = min(self.core.local_flow_control_window(stream.number), self.core.max_outbound_frame_size)
            if room == 0:
                await self.step()
                continue
            part, view = view[:room], view[room:]
            self.core.send_data(stream.number, bytes(part), end_stream=end and not view)
            await self.flush()

    async def trailers(self, stream: Stream, trailers: Pairs) -> None:
        self.core.send_headers(stream.number, trailers, end_stream=True)
        await self.flush()

    async def step(self) -> None:
        """Take what comes next. :raises Refused: at the end."""
        data = await self.mesh.receive()
        if not data:
            raise Refused("eof")
        self._received += data
        while frame := self._frame():
            for event in self.core.receive_data(frame):
                self._on(event)
            if self.goaway:
                # To the library a GOAWAY is the end, but its sender goes on with the streams that are open.
                self.core.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        await self.flush()

    def _frame(self) -> bytes:
        """The next whole one (RFC 9113 section 4.1); empty while it has not come."""
        size = 9 + int.from_bytes(self._received[:3])
        if len(self._received) < size:
            return b""
        frame, self._received = self._received[:size], self._received[size:]
        return frame

    async def until(self, condition: Callable[[], object]) -> None:
        """:raises Refused: when the connection ends before that."""
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            while not condition():
                await self.step()

    async def ask(self, headers: Pairs, body: bytes = b"", trailers: Pairs = ()) -> Stream:
        stream = await self.open(headers, end=not body and not trailers)
        if body:
            await self.send(stream, body, end=not trailers)
        if trailers:
            await self.trailers(stream, trailers)
        await self.until(lambda: stream.ended)
        return stream

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = _code(event.error_code)
        number = getattr(event, "stream_id", None)
        stream = self.streams.get(number) if number else None
        if stream is None:
            return
        if isinstance(event, h2.events.InformationalResponseReceived):
            stream.interim += [_text(value) for name, value in event.headers if _text(name) == ":status"]
        elif isinstance(event, h2.events.ResponseReceived):
            stream.headers = [(_text(name), _text(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            self.core.acknowledge_received_data(event.flow_controlled_length, stream.number)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = [(_text(name), _text(value)) for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = _code(event.error_code)
            stream.ended = True


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _code(number: int | h2.errors.ErrorCodes | None) -> str:
    try:
        return h2.errors.ErrorCodes(number or 0).name
    except ValueError:
        return str(number)


def headers(path: str = "/", *more: tuple[str, str], method: str = "GET", authority: str = "db.example") -> Pairs:
    """Of a request."""
    first = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]
    return [*first, *more]


def grpc(path: str = "/echo.Echo/Say", *more: tuple[str, str]) -> Pairs:
    """Of a call of gRPC."""
    return headers(path, ("content-type", "application/grpc"), ("te", "trailers"), *more, method="POST")


@asynccontextmanager
async def connected(
    stand: Stand, service: str = "db", source: str = "web", *, subset: str = ""
) -> AsyncIterator[TwoConnection]:
    """As a sidecar dials for HTTP/2."""
    async with stand.dial(source, service, subset=subset) as connection:
        two = TwoConnection(connection)
        await two.start()
        yield two


async def ask(
    stand: Stand,
    pairs: Pairs,
    body: bytes = b"",
    trailers: Pairs = (),
    *,
    service: str = "db",
    source: str = "web",
) -> Stream:
    """One request on a connection of its own."""
    async with connected(stand, service, source) as connection:
        return await connection.ask(pairs, body, trailers)


async def outcome(stand: Stand, pairs: Pairs, body: bytes = b"", *, service: str = "db", source: str = "web") -> str:
    """As :func:`ask`: the status, ``reset CODE``, or ``ended`` when the connection ends without an answer."""
    try:
        return (await ask(stand, pairs, body, service=service, source=source)).outcome
    except (Refused, OSError):
        return ENDED
