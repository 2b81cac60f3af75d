"""What must hold at every second: the admin API answers, descriptors and memory stay where they were."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from plugin.errors import StartError
from soak.world import World

EVERY_S = 1.0
SILENT_S = 30.0
"""For so long the admin API may not answer while the control process is there."""
SPARE_DESCRIPTORS = 100
"""Above those of the connections: listening sockets, connections that end, the log."""
GROWTH_KIB = 24 * 1024
"""Of all processes of the gateway together, from the first part of the run after its warm-up to the last part."""
WARM_UP = 0.3
"""The part of the run after which memory is looked at."""
_LEFT_ALONE = 6
"""Samples in a row that have to be too high: a burst comes and goes between two counts."""


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    resident_kib: int
    descriptors: int
    connections: int


@dataclass(slots=True)
class Watch:
    """Samples the gateway once a second until cancelled."""

    world: World
    samples: list[Sample] = field(default_factory=list)
    leaf_renewals: int = 0
    _silent_since_s: float = 0.0
    _too_many: int = 0
    _expiries: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(EVERY_S)

    async def look(self) -> None:
        world = self.world
        try:
            status = await world.gateway.status()
        except StartError as error:
            self._unanswered(str(error))
            return
        self._silent_since_s = 0.0
        pids = [one["pid"] for one in status["workers"]]
        connections = sum(one["open_connections"] for one in status["workers"])
        held = sum(map(descriptors, pids))
        memory = sum(map(resident_kib, (status["pid"], *pids)))
        if len(pids) == world.gateway.workers:
            self.samples.append(Sample(time.monotonic(), memory, held, connections))
            self._count(held, connections)
        for service in status["services"]:
            self._expires(service["name"], service["leaf_expires_at_s"])

    def _unanswered(self, why: str) -> None:
        if self.world.control_away:
            self._silent_since_s = 0.0
            return
        self._silent_since_s = self._silent_since_s or time.monotonic()
        if time.monotonic() - self._silent_since_s > SILENT_S:
            self.world.ledger.violated(f"the admin API has not answered for {SILENT_S:g} s: {why}")
            self._silent_since_s = 0.0

    def _count(self, held: int, connections: int) -> None:
        """Each connection has two; workers count once a second, we when it suits us."""
        surplus = held - 2 * connections
        self._too_many = self._too_many + 1 if surplus > SPARE_DESCRIPTORS else 0
        if self._too_many == _LEFT_ALONE:
            self.world.ledger.violated(f"{held} descriptors for {connections} connections: some leak")

    def _expires(self, service: str, at_s: float) -> None:
        self.leaf_renewals += bool(at_s > self._expiries.get(service, at_s))
        self._expiries[service] = at_s

    def growth_kib(self) -> tuple[int, int]:
        """Memory after the warm-up and at the end: medians of a third of the samples each."""
        counted = [one.resident_kib for one in self.samples[int(len(self.samples) * WARM_UP) :]]
        if len(counted) < 3:
            return 0, 0
        third = len(counted) // 3
        return int(statistics.median(counted[:third])), int(statistics.median(counted[-third:]))

    def judge_memory(self) -> None:
        before, after = self.growth_kib()
        if after - before > GROWTH_KIB:
            self.world.ledger.violated(f"memory grew from {before} to {after} KiB")


def resident_kib(pid: int) -> int:
    """0 when it has ended."""
    with contextlib.suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") // 1024
    return 0


def descriptors(pid: int) -> int:
    """0 when it has ended."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0
