"""Traffic of short connections through a sidecar, all the time: what a move between two gateways must not harm."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from tests.support.eventually import eventually

AT_ONCE = 6
EXCHANGES = 20
PAUSE_S = 0.02
DEADLINE_S = 10.0


class Traffic:
    """Callers of an echo at a loopback ``port``. Each opens a connection, exchanges, closes it, and begins anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False
        self.completed = 0
        self.lost: list[str] = []

    async def __aenter__(self) -> Self:
        """Begins once the way is open."""
        await eventually(self._is_open, what="the way through the sidecar is open")
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._calls()) for _ in range(AT_ONCE)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop = True
        await asyncio.wait(self._tasks)

    def check(self) -> None:
        """:raises AssertionError: when a connection was lost."""
        for task in self._tasks:
            task.result()
        assert self.lost == [], f"{len(self.lost)} of {self.completed + len(self.lost)} connections: {self.lost[:5]}"
        assert self.completed > AT_ONCE, "there was no traffic"

    async def _is_open(self) -> bool:
        try:
            await self._call()
        except (OSError, EOFError, TimeoutError):
            return False
        return True

    async def _calls(self) -> None:
        while not self._stop:
            try:
                await self._call()
            except (OSError, EOFError, TimeoutError) as error:
                self.lost.append(f"{type(error).__name__}: {error}")
            else:
                self.completed += 1

    async def _call(self) -> None:
        async with self._connected() as (reader, writer):
            for number in range(EXCHANGES):
                said = f"exchange {number:04}".encode()
                writer.write(said)
                await writer.drain()
                async with asyncio.timeout(DEADLINE_S):
                    assert await reader.readexactly(len(said)) == said
                await asyncio.sleep(PAUSE_S)

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            yield reader, writer
        finally:
            writer.close()
