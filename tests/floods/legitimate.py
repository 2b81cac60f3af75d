"""Legitimate traffic in a process of its own, until its standard input ends; then its figures as JSON.

With ``--http`` it is requests with bodies, of HTTP/1.1 and on a further kept connection of HTTP/2.

New connections and an old one exchange small messages at a steady rate, and one stream goes on all the time. Every byte
that comes back is compared with what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import ssl
import sys
import time
from dataclasses import dataclass, field

from tests.floods.aim import Aim, parser
from tests.support.eventually import SCALE
from tests.support.http2_async import http2_client

_REQUEST_EVERY_S = 0.05
_DEADLINE_S = 20.0 * SCALE
_SMALL, _LARGE = 1_000, 256_000


@dataclass(slots=True)
class Figures:
    latencies_s: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    streamed_bytes: int = 0

    def as_json(self) -> str:
        ordered = sorted(self.latencies_s) or [0.0]
        at = {name: ordered[int((len(ordered) - 1) * part)] for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99))}
        return json.dumps(
            {name: round(value * 1_000, 2) for name, value in at.items()}
            | {"done": len(self.latencies_s), "lost": self.lost, "streamed_bytes": self.streamed_bytes}
        )


class Connection:
    def __init__(self, aim: Aim, context: ssl.SSLContext) -> None:
        self._aim, self._context = aim, context

    async def __aenter__(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._aim.port, ssl=self._context, server_hostname=self._aim.name()
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def exchange(self, size: int) -> None:
        """Send random bytes to an echo service. :raises ValueError: when others come back."""
        data = os.urandom(size)
        self._writer.write(data)
        back = hashlib.sha256()
        left = size
        while left:
            part = await self._reader.read(min(left, 65_536))
            if not part:
                raise ValueError(f"ended {left} bytes early")
            back.update(part)
            left -= len(part)
        if back.digest() != hashlib.sha256(data).digest():
            raise ValueError("other bytes came back")


class Requests(Connection):
    """To a service of HTTP/1.1 that answers with the body that it got."""

    async def exchange(self, size: int) -> None:
        data = os.urandom(size)
        self._writer.write(b"POST /echo HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size + data)
        head = await self._reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or b"\r\ncontent-length: %d\r\n" % size not in head.lower():
            raise ValueError(f"the answer is {head!r}")
        if await self._reader.readexactly(size) != data:
            raise ValueError("other bytes came back")


class Streams(Connection):
    """The same over HTTP/2."""

    async def __aenter__(self) -> Streams:
        self._stack = contextlib.AsyncExitStack()
        self._side = await self._stack.enter_async_context(
            http2_client(self._aim.port, self._context, self._aim.name())
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def exchange(self, size: int) -> None:
        data = os.urandom(size)
        stream = self._side.request("POST", "/echo", end=False)
        stream.send(data, end=True)
        await stream.whole()
        if stream.reset is not None or stream.value(":status") != "200" or stream.body != data:
            raise ValueError(f"the stream was reset with {stream.reset}, or the answer is another")
        del self._side.exchanges[stream.number]


async def _small(
    aim: Aim, kind: type[Connection], figures: Figures, stop: asyncio.Event, *, kept: bool = False
) -> None:
    context = aim.context()
    open_one: Connection | None = None

    async def one() -> None:
        nonlocal open_one
        if not kept:
            async with kind(aim, context) as fresh:
                await fresh.exchange(_SMALL)
            return
        if open_one is None:
            opening = kind(aim, context)
            await opening.__aenter__()
            open_one = opening
        await open_one.exchange(_SMALL)

    async def leave() -> None:
        nonlocal open_one
        if open_one is not None:
            await open_one.__aexit__()
            open_one = None

    while not stop.is_set():
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_DEADLINE_S):
                await one()
        except (OSError, ValueError, EOFError) as error:
            figures.lost.append(f"{'kept' if kept else 'new'}: {type(error).__name__} {error}")
            # What still comes on it belongs to what was lost: it would make every further one a loss.
            await leave()
        else:
            figures.latencies_s.append(time.monotonic() - began_s)
        await asyncio.sleep(_REQUEST_EVERY_S)
    await leave()


async def _stream(aim: Aim, kind: type[Connection], figures: Figures, stop: asyncio.Event) -> None:
    try:
        async with kind(aim, aim.context()) as connection:
            while not stop.is_set():
                async with asyncio.timeout(_DEADLINE_S):
                    await connection.exchange(_LARGE)
                figures.streamed_bytes += 2 * _LARGE
                await asyncio.sleep(0.01)
    except (OSError, ValueError, EOFError) as error:
        figures.lost.append(f"stream: {type(error).__name__} {error}")


async def _main(aim: Aim, *, http: bool) -> None:
    figures, stop = Figures(), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    kind = Requests if http else Connection
    async with asyncio.TaskGroup() as group:
        group.create_task(_small(aim, kind, figures, stop))
        group.create_task(_small(aim, kind, figures, stop, kept=True))
        group.create_task(_stream(aim, kind, figures, stop))
        if http:
            group.create_task(_small(aim, Streams, figures, stop, kept=True))
    sys.stdout.write(figures.as_json() + "\n")


if __name__ == "__main__":
    arguments = parser()
    arguments.add_argument("--http", action="store_true")
    given = arguments.parse_args()
    asyncio.run(_main(Aim(given.port, given.folder, given.domain), http=given.http))
