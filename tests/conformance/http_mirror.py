"""An external service that answers with the request that it got, byte by byte; or with whatever a case wants.

It speaks HTTP/1.1, and HTTP/2 to a client that begins with its preface, on the same port.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
_REST_OF_PREFACE = b"SM\r\n\r\n"


@dataclass(slots=True)
class Seen:
    """A request as it came in."""

    head: str
    """Request line and headers; of HTTP/2, a line for each header, the pseudo headers as well."""
    connection: int
    """Which one of the mirror's, from 1."""
    version: int
    body: bytes = b""
    """As on the wire: with the marks of chunks; of HTTP/2, the data alone."""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    """Of HTTP/2; those of chunks are in the body."""
    reset: bool = False
    """HTTP/2: the client took it back."""
    complete: bool = False

    @property
    def line(self) -> str:
        return self.head.split("\r\n", 1)[0]

    @property
    def path(self) -> str:
        """As it came, with the query."""
        return self.value(":path") if self.version == 2 else self.line.split(" ")[1]

    @property
    def method(self) -> str:
        return self.value(":method") if self.version == 2 else self.line.split(" ")[0]

    @property
    def headers(self) -> list[tuple[str, str]]:
        """In order, as written."""
        lines = self.head.split("\r\n")[0 if self.version == 2 else 1 :]
        return [_pair(line) for line in lines if line]

    @property
    def names(self) -> list[str]:
        return sorted(name for name, _ in self.headers)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str:
        """Of all of them, joined; empty without any."""
        return ", ".join(self.values(name))


def passed(seen: Seen, names: Iterable[str]) -> dict[str, str]:
    """The values of these headers as the external service got them; ``-`` for none."""
    return {name: " + ".join(seen.values(name)) or ("" if name in seen.names else "-") for name in names}


def _pair(line: str) -> tuple[str, str]:
    at = line.index(":", 1)
    return line[:at], line[at + 1 :].strip()


@dataclass(slots=True)
class Exchange:
    """One request of HTTP/1.1 for a script: its head is read, its body is not."""

    seen: Seen
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def read_body(self) -> None:
        """To its end, into ``seen``."""
        seen, reader = self.seen, self.reader
        if "chunked" in seen.value("transfer-encoding"):
            while True:
                line = await reader.readuntil(b"\r\n")
                seen.body += line
                size = int(line, 16)
                if not size:
                    break
                seen.body += await reader.readexactly(size + 2)
            while line != b"\r\n":
                line = await reader.readuntil(b"\r\n")
                seen.body += line
        elif length := seen.value("content-length"):
            seen.body = await reader.readexactly(int(length))
        seen.complete = True


Script = Callable[[Exchange], Awaitable[bool]]
"""Answers one request of HTTP/1.1; whether the connection goes on."""


class TwoExchange:
    """One request of HTTP/2 for a script, when it is complete (or as soon as its head is there)."""

    def __init__(self, core: h2.connection.H2Connection, seen: Seen, number: int, writer: asyncio.StreamWriter) -> None:
        self.core, self.seen, self.number, self.writer = core, seen, number, writer

    def respond(
        self, status: str, body: bytes = b"", headers: list[tuple[str, str]] | None = None, *, end: bool = True
    ) -> None:
        pairs = [(":status", status), *(headers or [])]
        self.core.send_headers(self.number, pairs, end_stream=end and not body)
        if body:
            self.core.send_data(self.number, body, end_stream=end)

    def trailers(self, *pairs: tuple[str, str]) -> None:
        self.core.send_headers(self.number, list(pairs), end_stream=True)

    def flush(self) -> None:
        self.writer.write(self.core.data_to_send())


TwoScript = Callable[[TwoExchange], None]


class Mirror:
    """For ``Stand.backend(mirror.serve)``. What it has seen, and what it answers."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.scripts: dict[str, Script] = {}
        """By path without query; a path that is not here is mirrored."""
        self.two_scripts: dict[str, TwoScript] = {}
        """When the request is complete."""
        self.early_two_scripts: dict[str, TwoScript] = {}
        """When its head is."""
        self.connections = 0
        self.first_bytes: list[bytes] = []
        """Of each connection, up to the end of its first head."""

    def of(self, path: str) -> list[Seen]:
        """What came for ``path``, without query."""
        return [one for one in self.seen if one.path.split("?")[0] == path]

    def last(self, path: str = "") -> Seen:
        """The last one; the last one for ``path``."""
        found = self.of(path) if path else self.seen
        assert found, f"nothing came for {path}"
        return found[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        first = await reader.readexactly(1)
        if not first.isalpha():
            return  # not HTTP: while a service is being linked, Envoy hands on what it does not know, TLS as it came
        head = first + await reader.readuntil(b"\r\n\r\n")
        self.first_bytes.append(head)
        if head == _PREFACE:
            await self._serve_two(reader, writer, number)
            return
        while await self._serve_one(Exchange(Seen(_head(head), number, 1), reader, writer)):
            head = await reader.readuntil(b"\r\n\r\n")

    async def _serve_one(self, exchange: Exchange) -> bool:
        seen = exchange.seen
        self.seen.append(seen)
        script = self.scripts.get(seen.path.split("?")[0])
        if script is not None:
            return await script(exchange)
        await exchange.read_body()
        return await reflect(exchange)

    # --- HTTP/2 ----------------------------------------------------------------------------------------------

    async def _serve_two(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False)
        core = h2.connection.H2Connection(config=config)
        core.initiate_connection()
        core.receive_data(_PREFACE + await reader.readexactly(len(_REST_OF_PREFACE)))
        writer.write(core.data_to_send())
        exchanges: dict[int, TwoExchange] = {}
        while data := await reader.read(65536):
            for event in core.receive_data(data):
                self._on_two(event, core, exchanges, number, writer)
            writer.write(core.data_to_send())
            await writer.drain()

    def _on_two(
        self,
        event: h2.events.Event,
        core: h2.connection.H2Connection,
        exchanges: dict[int, TwoExchange],
        connection: int,
        writer: asyncio.StreamWriter,
    ) -> None:
        if isinstance(event, h2.events.RequestReceived):
            assert event.stream_id is not None
            head = "\r\n".join(f"{_text(name)}: {_text(value)}" for name, value in event.headers or ())
            exchange = TwoExchange(core, Seen(head, connection, 2), event.stream_id, writer)
            exchanges[event.stream_id] = exchange
            self.seen.append(exchange.seen)
            if early := self.early_two_scripts.get(exchange.seen.path.split("?")[0]):
                early(exchange)
            return
        one = exchanges.get(getattr(event, "stream_id", None) or 0)
        if one is None:
            return
        if isinstance(event, h2.events.DataReceived):
            one.seen.body += event.data
            core.acknowledge_received_data(event.flow_controlled_length, one.number)
        elif isinstance(event, h2.events.TrailersReceived):
            one.seen.trailers = [(_text(name), _text(value)) for name, value in event.headers or ()]
        elif isinstance(event, h2.events.StreamReset):
            one.seen.reset = True
        elif isinstance(event, h2.events.StreamEnded):
            one.seen.complete = True
            path = one.seen.path.split("?")[0]
            if path not in self.early_two_scripts:
                self.two_scripts.get(path, reflect_two)(one)


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def _head(head: bytes) -> str:
    return head.decode("latin-1").removesuffix("\r\n\r\n")


async def reflect(exchange: Exchange) -> bool:
    """Answer with the head and the body of the request."""
    seen = exchange.seen
    body = seen.head.encode("latin-1") + b"\r\n\r\n" + seen.body
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
    await exchange.write(head + (b"" if seen.method == "HEAD" else body))
    return True


def reflect_two(exchange: TwoExchange) -> None:
    seen = exchange.seen
    body = (seen.head + "\r\n\r\n").encode("latin-1") + seen.body
    exchange.respond("200", b"" if seen.method == "HEAD" else body[:16_000], [("content-type", "text/plain")])


def says(data: bytes, *, then: str = "go on") -> Script:
    """Read the request, write ``data`` as it is, and ``go on``, ``close`` or ``reset``."""

    async def answer(exchange: Exchange) -> bool:
        await exchange.read_body()
        await exchange.write(data)
        if then == "reset":
            reset(exchange)
        return then == "go on"

    return answer


def reset(exchange: Exchange) -> None:
    """End the connection by a TCP reset."""
    connection: socket.socket = exchange.writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    exchange.writer.transport.abort()


async def silence(exchange: Exchange) -> bool:
    """Read the request and never answer, until the gateway ends the connection."""
    await exchange.read_body()
    await exchange.reader.read()
    return False
