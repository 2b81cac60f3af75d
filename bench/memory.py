"""What idle connections take."""

from __future__ import annotations

import asyncio

from bench import accounting
from bench.figures import Measure
from bench.gateways import Gateway
from bench.measures import IDLE, MEMORY, MEMORY_BASE
from bench.pace import Cost
from bench.world import Rounds, World, record, told

_WARM_UP_CONNECTIONS = 5
_SETTLE_S = 1.5
_SPARE_DESCRIPTORS = 500


def cost(rounds: int, peers: int) -> Cost:
    return Cost(0.0, sum(6.0 + count / 1_200 for count in IDLE) * (2 * rounds + peers))


async def measure(world: World) -> None:
    """:raises StartError: when connections cannot be had."""
    rounds: dict[str, Rounds] = {}
    descriptors = accounting.allow_descriptors(2 * max(IDLE) + _SPARE_DESCRIPTORS)
    for wanted in IDLE:
        # A connection takes two in the gateway.
        count = min(wanted, (descriptors - _SPARE_DESCRIPTORS) // 2)
        if count < wanted:
            world.findings.notes[MEMORY[wanted].key] = (
                f"{count:,} connections, not {wanted:,}: a process may open {descriptors:,} files on this machine."
            )
        for number in range(world.plan.memory_rounds):
            for gateway in (*world.both, *(world.peers if number == 0 else ())):
                # What a gateway has freed it uses again: only a fresh one shows what a connection takes.
                await gateway.stop()
                await gateway.start()
                await _round(world, gateway, MEMORY[wanted], count, rounds)
    world.findings.keep(rounds)


async def _round(world: World, gateway: Gateway, measure: Measure, count: int, rounds: dict[str, Rounds]) -> None:
    flags = world.mesh.aim(gateway.address("echo"), "echo", spread=gateway.linked).flags()
    async with world.generator.session("idle", *flags, f"-connections={_WARM_UP_CONNECTIONS}") as warm_up:
        await warm_up.event()
        await asyncio.sleep(_SETTLE_S)
        before = accounting.memory(gateway.processes())
        async with world.generator.session("idle", *flags, f"-connections={count}") as held:
            await held.event()
            await asyncio.sleep(_SETTLE_S)
            after = accounting.memory(gateway.processes())
    each = (after.pss - before.pss) / count
    record(rounds, measure, gateway.label, each)
    if measure is MEMORY[IDLE[0]]:
        record(rounds, MEMORY_BASE, gateway.label, before.pss)
    world.progress(f"{count:,} idle connections, {gateway.label}: {told(measure, each)} each")
