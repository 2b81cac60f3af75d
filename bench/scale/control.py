"""What a gateway of many services costs and how soon it follows changes: one gateway, one number of services."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from bench.generator import Identity
from bench.scale.canary import Canary
from bench.scale.costs import Cost, Meter, connections_to, cpu_ms
from bench.scale.fleet import Fleet, service
from bench.scale.subjects import READY_DEADLINE_S, Ours, Subject
from plugin.dev.processes import run

CLIENT, OTHER = "scale-client", "scale-other"
STORM_PER_S = 100.0
_CHANGES = 4
_BETWEEN_S = 2.0
_SAMPLES = 20
_AT_MOST_S = 12.0
_COMMANDS = ("status", "certs", "connections")

Progress = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Figures:
    label: str
    services: int
    ready_s: float = 0.0
    """Until all services are served."""
    again_s: float | None = None
    """The same for a start after that: the agent has every leaf."""
    start: Cost | None = None
    """Until all are served."""
    memory_mib: dict[str, float] = field(default_factory=dict)
    connections: int = 0
    """To the agent's HTTP API; Envoy has one of gRPC instead."""
    idle: Cost | None = None
    """Milliseconds a second."""
    changes: dict[str, Cost] = field(default_factory=dict)
    """Beyond what idling costs, for each change."""
    quiet_ms: list[float] = field(default_factory=list)
    storm_ms: list[float] = field(default_factory=list)
    storm_per_s: float = 0.0
    storm: Cost | None = None
    """Milliseconds a second."""
    commands_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What to measure, and for how long."""

    idle_s: float
    storm: bool


async def measure(
    subject: Subject, fleet: Fleet, linked: range, identity: Identity, course: Course, progress: Progress
) -> Figures:
    """``linked`` are the services that the entry of the gateway's name links."""
    figures = Figures(label=subject.label, services=len(linked))
    what = f"{subject.label}, {len(linked):,} services"
    progress(f"{what}: start")
    agent = fleet.agent
    assert agent.child is not None
    before = Meter(lambda: (), agent.child.pid)
    canary = _canary(subject, fleet, linked, identity)
    try:
        figures.ready_s = await _started(subject, canary, len(linked))
        figures.start = Cost(cpu_ms(subject.processes()), before.read().agent)
        progress(f"{what}: start again")
        await subject.stop()
        figures.again_s = await _started(subject, canary, len(linked))
        progress(f"{what}: at rest")
        await asyncio.sleep(5.0)
        figures.memory_mib = subject.memory()
        figures.connections = connections_to(agent.http_port, subject.processes())
        idle = Meter(subject.processes, agent.child.pid)
        await asyncio.sleep(course.idle_s)
        rest = idle.read().over(idle.passed_s)
        figures.idle = rest
        progress(f"{what}: single changes")
        for name, change in _single_changes(fleet, linked).items():
            figures.changes[name] = await _cost_of(change, subject, agent.child.pid, rest)
        progress(f"{what}: time to effect")
        figures.quiet_ms = await canary.follow(_writer(fleet, linked), samples=_SAMPLES, at_most_s=_AT_MOST_S)
        if course.storm:
            progress(f"{what}: time to effect in a storm of changes")
            await _in_a_storm(figures, canary, subject, fleet, linked)
        if isinstance(subject, Ours):
            figures.commands_s = await commands(subject)
    finally:
        await subject.stop()
    return figures


async def _started(subject: Subject, canary: Canary, services: int) -> float:
    """Seconds until it says that it serves all, and a client of the last one is let in."""
    began_s = time.monotonic()
    await subject.start(services)
    await canary.until(True, READY_DEADLINE_S)
    return time.monotonic() - began_s


def _canary(subject: Subject, fleet: Fleet, linked: range, identity: Identity) -> Canary:
    """The last one linked: it has no blocking query of its own."""
    name = f"{service(linked[-1])}.default.{fleet.agent.datacenter}.internal.{fleet.trust_domain}"
    return Canary(host=subject.host, port=subject.port, server_name=name, identity=identity)


def _writer(fleet: Fleet, linked: range) -> Callable[[bool], Awaitable[None]]:
    async def write(allowed: bool) -> None:
        await fleet.intend(service(linked[-1]), {CLIENT: "allow" if allowed else "deny"})

    return write


def _single_changes(fleet: Fleet, linked: range) -> dict[str, Callable[[int], Awaitable[None]]]:
    """Of services without a query of their own, each time another one."""
    last = linked[-1]
    return {
        "an intention": lambda turn: fleet.intend(service(last - 1 - turn), {CLIENT: "allow", OTHER: "deny"}),
        "a check turns": lambda turn: fleet.set_check(last - 10 - turn, "critical"),
        "an instance is registered": lambda turn: fleet.register_one_more(last - 20 - turn),
    }


async def _cost_of(change: Callable[[int], Awaitable[None]], subject: Subject, agent: int, rest: Cost) -> Cost:
    meter = Meter(subject.processes, agent)
    for turn in range(_CHANGES):
        await change(turn)
        await asyncio.sleep(_BETWEEN_S)
    return meter.read().minus(rest, meter.passed_s).over(_CHANGES)


async def _in_a_storm(figures: Figures, canary: Canary, subject: Subject, fleet: Fleet, linked: range) -> None:
    assert fleet.agent.child is not None
    async with _storm(fleet, linked) as changes:
        await asyncio.sleep(2.0)
        meter, before = Meter(subject.processes, fleet.agent.child.pid), changes.made
        figures.storm_ms = await canary.follow(_writer(fleet, linked), samples=_SAMPLES, at_most_s=_AT_MOST_S)
        figures.storm = meter.read().over(meter.passed_s)
        figures.storm_per_s = (changes.made - before) / meter.passed_s


class _Changes:
    made = 0


@asynccontextmanager
async def _storm(fleet: Fleet, linked: range) -> AsyncIterator[_Changes]:
    """Half of the changes are intentions, half are checks, each of another service; not of the canary."""
    changes, chosen = _Changes(), random.Random(7)

    async def change(number: int) -> None:
        which = chosen.choice(linked[:-1])
        if number % 2:
            await fleet.intend(service(which), {CLIENT: "allow", f"source-{number}": "deny"})
        else:
            await fleet.set_check(which, chosen.choice(("critical", "passing")))
        changes.made += 1

    async def blow() -> None:
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in itertools.count():
                await asyncio.sleep(max(0.0, began_s + number / STORM_PER_S - time.monotonic()))
                group.create_task(fleet.one_of_few(functools.partial(change, number)))

    storm = asyncio.get_running_loop().create_task(blow())
    try:
        yield changes
    finally:
        storm.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await storm


async def commands(subject: Ours) -> dict[str, float]:
    """Seconds of each command, as an operator waits for it."""
    taken: dict[str, float] = {}
    address = f"--admin-address=127.0.0.1:{subject.gateway.admin_port}"
    for command in _COMMANDS:
        began_s = time.monotonic()
        await run([sys.executable, "-m", "plugin", command, address])
        taken[f"consul-tgw {command}"] = time.monotonic() - began_s
    return taken
