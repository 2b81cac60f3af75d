"""One flood against a worker that serves legitimate traffic meanwhile: what is lost, and what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from proxy.messages import Counters, Limits
from tests.floods.aim import Aim
from tests.support.eventually import SCALE, eventually
from tests.support.worker import WorkerProcess

_ROOT = Path(__file__).parents[2]
_MOST_GROWTH_KIB = 64 * 1024
_MOST_PEAK_KIB = 160 * 1024
"""Beside what each open connection may cost: what slow receivers have not taken is limited to 64 MiB."""
_MOST_EACH_KIB = 40
_ATTACK_DEADLINE_S = 600.0


@dataclass(frozen=True, slots=True)
class Flood:
    name: str
    count: int
    full: int
    hold_s: float = 2.0
    reason: str = ""
    """A close reason in the access log: the attack was what it is meant to be."""
    at_once: bool = False
    """Each of them is open until all are."""
    lines: int = 15_000
    """Of the access log, at most."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Of floods: the modules of ``tests.floods`` that make them, and the traffic beside them."""

    attack: str
    legitimate: tuple[str, ...]
    bench: Callable[[Path, Limits], AbstractAsyncContextManager[Bench]]


class Bench:
    """A measured worker with its services, and the processes of its clients."""

    def __init__(self, worker: WorkerProcess, aim: Aim, inventory: Path) -> None:
        self.worker = worker
        self.aim = aim
        self._inventory = inventory

    async def held(self) -> dict[str, int]:
        """What the worker holds now."""
        assert self.worker.process is not None
        known = len(self._answers())
        self.worker.process.send_signal(signal.SIGUSR2)
        await eventually(lambda: len(self._answers()) > known, 30, what="the worker says what it holds")
        answer: dict[str, int] = json.loads(self._answers()[-1])
        process = Path(f"/proc/{self.worker.process.pid}")
        pages = int((process / "statm").read_text().split()[1])
        return answer | {
            "descriptors": len(list((process / "fd").iterdir())),
            "rss_kib": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        }

    def peak_kib(self) -> int:
        """The most memory that the worker ever had."""
        assert self.worker.process is not None
        status = Path(f"/proc/{self.worker.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    def most_open(self) -> int:
        """Connections at a time, as the worker's counters told."""
        return max(frame.open_connections for frame in self.worker.frames if isinstance(frame, Counters))

    def _answers(self) -> list[str]:
        return [line for line in self._inventory.read_text().splitlines(keepends=True) if line.endswith("\n")]

    @asynccontextmanager
    async def client(self, module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.floods.{module}", *self.aim.arguments(), *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=_ROOT,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def legitimate_figures(self, process: asyncio.subprocess.Process) -> dict[str, Any]:
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(120 * SCALE):
            output, _ = await process.communicate()
        assert output, "the legitimate traffic failed as a whole"
        answer: dict[str, Any] = json.loads(output)
        return answer

    async def warm_up(self, legitimate: tuple[str, ...]) -> None:
        """What the first connections leave behind for good is not of the flood."""
        async with self.client(*legitimate) as process:
            await asyncio.sleep(1.0)
            figures = await self.legitimate_figures(process)
            assert figures["lost"] == [], figures["lost"][:3]
            assert figures["done"] > 0
        await self.at_rest()

    async def at_rest(self) -> None:
        def nothing_open() -> bool:
            counters = self.worker.counters
            return counters is not None and (counters.open_connections, counters.pending_handshakes) == (0, 0)

        await eventually(nothing_open, 60, what="the worker has no connection left")


async def withstand(
    kind: Kind, flood: Flood, folder: Path, figures: list[dict[str, Any]], pytestconfig: pytest.Config
) -> None:
    """:raises AssertionError: when something is lost, or left behind."""
    full = pytestconfig.getoption("--full-floods")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the services are in this process
    possible = (hard - 200) // 2
    count = min(flood.full, possible) if full else flood.count
    # In the short run the deadline is short, too: what holds out for the whole of it is part of the flood.
    limits = Limits(service_connections=0) if full else Limits(handshake_timeout_s=2.0 * SCALE)
    async with kind.bench(folder, limits) as running:
        await running.warm_up(kind.legitimate)
        before = await running.held()
        began_s = time.monotonic()
        async with running.client(*kind.legitimate) as legitimate:
            hold_s = flood.hold_s * (4 if full else 1)
            async with running.client(kind.attack, flood.name, str(count), str(hold_s)) as attacker:
                async with asyncio.timeout(_ATTACK_DEADLINE_S):
                    assert await attacker.wait() == 0
            seconds = time.monotonic() - began_s
            served = await running.legitimate_figures(legitimate)
        await running.at_rest()

        async def as_before() -> dict[str, int] | None:
            now = await running.held()
            same = all(now[name] <= before[name] for name in before if name != "rss_kib")
            assert same, f"before {before}, now {now}"
            return now

        after = await eventually(as_before, 30, what="the worker holds what it held before")
        peak_kib, most_open = running.peak_kib(), running.most_open()
    figures.append(
        {
            "name": flood.name,
            "tried": count,
            "seconds": round(seconds, 2),
            "legitimate_requests": served["done"],
            "lost": len(served["lost"]),
            "p50_ms": served["p50_ms"],
            "p99_ms": served["p99_ms"],
            "fds_before": before["descriptors"],
            "fds_after": after["descriptors"],
            "rss_before_kib": before["rss_kib"],
            "rss_after_kib": after["rss_kib"],
            "rss_peak_kib": peak_kib,
            "most_open": most_open,
        }
    )
    reasons = Counter((record["reason"], record.get("detail")) for record in running.worker.records)
    lost = served["lost"]
    assert lost == [], f"{lost[:5]}; the worker ended connections by {reasons.most_common()}"
    assert served["done"] > 0
    assert served["streamed_bytes"] > 0
    assert after["rss_kib"] - before["rss_kib"] < _MOST_GROWTH_KIB
    assert peak_kib - before["rss_kib"] < _MOST_PEAK_KIB + _MOST_EACH_KIB * most_open
    assert not flood.at_once or most_open >= count
    assert (folder / "worker.log").stat().st_size < 20_000, "a flood must not flood the log"
    assert len(running.worker.records) < flood.lines
    assert not flood.reason or any(reason == flood.reason for reason, _ in reasons), reasons.most_common(9)
