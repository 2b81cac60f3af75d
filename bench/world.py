"""What every part of a run works with: the plan, the running gateways, and where findings go."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bench.accounting import Placement
from bench.figures import Measure
from bench.gateways import Gateway
from bench.generator import Generator, Negotiated
from bench.measures import PARTS
from bench.mesh import BenchMesh
from bench.pace import Pace

Progress = Callable[[str], None]
"""Told what was just measured."""

Rounds = dict[str, list[float]]
"""Raw values of one measure, by label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    pace: Pace
    minutes: float = 22.0
    """After which a run is over. What fetching the other programs takes comes on top, once."""
    parts: tuple[str, ...] = PARTS
    peers: bool = True
    tls_max: str = "1.3"
    policy_rounds: int = 5
    patience_s: float = 60.0
    """How long a live connection is watched after its source was denied."""
    memory_rounds: int = 2


FULL = Plan(pace=Pace(5, 2.0))
QUICK = Plan(pace=Pace(2, 0.5), policy_rounds=2, patience_s=3.0, memory_rounds=1)


@dataclass(slots=True)
class Findings:
    """Everything that a run found. Nothing of a workload that failed halfway."""

    rounds: dict[str, Rounds] = field(default_factory=dict)
    """By the key of the measure, before scaling."""
    notes: dict[str, str] = field(default_factory=dict)
    """What is to be said to a measure, by key."""
    tls: dict[str, Negotiated] = field(default_factory=dict)
    """By label."""
    remarks: list[str] = field(default_factory=list)
    """What is to be said to the whole run: what was shortened or left out, and why."""
    failures: list[str] = field(default_factory=list)

    def keep(self, rounds: dict[str, Rounds]) -> None:
        self.rounds.update(rounds)


@dataclass(slots=True, kw_only=True)
class World:
    plan: Plan
    placement: Placement
    generator: Generator
    mesh: BenchMesh
    envoy: Gateway
    ours: Gateway
    peers: list[Gateway]
    """HAProxy and ghostunnel, as far as they are here."""
    progress: Progress
    findings: Findings = field(default_factory=Findings)

    @property
    def both(self) -> tuple[Gateway, Gateway]:
        return self.envoy, self.ours


def record(rounds: dict[str, Rounds], measure: Measure, label: str, value: float) -> None:
    rounds.setdefault(measure.key, {}).setdefault(label, []).append(value)


def told(measure: Measure, value: float) -> str:
    return f"{value * measure.scale:,.{measure.digits}f} {measure.unit}"


def labels(gateways: Iterable[Gateway]) -> str:
    return ", ".join(gateway.label for gateway in gateways)
