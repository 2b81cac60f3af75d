"""How long a change of policy takes to reach new and live connections, seen by the clients."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass

from bench import mesh as bench_mesh
from bench.gateways import Gateway
from bench.generator import Generator, Session
from bench.measures import ENDED, REFUSED
from bench.mesh import CLIENT, REVOKED_CLIENT, BenchMesh
from bench.pace import Cost
from bench.world import Plan, Rounds, World, record
from plugin.dev.processes import wait_until
from plugin.errors import StartError

HELD = 20
"""Live connections of each client during a change."""
REFUSAL_DEADLINE_S = 30.0

_BEHAVIOUR = "echo"
_SETTLE_S = 0.5
_NS_PER_MS = 1e6
_IMPATIENT_S = 1.0
"""How long Envoy is given to end live connections, but for one change in which it gets all the time allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One change to deny. Times are from just before the write is sent to Consul."""

    refused_ms: float
    """Until an attempt to connect had failed."""
    ended: int
    """Of ``HELD`` live connections, how many ended in the time allowed."""
    ended_ms: float | None
    """Until the last of them had ended; ``None`` when not all did."""
    allowed_lost: int
    """Of ``HELD`` connections that stay allowed."""
    let_in_again: int
    """Attempts that succeeded after one had been refused."""


def cost(plan: Plan) -> Cost:
    return Cost(0.0, plan.patience_s + 5.0 * plan.policy_rounds)


async def measure(world: World) -> None:
    """:raises StartError: when a denied client gets in for long, or its live connections go on through ours."""
    plan = world.plan
    found: dict[str, list[Revocation]] = {gateway.label: [] for gateway in world.both}
    for number in range(1, plan.policy_rounds + 1):
        for gateway in world.both:
            hopeless = gateway is world.envoy and number > 1 and found[gateway.label][0].ended_ms is None
            patience_s = _IMPATIENT_S if hopeless else plan.patience_s
            revocation = await revoke(world.generator, world.mesh, gateway, patience_s=patience_s)
            found[gateway.label].append(revocation)
            told = f"Policy {number}/{plan.policy_rounds}, {gateway.label}: {_told(revocation, patience_s)}"
            world.progress(told)
    alive = [number for number, one in enumerate(found[world.ours.label], 1) if one.ended_ms is None]
    if alive:
        raise StartError(f"live connections of a denied client went on in rounds {alive} of {world.ours.label}")
    _keep(world, found)


def _keep(world: World, found: dict[str, list[Revocation]]) -> None:
    rounds: dict[str, Rounds] = {}
    for label, all_of in found.items():
        for one in all_of:
            record(rounds, REFUSED, label, one.refused_ms)
            # Of Envoy, times of some rounds would stand for all.
            if one.ended_ms is not None and all(other.ended_ms is not None for other in all_of):
                record(rounds, ENDED, label, one.ended_ms)
    world.findings.keep(rounds)
    held = HELD * world.plan.policy_rounds
    lost = {label: sum(one.allowed_lost for one in all_of) for label, all_of in found.items()}
    told = ", ".join(f"{label} {count} of {held}" for label, count in lost.items())
    world.findings.notes[REFUSED.key] = f"Allowed connections lost during changes of policy: {told}."
    first = found[world.envoy.label][0]
    if first.ended_ms is None:
        world.findings.notes[ENDED.key] = (
            f"{world.envoy.label}: {HELD - first.ended} of {HELD} live connections of the denied client were still "
            f"open after {world.plan.patience_s:.0f} s."
        )


def _told(revocation: Revocation, patience_s: float) -> str:
    ended = (
        f"live connections ended after {revocation.ended_ms:.1f} ms"
        if revocation.ended_ms is not None
        else f"{revocation.ended} of {HELD} live connections ended within {patience_s:.0f} s"
    )
    return f"refused after {revocation.refused_ms:.1f} ms, {ended}, {revocation.allowed_lost} allowed ones lost"


async def revoke(generator: Generator, mesh: BenchMesh, gateway: Gateway, *, patience_s: float) -> Revocation:
    """Allow, connect, deny, and watch for at most ``patience_s`` seconds what becomes of live connections.

    :raises StartError: when new connections are not refused within ``REFUSAL_DEADLINE_S`` seconds.
    """
    await bench_mesh.allow(mesh.agent, _BEHAVIOUR, revoked_client=True)
    await _let_in(generator, mesh, gateway)
    other = mesh.identities[CLIENT]
    flags = [
        *mesh.aim(gateway.address(_BEHAVIOUR), _BEHAVIOUR, REVOKED_CLIENT).flags(),
        f"-other-certificate={other.certificate}",
        f"-other-key={other.key}",
        f"-connections={HELD}",
    ]
    async with generator.session("watch", *flags) as session:
        await session.event()
        await asyncio.sleep(_SETTLE_S)
        written_ns = time.time_ns()
        await bench_mesh.allow(mesh.agent, _BEHAVIOUR, revoked_client=False)
        seen = await _watch(session, patience_s)
        session.release()
        summary = await _summary(session, seen)
    if seen.refused_ns is None:
        raise StartError(f"{gateway.label} went on accepting a denied client for {REFUSAL_DEADLINE_S:.0f} s")
    return Revocation(
        refused_ms=(seen.refused_ns - written_ns) / _NS_PER_MS,
        ended=len(seen.ended_ns),
        ended_ms=(max(seen.ended_ns) - written_ns) / _NS_PER_MS if len(seen.ended_ns) == HELD else None,
        allowed_lost=summary["connections_lost"],
        let_in_again=summary["let_in_again"],
    )


class _Seen:
    def __init__(self) -> None:
        self.refused_ns: int | None = None
        self.ended_ns: list[int] = []

    def take(self, event: dict[str, int | str]) -> None:
        if event["event"] == "refused":
            self.refused_ns = int(event["at_ns"])
        elif event["event"] == "ended":
            self.ended_ns.append(int(event["at_ns"]))

    @property
    def complete(self) -> bool:
        return self.refused_ns is not None and len(self.ended_ns) == HELD


async def _watch(session: Session, patience_s: float) -> _Seen:
    seen = _Seen()
    began_s = time.monotonic()
    while not seen.complete:
        allowed_s = patience_s if seen.refused_ns is not None else max(patience_s, REFUSAL_DEADLINE_S)
        left_s = began_s + allowed_s - time.monotonic()
        if left_s <= 0:
            break
        with contextlib.suppress(TimeoutError):
            seen.take(await session.event(left_s))
    return seen


async def _summary(session: Session, seen: _Seen) -> dict[str, int]:
    while (event := await session.event())["event"] != "done":
        # What ends by the release itself is no effect of policy; a refusal that came late still is one.
        if event["event"] == "refused":
            seen.take(event)
    return event


async def _let_in(generator: Generator, mesh: BenchMesh, gateway: Gateway) -> None:
    async def connects() -> bool:
        with contextlib.suppress(StartError):
            await generator.load(
                "new-connections", mesh.aim(gateway.address(_BEHAVIOUR), _BEHAVIOUR, REVOKED_CLIENT), duration_s=0.01
            )
            return True
        return False

    await wait_until(connects, REFUSAL_DEADLINE_S, what=f"{gateway.label} lets {REVOKED_CLIENT} in", every_s=0.2)
