"""Clients and services that speak HTTP/2 (the library ``h2``) over asyncio's streams."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    InformationalResponseReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from tests.support.eventually import SCALE

Headers = list[tuple[str, str]]
_DEADLINE_S = 20.0
_PREFACE_SIZE = 24
_GOAWAY = 7
LOST = -1
"""In the place of the code of a reset."""


def _texts(headers: Iterable[tuple[Any, Any]] | None) -> Headers:
    return [(str(name), str(value)) for name, value in headers or ()]


class H2Exchange:
    """One stream, of either side."""

    def __init__(self, connection: H2Side, number: int) -> None:
        self.number = number
        self.connection = connection
        self.headers: Headers = []
        """Of the request, or of the response."""
        self.informed: list[Headers] = []
        self.body = bytearray()
        self.trailers: Headers = []
        self.ended = False
        self.reset: int | None = None
        self._changed = asyncio.Event()

    def value(self, name: str) -> str:
        (value,) = [value for key, value in self.headers if key == name]
        return value

    def on_event(self, event: Event) -> None:
        if isinstance(event, RequestReceived | ResponseReceived):
            self.headers = _texts(event.headers)
        elif isinstance(event, InformationalResponseReceived):
            self.informed.append(_texts(event.headers))
        elif isinstance(event, DataReceived):
            self.body += event.data
        elif isinstance(event, TrailersReceived):
            self.trailers = _texts(event.headers)
        elif isinstance(event, StreamEnded):
            self.ended = True
        elif isinstance(event, StreamReset):
            self.reset = int(event.error_code)
        self._changed.set()

    def lose(self) -> None:
        """With its connection."""
        if not self.ended and self.reset is None:
            self.reset = LOST
        self._changed.set()

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            while not holds():
                await self._changed.wait()
                self._changed.clear()

    async def whole(self) -> H2Exchange:
        """When the other side has ended or reset it."""
        await self.until(lambda: self.ended or self.reset is not None)
        return self

    async def head(self) -> H2Exchange:
        await self.until(lambda: self.headers)
        return self

    def start(self, headers: Headers, *, end: bool = False) -> None:
        self.connection.protocol.send_headers(self.number, headers, end_stream=end)
        self.connection.flush()

    def send(self, data: bytes, *, end: bool = False) -> None:
        """Within what the windows allow."""
        self.connection.protocol.send_data(self.number, data, end_stream=end)
        self.connection.flush()

    def finish(self, trailers: Headers) -> None:
        self.connection.protocol.send_headers(self.number, trailers, end_stream=True)
        self.connection.flush()

    def cancel(self) -> None:
        self.connection.protocol.reset_stream(self.number, 8)
        self.connection.flush()


class H2Side:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, client: bool) -> None:
        self.reader = reader
        self.writer = writer
        self._client = client
        self.protocol = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self.exchanges: dict[int, H2Exchange] = {}
        self.goaway = asyncio.Event()
        self.ended = asyncio.Event()
        self.on_request: Callable[[H2Exchange], None] = lambda _: None
        self.protocol.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.protocol.data_to_send())

    def request(
        self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), *, end: bool = True
    ) -> H2Exchange:
        number = self.protocol.get_next_available_stream_id()
        exchange = self.exchanges[number] = H2Exchange(self, number)
        fixed = [(":method", method), (":scheme", "https"), (":authority", "service"), (":path", path)]
        exchange.start([*fixed, *headers], end=end)
        return exchange

    async def run(self) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError, ProtocolError, asyncio.IncompleteReadError):
            if not self._client:
                self.protocol.receive_data(await self.reader.readexactly(_PREFACE_SIZE))
            while True:
                header = await self.reader.readexactly(9)
                frame = header + await self.reader.readexactly(int.from_bytes(header[:3], "big"))
                if header[3] == _GOAWAY:
                    self.goaway.set()  # the library would take nothing more
                    continue
                for event in self.protocol.receive_data(frame):
                    self._on_event(event)
                self.flush()
        for exchange in self.exchanges.values():
            exchange.lose()
        self.ended.set()

    def _on_event(self, event: Event) -> None:
        stream = getattr(event, "stream_id", None)
        if not stream:
            return
        if isinstance(event, RequestReceived):
            self.exchanges[stream] = H2Exchange(self, stream)
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            self.protocol.acknowledge_received_data(event.flow_controlled_length, stream)
        if (exchange := self.exchanges.get(stream)) is not None:
            exchange.on_event(event)
            if isinstance(event, RequestReceived):
                self.on_request(exchange)


@asynccontextmanager
async def http2_client(
    port: int, context: ssl.SSLContext, server_name: str, *, alpn: bool = False
) -> AsyncIterator[H2Side]:
    """By prior knowledge, or offering ``h2``."""
    if alpn:
        context.set_alpn_protocols(["h2"])
    async with asyncio.timeout(_DEADLINE_S * SCALE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_name)
    side = H2Side(reader, writer, client=True)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(side.run())
        try:
            yield side
        finally:
            writer.transport.abort()
            running.cancel()


class HTTP2Backend:
    """An external service; ``answer`` is a coroutine for each request. Use as an asynchronous context manager."""

    def __init__(self, answer: Callable[[H2Exchange], Awaitable[None]], *, tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self.sides: list[H2Side] = []
        self.requests: list[H2Exchange] = []
        self.port = 0

    async def __aenter__(self) -> HTTP2Backend:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for side in self.sides:
            side.writer.transport.abort()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        side = H2Side(reader, writer, client=False)
        self.sides.append(side)
        async with asyncio.TaskGroup() as group:

            def begin(exchange: H2Exchange) -> None:
                self.requests.append(exchange)
                task = group.create_task(self._answered(exchange))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

            side.on_request = begin
            await side.run()

    async def _answered(self, exchange: H2Exchange) -> None:
        with contextlib.suppress(ProtocolError):
            await self._answer(exchange)
