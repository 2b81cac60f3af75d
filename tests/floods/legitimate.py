"""Legitimate traffic in a process of its own, until its standard input ends; then its figures as JSON.

New connections and an old one exchange small messages at a steady rate, and one stream goes on all the time. Every byte
that comes back is compared with what was sent.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import ssl
import sys
import time
from dataclasses import dataclass, field

from tests.floods.aim import Aim, parser
from tests.support.eventually import SCALE

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


async def _small(aim: Aim, context: ssl.SSLContext, figures: Figures, *, kept: bool, stop: asyncio.Event) -> None:
    async def one(connection: Connection) -> None:
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(_DEADLINE_S):
                if kept:
                    await connection.exchange(_SMALL)
                else:
                    async with Connection(aim, context) as fresh:
                        await fresh.exchange(_SMALL)
        except (OSError, ValueError) as error:
            figures.lost.append(f"{'kept' if kept else 'new'}: {type(error).__name__} {error}")
        else:
            figures.latencies_s.append(time.monotonic() - began_s)

    connection = Connection(aim, context)
    if kept:
        await connection.__aenter__()
    while not stop.is_set():
        await one(connection)
        await asyncio.sleep(_REQUEST_EVERY_S)
    if kept:
        await connection.__aexit__()


async def _stream(aim: Aim, context: ssl.SSLContext, figures: Figures, stop: asyncio.Event) -> None:
    try:
        async with Connection(aim, context) as connection:
            while not stop.is_set():
                async with asyncio.timeout(_DEADLINE_S):
                    await connection.exchange(_LARGE)
                figures.streamed_bytes += 2 * _LARGE
                await asyncio.sleep(0.01)
    except (OSError, ValueError) as error:
        figures.lost.append(f"stream: {type(error).__name__} {error}")


async def _main(aim: Aim) -> None:
    context, figures, stop = aim.context(), Figures(), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(_small(aim, context, figures, kept=False, stop=stop))
        group.create_task(_small(aim, context, figures, kept=True, stop=stop))
        group.create_task(_stream(aim, context, figures, stop))
    sys.stdout.write(figures.as_json() + "\n")


if __name__ == "__main__":
    given = parser().parse_args()
    asyncio.run(_main(Aim(given.port, given.folder, given.domain)))
