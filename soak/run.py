"""One soak from its seed: load on, faults one after the other by chance, invariants watched, figures in the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plugin.errors import GatewayError
from plugin.process.tasks import spawn
from soak.chaos import FAULTS
from soak.figures import Figures
from soak.invariants import Watch
from soak.ledger import Ledger
from soak.traffic import Traffic
from soak.world import World, running_world

EFFECT_S = 30.0
"""From a change in Consul to its effect in every worker, at most; generous, for machines that do other things too."""
_SETTLING_S = 90.0
_PAUSE_S = 1.5
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seed: int
    seconds: float
    pumps: int = 12
    idle: int = 150


async def soak(plan: Plan, folder: Path, say: Callable[[str], None]) -> tuple[Figures, Ledger]:
    """:raises GatewayError: when the stage cannot be set up. What goes wrong later is in the ledger."""
    ledger = Ledger()
    async with running_world(folder, ledger) as world:
        traffic, watch = Traffic(world, plan.seed), Watch(world)
        loads = [spawn(one, name="load") for one in traffic.all(pumps=plan.pumps, idle=plan.idle)]
        helpers = [spawn(watch.run(), name="watch"), spawn(_chaos(plan, traffic, say), name="chaos")]
        try:
            await _until_over(plan, ledger, helpers, loads)
            await _wind_down(world, traffic, helpers, loads)
            watch.judge_memory()
        finally:
            for task in (*helpers, *loads):
                task.cancel()
            await asyncio.gather(*helpers, *loads, return_exceptions=True)
        return Figures.of(plan.seed, plan.seconds, plan.pumps, plan.idle, ledger, watch), ledger


async def _until_over(
    plan: Plan, ledger: Ledger, helpers: list[asyncio.Task[None]], loads: list[asyncio.Task[None]]
) -> None:
    """Until the time is over or an invariant is broken. An error of the soak itself is raised."""
    over_s = time.monotonic() + plan.seconds
    while time.monotonic() < over_s and not ledger.violations:
        await asyncio.sleep(_LOOK_S)
        for task in (*helpers, *loads):
            if task.done():
                await task


async def _wind_down(
    world: World, traffic: Traffic, helpers: list[asyncio.Task[None]], loads: list[asyncio.Task[None]]
) -> None:
    """The last fault comes to its end, then the connections do, by half closes; nothing is left then."""
    _, chaos = helpers
    chaos_ended, _ = await asyncio.wait([chaos], timeout=0 if world.ledger.violations else _SETTLING_S)
    if chaos_ended:
        await chaos
    traffic.stop()
    if world.ledger.violations:
        return
    _, left = await asyncio.wait(loads, timeout=_SETTLING_S)
    if left:
        world.ledger.violated(f"{len(left)} clients do not come to their end")


async def _chaos(plan: Plan, traffic: Traffic, say: Callable[[str], None]) -> None:
    """Each kind once in a while: a shuffled pack, then another one."""
    chance = random.Random(plan.seed)
    ledger = traffic.world.ledger
    over_s = time.monotonic() + plan.seconds
    while True:
        pack = list(FAULTS)
        chance.shuffle(pack)
        for name in pack:
            await asyncio.sleep(_PAUSE_S * chance.random())
            if time.monotonic() >= over_s or ledger.violations:
                return
            say(name)
            ledger.event(name)
            ledger.faults[name] += 1
            if not await _survived(FAULTS[name](traffic, chance), name, ledger):
                return
            if ledger.effects_s and ledger.effects_s[-1] > EFFECT_S:
                ledger.violated(f"a change took {ledger.effects_s[-1]:.1f} s to take effect")


async def _survived(fault: Coroutine[Any, Any, None], name: str, ledger: Ledger) -> bool:
    try:
        await fault
    except (GatewayError, TimeoutError) as error:
        ledger.violated(f"after `{name}` the world is not whole again: {error}")
        return False
    return True
