"""An external service that speaks HTTP/1.1 as its test says, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

_END = b"\r\n\r\n"


@dataclass
class Received:
    """One request, and the connection that it came on."""

    number: int
    """Of the connection."""
    method: str
    target: str
    headers: list[tuple[str, str]]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def value(self, name: str) -> str:
        (value,) = self.values(name)
        return value

    async def read_body(self) -> bytes:
        """All of it."""
        if self.values("transfer-encoding"):
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                self.body += (await self.reader.readexactly(size + 2))[:-2]
            while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                name, _, value = line.decode().partition(":")
                self.trailers.append((name.lower(), value.strip()))
        elif lengths := self.values("content-length"):
            self.body += await self.reader.readexactly(int(lengths[0]))
        return self.body

    async def answer(self, body: bytes = b"ok", *, status: str = "200 OK", headers: str = "") -> None:
        """``headers``: lines, each with its end."""
        self.writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body)
        await self.writer.drain()

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Answer = Callable[[Received], Awaitable[None]]


async def _ok(request: Received) -> None:
    await request.read_body()
    await request.answer()


class HTTPBackend:
    """Use as an asynchronous context manager."""

    def __init__(self, answer: Answer = _ok, *, tls: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self._tls = tls
        self.port = 0
        self.connections = 0
        self.requests: list[Received] = []
        self.open = 0
        """Connections at the moment."""
        self.lost = asyncio.Event()
        """A connection has ended."""
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> HTTPBackend:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(_END)
                    request = _parsed(head, number, reader, writer)
                    self.requests.append(request)
                    await self.answer(request)
        finally:
            self.open -= 1
            self.lost.set()
            self._writers.discard(writer)
            writer.close()


def _parsed(head: bytes, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Received:
    first, *lines = head.decode("latin-1")[: -len(_END)].split("\r\n")
    method, target, _ = first.split(" ")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    return Received(number, method, target, headers, reader, writer)
