"""What a second worker brings."""

from __future__ import annotations

import os

from bench import accounting
from bench.figures import per_cpu_second, speed_of_two
from bench.gateways import EnvoyGateway, Gateway, OurGateway
from bench.measures import TWO_WORKERS
from bench.pace import Cost, Pace
from bench.world import Rounds, World, record, told

_LOADS = {"echo": ("echo", "echo", 256), "bulk": ("bulk-down", "source", 16)}
"""Command, behaviour and connections of each measure."""


def cost() -> Cost:
    return Cost(4.0 * len(_LOADS), 15.0)


async def measure(world: World, pace: Pace) -> None:
    """:raises StartError: when a gateway with two workers does not start, or a round fails."""
    processors = _processors()
    rounds: dict[str, Rounds] = {}
    shares: dict[str, list[float]] = {}
    kinds: tuple[tuple[Gateway, Gateway], ...] = (
        (world.envoy, EnvoyGateway(world.mesh.agent, "envoy-two", processors, workers=2)),
        (world.ours, OurGateway(world.mesh.agent, "our-two", processors, workers=2)),
    )
    try:
        for _, two in kinds:
            await world.mesh.link(two.name)
            await two.start()
        for key in _LOADS:
            for _ in range(pace.rounds):
                for one, two in kinds:
                    single, _share = await _round(world, key, one, pace)
                    double, share = await _round(world, key, two, pace)
                    value = speed_of_two(single, double)
                    record(rounds, TWO_WORKERS[key], one.label, value)
                    shares.setdefault(one.label, []).append(share)
                    world.progress(f"{one.label}: {told(TWO_WORKERS[key], value)}, the busier has {share:.0%}")
    finally:
        for _, two in kinds:
            await two.stop()
    world.findings.keep(rounds)
    busier = ", ".join(f"{label} {sum(all_of) / len(all_of):.0%}" for label, all_of in shares.items())
    first = TWO_WORKERS[next(iter(_LOADS))].key
    world.findings.notes[first] = f"Of the CPU time of two workers, the busier one has had on average: {busier}."


async def _round(world: World, key: str, gateway: Gateway, pace: Pace) -> tuple[float, float]:
    """What a CPU second yields, and the share of the busiest of the two busiest threads."""
    command, behaviour, connections = _LOADS[key]
    processes = gateway.processes()
    threads: list[dict[int, float]] = []

    def clock() -> float:
        threads.append(accounting.thread_s(processes))
        return accounting.cpu_s(processes)

    result, used_s = await world.generator.load(
        command,
        world.mesh.aim(gateway.address(behaviour), behaviour),
        duration_s=pace.round_s,
        connections=connections,
        clock=clock,
    )
    before, after = threads
    busiest = sorted(seconds - before.get(thread, 0.0) for thread, seconds in after.items())[-2:]
    amount = result.bytes if key == "bulk" else result.operations
    return per_cpu_second(amount, used_s), busiest[-1] / sum(busiest)


def _processors() -> frozenset[int]:
    """Two, of which the client has none, when there are three or more."""
    return frozenset(sorted(os.sched_getaffinity(0))[-2:])
