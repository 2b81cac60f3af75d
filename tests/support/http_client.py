"""A client of the mesh that speaks HTTP/1.1 over one connection, byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.eventually import SCALE

_DEADLINE_S = 20.0


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def value(self, name: str) -> str:
        (value,) = self.values(name)
        return value


class HTTPClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            self.writer.write(data)
            await self.writer.drain()

    async def request(self, method: str = "GET", target: str = "/", headers: str = "", body: bytes = b"") -> None:
        """``headers``: lines, each with its end."""
        length = f"content-length: {len(body)}\r\n" if body else ""
        await self.send(f"{method} {target} HTTP/1.1\r\nhost: service\r\n{length}{headers}\r\n".encode() + body)

    async def head(self) -> Response:
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")[:-4].split("\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        return Response(int(first.split(" ")[1]), headers)

    async def response(self, *, bodiless: bool = False) -> Response:
        """The next one, whole."""
        response = await self.head()
        if bodiless:
            return response
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            if response.values("transfer-encoding"):
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    response.body += (await self.reader.readexactly(size + 2))[:-2]
                while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                    name, _, value = line.decode().partition(":")
                    response.trailers.append((name.lower(), value.strip()))
            elif lengths := response.values("content-length"):
                response.body = await self.reader.readexactly(int(lengths[0]))
        return response

    async def get(self, target: str = "/", headers: str = "") -> Response:
        await self.request("GET", target, headers)
        return await self.response()

    async def ended(self) -> str:
        """Wait for the gateway to end it: ``end`` or ``reset``. What comes before that is dropped."""
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            try:
                while await self.reader.read(65_536):
                    pass
            except (ConnectionError, ssl.SSLError):
                return "reset"
        return "end"


@asynccontextmanager
async def http_client(port: int, context: ssl.SSLContext, server_name: str) -> AsyncIterator[HTTPClient]:
    async with asyncio.timeout(_DEADLINE_S * SCALE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=server_name)
    try:
        yield HTTPClient(reader, writer)
    finally:
        writer.transport.abort()
