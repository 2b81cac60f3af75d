"""The physical limits beside the figures: what the kernel and the library need for the same bytes and handshakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench import accounting
from bench.figures import per_cpu_second
from bench.generator import Aim
from bench.measures import LIMIT_COPY, LIMITS
from bench.pace import Cost, Pace
from bench.world import Rounds, World, record
from plugin.dev.processes import Child, run, wait_until

HERE = "this machine"
"""The label of limits."""
_PROJECT = Path(__file__).resolve().parent.parent
_START_S = 20.0


def cost() -> Cost:
    return Cost(1.0, 5 * 3.0)


async def measure(world: World, pace: Pace) -> None:
    """:raises StartError: when a round fails."""
    rounds: dict[str, Rounds] = {}
    for number in range(pace.rounds):
        record(rounds, LIMIT_COPY, HERE, await _copied_per_cpu_s(world, number, pace.round_s))
        rates = json.loads(await run([*_placed(world), "crypto"], folder=_PROJECT))
        for one in LIMITS:
            if one.key in rates:
                record(rounds, one, HERE, rates[one.key])
    world.findings.keep(rounds)
    world.progress("limits of this machine")


async def _copied_per_cpu_s(world: World, number: int, duration_s: float) -> float:
    """Bytes that one process carries from socket to socket for each of its CPU seconds."""
    log = world.mesh.folder / f"relay-{number}.log"
    child = Child("relay", [*_placed(world), "relay", str(world.mesh.ports["source"])], log, folder=_PROJECT)
    try:
        await wait_until(lambda: log.read_text().endswith("\n"), _START_S, what="the relay listens")
        result, used_s = await world.generator.load(
            "bulk-down",
            Aim(address=f"127.0.0.1:{int(log.read_text())}", secure=None),
            duration_s=duration_s,
            clock=lambda: accounting.cpu_s([child.pid]),
        )
    finally:
        await child.terminate()
    return per_cpu_second(result.bytes, used_s)


def _placed(world: World) -> list[str]:
    """The program, where the gateways under test run."""
    processors = ",".join(map(str, sorted(world.placement.gateway)))
    return ["taskset", "--cpu-list", processors, sys.executable, "-m", "bench.bare"]
