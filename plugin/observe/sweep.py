"""Reads what is due for many services, a few at a time, with a rest after each round.

Knows neither what is read nor where it is kept; the reader whose sweep it is says what is due.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from plugin.consul.client import ConsulClient
from plugin.consul.watch import Backoff
from plugin.errors import GatewayError
from proxy.model import ServiceName

SWEEP_PAUSE_S = 1.0
SWEEP_REST = 3.0
"""Times as long as a sweep took: in a busy datacenter sweeps take a quarter of the time, not all of it."""


class Sweep:
    """For one event loop."""

    def __init__(
        self,
        client: ConsulClient,
        what: str,
        read: Callable[[ServiceName], Awaitable[GatewayError | None]],
        *,
        at_a_time: int,
        pause_s: float | None = None,
        rest: float | None = None,
    ) -> None:
        """``read`` reads one service and returns the problem after which the next round has to wait longer.
        ``pause_s`` and ``rest`` take the place of ``SWEEP_PAUSE_S`` and ``SWEEP_REST``."""
        self._pause_s = pause_s
        self._rest = rest
        self._client = client
        self._what = what
        self._read = read
        self._due: set[ServiceName] = set()
        self._reading = False
        self._wake = asyncio.Event()
        self._backoff = Backoff()
        self._requests = asyncio.Semaphore(at_a_time)

    def ask(self, names: Iterable[ServiceName]) -> None:
        """Read these soon."""
        self._due.update(names)
        self._wake.set()

    def again(self, name: ServiceName) -> None:
        """Read it in the next round, whenever that is: its read has failed."""
        self._due.add(name)

    def discard(self, name: ServiceName) -> None:
        self._due.discard(name)

    @property
    def idle(self) -> bool:
        """Nothing is due, and nothing is being read."""
        return not self._due and not self._reading

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            began_s = time.monotonic()
            due = sorted(self._due)
            self._due.clear()
            self._reading = True
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(self._limited(name), name=f"{self._what} of {name}") for name in due]
            self._reading = False
            problems = [problem for read in reads if (problem := read.result()) is not None]
            if problems:
                self._wake.set()
                await self._client.presence.pause(self._backoff.failed(problems[0]))
            else:
                self._backoff.succeeded()
                pause_s = SWEEP_PAUSE_S if self._pause_s is None else self._pause_s
                rest = SWEEP_REST if self._rest is None else self._rest
                await asyncio.sleep(max(pause_s, rest * (time.monotonic() - began_s)))

    async def _limited(self, name: ServiceName) -> GatewayError | None:
        async with self._requests:
            return await self._read(name)
