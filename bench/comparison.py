"""The whole run: starts every part, measures both gateways in turns, ends every part."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import accounting, measures
from bench.accounting import Placement
from bench.figures import Measure, Row, compare
from bench.gateways import EnvoyGateway, Gateway, OurGateway
from bench.generator import Generator, Negotiated
from bench.measures import WORKLOADS, Workload
from bench.mesh import BenchMesh
from bench.policy import HELD, Revocation, revoke
from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import StartError

Progress = Callable[[str], None]
"""Told what was just measured."""

POLICY = "policy"
MEMORY = "memory"
NAMES = (*(workload.command for workload in WORKLOADS), POLICY, MEMORY)

_WARM_UP_CONNECTIONS = 5
_SETTLE_S = 1.5
_IMPATIENT_S = 1.0
"""How long Envoy is given to end live connections, but for one change in which it gets all the time allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    rounds: int
    round_s: float
    memory_rounds: int
    policy_rounds: int
    patience_s: float
    """How long a live connection is watched after its source was denied."""
    idle_connections: int = 1_000
    tls_max: str = "1.3"
    only: frozenset[str] = frozenset(NAMES)


FULL = Plan(rounds=7, round_s=3.0, memory_rounds=3, policy_rounds=9, patience_s=60.0)
QUICK = Plan(rounds=2, round_s=1.0, memory_rounds=1, policy_rounds=2, patience_s=3.0)


@dataclass(slots=True)
class Outcome:
    """Everything that a run found."""

    rows: list[Row] = field(default_factory=list)
    tls: dict[str, Negotiated] = field(default_factory=dict)
    """By the gateway's label."""
    placement: str = ""
    raw: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """Values of all rounds, by measure and label, as :class:`Measure` has them before scaling."""


class Comparison:
    """Measures two running gateways."""

    def __init__(
        self, plan: Plan, generator: Generator, mesh: BenchMesh, envoy: Gateway, ours: Gateway, progress: Progress
    ) -> None:
        self.outcome = Outcome()
        self._plan = plan
        self._generator = generator
        self._mesh = mesh
        self._envoy = envoy
        self._ours = ours
        self._progress = progress

    async def run(self) -> None:
        await self._check_tls()
        for workload in WORKLOADS:
            if workload.command in self._plan.only:
                await self._steady(workload)
        if POLICY in self._plan.only:
            await self._policy()
        if MEMORY in self._plan.only:
            await self._memory()

    async def _check_tls(self) -> None:
        """Both must do the same cryptography, or nothing can be compared."""
        for gateway in self._both:
            aim = self._mesh.aim(gateway.address, "echo")
            result = await self._generator.load("new-connections", aim, duration_s=0.2)
            self.outcome.tls[gateway.label] = result.tls
            self._progress(f"{gateway.label}: {result.tls}")
        if len(set(self.outcome.tls.values())) > 1:
            found = "; ".join(f"{label}: {tls}" for label, tls in self.outcome.tls.items())
            raise StartError(f"the gateways negotiate different TLS parameters and cannot be compared: {found}")

    @property
    def _both(self) -> tuple[Gateway, Gateway]:
        return self._envoy, self._ours

    async def _steady(self, workload: Workload) -> None:
        rounds = self._plan.rounds * workload.slices
        for number in range(1, rounds + 1):
            for gateway in self._both:
                told = await self._steady_round(workload, gateway)
                self._progress(f"{workload.title} {number}/{rounds}, {gateway.label}: {told}")
        for measure, _ in workload.takes:
            self._add_row(measure)

    async def _steady_round(self, workload: Workload, gateway: Gateway) -> str:
        """One round, in words."""
        processes = gateway.processes()
        before_s = accounting.cpu_s(processes)
        result = await self._generator.load(
            workload.command,
            self._mesh.aim(gateway.address, workload.behaviour),
            duration_s=self._plan.round_s / workload.slices,
            connections=workload.connections,
        )
        used_s = accounting.cpu_s(processes) - before_s
        if gateway.processes() != processes:
            raise StartError(f"{gateway.label} started or lost a process while it was measured: see its log")
        told = []
        for measure, take in workload.takes:
            value = take(result, used_s)
            self._record(measure, gateway, value)
            told.append(f"{value * measure.scale:,.{measure.digits}f} {measure.unit}")
        return f"{'; '.join(told)} (CPU {used_s / result.seconds:.0%})"

    async def _policy(self) -> None:
        found: dict[str, list[Revocation]] = {gateway.label: [] for gateway in self._both}
        for number in range(1, self._plan.policy_rounds + 1):
            for gateway in self._both:
                hopeless = gateway is self._envoy and number > 1 and found[gateway.label][0].ended_ms is None
                patience_s = _IMPATIENT_S if hopeless else self._plan.patience_s
                revocation = await revoke(self._generator, self._mesh, gateway, patience_s=patience_s)
                found[gateway.label].append(revocation)
                self._progress(
                    f"Policy {number}/{self._plan.policy_rounds}, {gateway.label}: {_told(revocation, patience_s)}"
                )
        self._policy_rows(found)

    def _policy_rows(self, found: dict[str, list[Revocation]]) -> None:
        for gateway in self._both:
            for revocation in found[gateway.label]:
                self._record(measures.REFUSED, gateway, revocation.refused_ms)
                if revocation.ended_ms is not None:
                    self._record(measures.ENDED, gateway, revocation.ended_ms)
        ours = found[self._ours.label]
        lost = {label: sum(one.allowed_lost for one in all_of) for label, all_of in found.items()}
        held = HELD * self._plan.policy_rounds
        told_lost = ", ".join(f"{label} {count} of {held}" for label, count in lost.items())
        self._add_row(measures.REFUSED, note=f"Allowed connections lost: {told_lost}.")
        alive = [number for number, one in enumerate(ours, 1) if one.ended_ms is None]
        if alive:
            raise StartError(f"live connections of a denied client went on in rounds {alive} of {self._ours.label}")
        first = found[self._envoy.label][0]
        note = (
            f"{self._envoy.label}: {HELD - first.ended} of {HELD} were still open after {self._plan.patience_s:.0f} s."
            if first.ended_ms is None
            else ""
        )
        self._add_row(measures.ENDED, note=note)

    async def _memory(self) -> None:
        for number in range(1, self._plan.memory_rounds + 1):
            for gateway in self._both:
                # What a gateway has freed it uses again: only a fresh one shows what a connection takes.
                await gateway.stop()
                await gateway.start()
                await self._memory_round(gateway, number)
        for measure in (measures.MEMORY_RSS, measures.MEMORY_PSS, measures.MEMORY_BASE):
            self._add_row(measure)

    async def _memory_round(self, gateway: Gateway, number: int) -> None:
        flags = self._mesh.aim(gateway.address, "echo").flags()
        count = self._plan.idle_connections
        async with self._generator.session("idle", *flags, f"-connections={_WARM_UP_CONNECTIONS}") as warm_up:
            await warm_up.event()
            await asyncio.sleep(_SETTLE_S)
            before = accounting.memory(gateway.processes())
            async with self._generator.session("idle", *flags, f"-connections={count}") as held:
                await held.event()
                await asyncio.sleep(_SETTLE_S)
                after = accounting.memory(gateway.processes())
        self._record(measures.MEMORY_RSS, gateway, (after.rss - before.rss) / count)
        self._record(measures.MEMORY_PSS, gateway, (after.pss - before.pss) / count)
        self._record(measures.MEMORY_BASE, gateway, before.pss)
        self._progress(
            f"Memory {number}/{self._plan.memory_rounds}, {gateway.label}: "
            f"{(after.pss - before.pss) / count / measures.KIB:.1f} KiB per connection (PSS)"
        )

    def _record(self, measure: Measure, gateway: Gateway, value: float) -> None:
        self.outcome.raw.setdefault(measure.name, {}).setdefault(gateway.label, []).append(value)

    def _add_row(self, measure: Measure, *, note: str = "") -> None:
        values = self.outcome.raw[measure.name]
        row = compare(measure, values.get(self._envoy.label, []), values[self._ours.label], note=note)
        self.outcome.rows.append(row)


def _told(revocation: Revocation, patience_s: float) -> str:
    ended = (
        f"live connections ended after {revocation.ended_ms:.1f} ms"
        if revocation.ended_ms is not None
        else f"{revocation.ended} of {HELD} live connections ended within {patience_s:.0f} s"
    )
    return f"refused after {revocation.refused_ms:.1f} ms, {ended}, {revocation.allowed_lost} allowed ones lost"


@contextlib.asynccontextmanager
async def prepared(plan: Plan, folder: Path, progress: Progress) -> AsyncIterator[Comparison]:
    """Everything started, and ended when the context is left. ``folder`` takes logs and keys."""
    placement = Placement.choose(os.sched_getaffinity(0))
    async with contextlib.AsyncExitStack() as stack:
        progress("building the load generator")
        generator = await Generator.build(folder, placement.others)
        ports = await stack.enter_async_context(generator.external_services())
        progress("starting Consul")
        agent = await stack.enter_async_context(ConsulAgent(folder / "agent", default_intention_policy="deny"))
        assert agent.child is not None
        accounting.pin(accounting.family(agent.child.pid), placement.others)
        envoy: Gateway = EnvoyGateway(agent, "envoy-tgw", placement.gateway)
        ours: Gateway = OurGateway(agent, "our-tgw", placement.gateway)
        mesh = await BenchMesh.prepare(
            agent, folder, ports=ports, gateways=(envoy.name, ours.name), tls_max=plan.tls_max
        )
        for gateway in (envoy, ours):
            progress(f"starting {gateway.label}")
            stack.push_async_callback(gateway.stop)
            await gateway.start()
        comparison = Comparison(plan, generator, mesh, envoy, ours, progress)
        comparison.outcome.placement = str(placement)
        yield comparison
