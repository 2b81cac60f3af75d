"""The whole measurement: an agent, a catalog, gateways of several sizes one after the other, a crowd of connections."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.generator import Generator, Identity
from bench.scale import control, crowd, many
from bench.scale.canary import Canary, identity, quantile
from bench.scale.control import CLIENT, Course, Figures, commands
from bench.scale.costs import memory_mib
from bench.scale.crowd import CrowdFigures, DecisionFigures
from bench.scale.fleet import Fleet, service
from bench.scale.many import ManyFigures
from bench.scale.subjects import Envoys, Ours, Subject
from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import GatewayError

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    sizes: tuple[int, ...]
    """Numbers of linked services."""
    envoy_sizes: tuple[int, ...]
    idle_s: float
    """At rest, for the largest size; the others get a sixth."""
    crowd: int
    sources: int
    workers: int
    """Of the crowd's gateway: a process may have 20,000 descriptors where this was written."""
    intentions: tuple[int, ...]
    many: int
    """Services on an agent that only answers."""


FULL = Plan(
    sizes=(100, 300, 1_000),
    envoy_sizes=(100, 300, 1_000),
    idle_s=60.0,
    crowd=10_000,
    sources=500,
    workers=2,
    intentions=(10, 100, 1_000),
    many=10_000,
)
QUICK = Plan(
    sizes=(60,), envoy_sizes=(60,), idle_s=2.0, crowd=200, sources=20, workers=2, intentions=(10, 50), many=200
)


@dataclass(slots=True, kw_only=True)
class Outcome:
    figures: list[Figures] = field(default_factory=list)
    crowd: CrowdFigures | None = None
    decisions: DecisionFigures | None = None
    many: ManyFigures | None = None
    agent_mib: dict[str, float] = field(default_factory=dict)
    """Of the agent: with the catalog alone, and with the largest gateway of each kind."""
    failed: list[str] = field(default_factory=list)
    """What could not be measured, and why."""


async def measure(plan: Plan, folder: Path, progress: Progress) -> Outcome:
    outcome = Outcome()
    agent = ConsulAgent(folder / "agent")
    await agent.start()
    try:
        generator = await Generator.build(folder, frozenset(os.sched_getaffinity(0)))
        async with (
            generator.external_services() as ports,
            Fleet.on(agent, sum(plan.sizes) + sum(plan.envoy_sizes), ports["echo"]) as fleet,
        ):
            progress(f"writing {fleet.count:,} services into the catalog")
            await fleet.write([CLIENT])
            outcome.agent_mib["the catalog alone"] = memory_mib([_pid(agent)])
            who = await identity(agent.api, folder, CLIENT)
            first = 0
            for size in plan.sizes:
                for make, sizes in ((Ours, plan.sizes), (Envoys, plan.envoy_sizes)):
                    if size in sizes:
                        # Services of its own: no leaf of them was ever signed.
                        subject = make(agent, f"scale-{first}")
                        await _one(plan, outcome, subject, fleet, range(first, first + size), who, progress)
                        first += size
            await _policy(plan, outcome, generator, fleet, folder, progress)
    finally:
        await agent.stop()
    try:
        outcome.many = await many.measure(plan.many, folder, progress)
    except GatewayError as problem:
        outcome.failed.append(f"{plan.many:,} services on an agent that only answers: {problem}")
    return outcome


async def _one(
    plan: Plan,
    outcome: Outcome,
    subject: Subject,
    fleet: Fleet,
    linked: range,
    who: Identity,
    progress: Progress,
) -> None:
    size, largest = len(linked), len(linked) == max(plan.sizes)
    await fleet.link(subject.name, [service(number) for number in linked])
    course = Course(idle_s=plan.idle_s if largest else plan.idle_s / 6, storm=largest)
    try:
        outcome.figures.append(await control.measure(subject, fleet, linked, who, course, progress))
    except GatewayError as problem:
        outcome.failed.append(f"{subject.label}, {size:,} services: {problem}")
    if largest:
        outcome.agent_mib[f"after {subject.label} with {size:,} services"] = memory_mib([_pid(fleet.agent)])


async def _policy(
    plan: Plan, outcome: Outcome, generator: Generator, fleet: Fleet, folder: Path, progress: Progress
) -> None:
    progress(f"leaves of {plan.sources} clients")
    clients = await crowd.identities(fleet, folder, plan.sources)
    await fleet.link("scale-crowd", fleet.names[: max(plan.sizes)])
    subject = Ours(fleet.agent, "scale-crowd", workers=plan.workers)
    await subject.start(max(plan.sizes))
    try:
        outcome.crowd = await crowd.measure(generator, fleet, subject, folder, clients, plan.crowd, commands, progress)
        progress("many intentions of one service")
        name = f"{service(0)}.default.{fleet.agent.datacenter}.internal.{fleet.trust_domain}"
        canary = Canary(host=subject.host, port=subject.port, server_name=name, identity=clients[0])
        effect: dict[int, float] = {}
        for count in plan.intentions:
            others = {f"source-{number}": "allow" for number in range(count - 1)}

            async def write(allowed: bool, others: dict[str, str] = others) -> None:
                await fleet.intend(service(0), {"crowd-000": "allow" if allowed else "deny", **others})

            await write(True)
            await canary.until(True)
            effect[count] = quantile(await canary.follow(write, samples=12, at_most_s=10.0), 0.5)
        decision = {count: crowd.decision_us(count) for count in plan.intentions}
        outcome.decisions = DecisionFigures(decision_us=decision, effect_ms=effect)
    except GatewayError as problem:
        outcome.failed.append(f"{plan.crowd:,} connections: {problem}")
    finally:
        await subject.stop()


def _pid(agent: ConsulAgent) -> int:
    assert agent.child is not None
    return agent.child.pid


def finish(plan: Plan, folder: Path, progress: Progress) -> Outcome:
    return asyncio.run(measure(plan, folder, progress))
