"""New connections, one after the other, while something is broken."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from lab.actors import DATABASE, Actors


class Attempts:
    def __init__(self) -> None:
        self.took_s: list[float] = []
        """Of those that succeeded."""
        self.failed: list[float] = []
        """When those that did not have begun, by :func:`time.monotonic`."""

    async def go_on(self, actors: Actors) -> None:
        while True:
            await self.one(actors)

    async def one(self, actors: Actors) -> bool:
        since = time.monotonic()
        reached = await actors.application.reaches(DATABASE)
        if reached:
            self.took_s.append(time.monotonic() - since)
        else:
            self.failed.append(since)
        return reached

    @property
    def median_s(self) -> float:
        return sorted(self.took_s)[len(self.took_s) // 2]

    def __str__(self) -> str:
        return f"{len(self.took_s)} of {len(self.took_s) + len(self.failed)} new connections"


@contextlib.asynccontextmanager
async def attempting(actors: Actors) -> AsyncIterator[Attempts]:
    """All the time until the end; the last one is given up."""
    attempts = Attempts()
    task = asyncio.get_running_loop().create_task(attempts.go_on(actors))
    try:
        yield attempts
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.wait({task})
