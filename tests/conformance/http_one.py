"""A client of HTTP/1.1 that sends the bytes it is given and shows what it gets: nothing is added, mended or hidden."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.conformance.stand import Stand
from tests.support.eventually import SCALE
from tests.support.mesh_client import MeshConnection, Refused

_DEADLINE_S = 30.0
_MOMENT_S = 0.3
_BODILESS = frozenset({204, 304})

ENDED = "ended"
"""However the gateway ended the connection."""


@dataclass(slots=True)
class Answer:
    """A response as it came."""

    line: str
    """``HTTP/1.1 200 OK``."""
    headers: list[tuple[str, str]]
    """As written, one for each line."""
    body: bytes = b""
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[str] = field(default_factory=list)
    """The status lines before it (``100 Continue``)."""
    complete: bool = True
    """``False``: the connection ended before the body did."""

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    def values(self, name: str) -> list[str]:
        """Of the headers of that name, whatever its case."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def value(self, name: str) -> str:
        """Of all of them, joined; empty without any."""
        return ", ".join(self.values(name))

    @property
    def names(self) -> list[str]:
        """Of the headers, as written, in the order of the alphabet."""
        return sorted(key for key, _ in self.headers)

    @property
    def text(self) -> str:
        return self.body.decode("latin-1")


class OneConnection:
    """Requests on one connection, one after the other or all at once."""

    def __init__(self, connection: MeshConnection) -> None:
        self.mesh = connection

    async def send(self, data: bytes) -> None:
        await self.mesh.send(data)

    async def ask(self, request: bytes) -> Answer:
        """Send ``request``, whole, and receive its answer. :raises Refused: when there is none."""
        await self.send(request)
        return await self.receive(head_only=request.startswith(b"HEAD "))

    async def receive(self, *, head_only: bool = False) -> Answer:
        """The next final answer. ``head_only``: to a HEAD."""
        interim: list[str] = []
        async with asyncio.timeout(_DEADLINE_S * SCALE):
            while True:
                answer = parse_head(await self._head())
                if answer.status >= 200 or answer.status == 101:
                    break
                interim.append(answer.line)
            answer.interim = interim
            if not head_only and answer.status not in _BODILESS and answer.status != 101:
                try:
                    await self._receive_body(answer)
                except Refused:
                    answer.complete = False
        return answer

    async def _head(self) -> bytes:
        """Lines up to the empty one, however long all of them are."""
        lines: list[bytes] = []
        while (line := await self.until(b"\r\n")) != b"\r\n" or not lines:
            lines.append(line)
        return b"".join([*lines, b"\r\n"])

    async def until(self, end: bytes) -> bytes:
        try:
            return await self.mesh.reader.readuntil(end)
        except asyncio.IncompleteReadError as error:
            raise Refused("eof" if not error.partial else f"eof after {error.partial!r}") from error
        except OSError as error:
            raise Refused("reset") from error

    async def exactly(self, size: int) -> bytes:
        return await self.mesh.receive_exactly(size)

    async def _receive_body(self, answer: Answer) -> None:
        """Into ``answer``, as far as it comes."""
        if answer.value("transfer-encoding").lower() == "chunked":
            while size := int((await self.until(b"\r\n")).split(b";")[0], 16):
                await self._receive_part(answer, size)
                await self.until(b"\r\n")
            while (line := await self.until(b"\r\n")) != b"\r\n":
                answer.trailers.append(_header(line.decode("latin-1").rstrip("\r\n")))
        elif length := answer.value("content-length"):
            await self._receive_part(answer, int(length))
        else:
            while data := await self.mesh.receive():
                answer.body += data

    async def _receive_part(self, answer: Answer, size: int) -> None:
        while size:
            data = await self.mesh.receive(min(size, 65536))
            if not data:
                raise Refused("eof")
            answer.body += data
            size -= len(data)

    async def is_open(self, for_s: float = _MOMENT_S) -> bool:
        """Whether the gateway leaves it open for so long now, without another word."""
        try:
            async with asyncio.timeout(for_s):
                data = await self.mesh.reader.read(65536)
        except TimeoutError:
            return True
        except OSError:
            return False
        assert not data, f"not expected any more: {data[:200]!r}"
        return False

    async def rest(self) -> bytes:
        """All that comes until the end."""
        parts = []
        try:
            while data := await self.mesh.receive():
                parts.append(data)
        except Refused:
            pass
        return b"".join(parts)


def parse_head(head: bytes) -> Answer:
    line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    return Answer(line, [_header(one) for one in lines])


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name, value.strip()


def request(line: str = "GET / HTTP/1.1", *headers: str, body: bytes = b"", host: str = "db.example") -> bytes:
    """A request as bytes. ``host`` may be empty for none; a body gets its Content-Length."""
    lines = [line]
    if host:
        lines.append(f"Host: {host}")
    lines += headers
    if body and not any(one.lower().startswith("transfer-encoding:") for one in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@asynccontextmanager
async def connected(
    stand: Stand, service: str = "db", source: str = "web", *, subset: str = "", address: str = ""
) -> AsyncIterator[OneConnection]:
    """As a sidecar dials for HTTP/1.1; ``address`` is the client's (any of 127.0.0.0/8)."""
    name, client = await stand.server_name(service, subset), await stand.client(source)
    opened = await client.connect(stand.gateway.address, stand.gateway.port, name, local_address=address)
    async with opened as connection:
        yield OneConnection(connection)


async def ask(stand: Stand, data: bytes, service: str = "db", source: str = "web", **dial: str) -> Answer:
    """One request on a connection of its own. :raises Refused: when it ends without an answer."""
    async with connected(stand, service, source, **dial) as connection:
        return await connection.ask(data)


async def said(stand: Stand, data: bytes, service: str = "db", source: str = "web", **dial: str) -> str:
    """The status of :func:`ask`, as a word: ``200``, or ``ended`` when there is none."""
    try:
        return str((await ask(stand, data, service, source, **dial)).status)
    except (Refused, OSError):
        return ENDED
