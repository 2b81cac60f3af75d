"""The whole run: starts every part, measures the gateways in turns, ends every part."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial, reduce
from pathlib import Path

from bench import accounting, limits, memory, policy, scaling, steady, tools
from bench.accounting import Placement
from bench.gateways import EnvoyGateway, Gateway, OurGateway
from bench.generator import Generator
from bench.measures import STEADY
from bench.mesh import BenchMesh
from bench.pace import Clock, Cost, Pace
from bench.peers import Ghostunnel, HAProxy
from bench.world import Findings, Plan, Progress, World
from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import GatewayError

_DESCRIPTORS = 30_000


async def run(world: World, deadline_s: float) -> None:
    """Measure the parts of the plan until ``deadline_s`` (``time.monotonic``).

    What fails is told in the findings and the rest is measured all the same.

    :raises StartError: when the gateways cannot be compared at all.
    """
    await steady.check_tls(world)
    wanted = world.plan.pace
    clock = Clock(wanted, _costs(world), now_s=time.monotonic(), deadline_s=deadline_s)
    shortened: list[str] = []
    for part in world.plan.parts:
        pace = clock.begin(part, time.monotonic())
        if pace is None:
            world.findings.remarks.append(f"{part}: not measured, no time was left")
            continue
        if pace != wanted:
            shortened.append(f"{part} {pace}")
        await _part(world, part, pace)
        clock.end(time.monotonic())
    if shortened:
        world.findings.remarks.append(f"shortened to be over in time: {', '.join(shortened)}")


async def _part(world: World, part: str, pace: Pace) -> None:
    if part in STEADY:
        for workload in STEADY[part]:
            await attempt(
                world.findings, workload.title, partial(steady.measure, world, workload, pace), world.progress
            )
        return
    others: dict[str, Callable[[], Awaitable[None]]] = {
        "policy": partial(policy.measure, world),
        "memory": partial(memory.measure, world),
        "scaling": partial(scaling.measure, world, pace),
        "limits": partial(limits.measure, world, pace),
    }
    await attempt(world.findings, part, others[part], world.progress)


async def attempt(
    findings: Findings, what: str, measure: Callable[[], Awaitable[None]], progress: Progress, tries: int = 2
) -> None:
    """Measure, and once more when that fails: one workload must not take a whole run with it. Both are told."""
    for left in reversed(range(tries)):
        try:
            await measure()
        except (GatewayError, ValueError, TimeoutError) as error:
            progress(f"FAILED: {what}: {error}")
            told = f"{what}: {error}".replace("\n", "; ")
            if left:
                findings.remarks.append(f"failed once, and was measured again: {told}")
            else:
                findings.failures.append(told)
        else:
            return


def _costs(world: World) -> dict[str, Cost]:
    peers = len(world.peers)
    others = {
        "policy": policy.cost(world.plan),
        "memory": memory.cost(world.plan.memory_rounds, peers),
        "scaling": scaling.cost(),
        "limits": limits.cost(),
    }
    return {
        part: others[part]
        if part in others
        else reduce(Cost.__add__, (steady.cost(one, peers) for one in STEADY[part]))
        for part in world.plan.parts
    }


@contextlib.asynccontextmanager
async def prepared(plan: Plan, folder: Path, progress: Progress) -> AsyncIterator[World]:
    """Everything started, and ended when the context is left. ``folder`` takes logs and keys."""
    placement = Placement.choose(os.sched_getaffinity(0))
    accounting.allow_descriptors(_DESCRIPTORS)
    async with contextlib.AsyncExitStack() as stack:
        progress("building the load generator")
        generator = await Generator.build(folder, placement.others)
        ports = await stack.enter_async_context(generator.external_services())
        progress("starting Consul")
        agent = await stack.enter_async_context(ConsulAgent(folder / "agent", default_intention_policy="deny"))
        assert agent.child is not None
        accounting.pin(accounting.family(agent.child.pid), placement.others)
        mesh = await BenchMesh.prepare(agent, folder, ports=ports, tls_max=plan.tls_max)
        envoy: Gateway = EnvoyGateway(agent, "envoy-tgw", placement.gateway)
        ours: Gateway = OurGateway(agent, "our-tgw", placement.gateway)
        peers = _peers(mesh, placement) if plan.peers else []
        for gateway in (envoy, ours, *peers):
            progress(f"starting {gateway.label}")
            if gateway.linked:
                await mesh.link(gateway.name, sidecar="sidecar" in plan.parts)
            stack.push_async_callback(gateway.stop)
            await gateway.start()
        if "sidecar" in plan.parts:
            progress("starting a sidecar")
            sidecar = await stack.enter_async_context(mesh.sidecar())
            accounting.pin(accounting.family(sidecar.pid), placement.others)
        world = World(
            plan=plan,
            placement=placement,
            generator=generator,
            mesh=mesh,
            envoy=envoy,
            ours=ours,
            peers=peers,
            progress=progress,
        )
        for name in sorted(tools.PEERS - {peer.label for peer in peers}) if plan.peers else ():
            world.findings.remarks.append(f"{name} is not on this machine")
        yield world


def _peers(mesh: BenchMesh, placement: Placement) -> list[Gateway]:
    found: list[Gateway] = []
    if (haproxy := tools.haproxy()) is not None:
        found.append(HAProxy(mesh, haproxy, placement.gateway))
    if (ghostunnel := tools.ghostunnel()) is not None:
        found.append(Ghostunnel(mesh, ghostunnel, placement.gateway))
    return found
