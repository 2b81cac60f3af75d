"""What one soak has measured, as it is kept and shown."""

from __future__ import annotations

import statistics
from typing import Self

import msgspec

from soak.invariants import Watch
from soak.ledger import Ledger


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    seconds: float
    pumps: int
    idle: int
    open_connections: int
    """At the gateway, median over the run."""
    counts: dict[str, int]
    faults: dict[str, int]
    bad_inputs: dict[str, int]
    verified_bytes: int
    leaf_renewals: int
    violations: tuple[str, ...]
    effects: int
    effect_median_s: float
    effect_worst_s: float
    resident_before_kib: int
    """All processes of the gateway, after the warm-up."""
    resident_after_kib: int
    descriptors_most: int
    samples: int

    @classmethod
    def of(cls, seed: int, seconds: float, pumps: int, idle: int, ledger: Ledger, watch: Watch) -> Self:
        before, after = watch.growth_kib()
        effects = ledger.effects_s or [0.0]
        return cls(
            seed=seed,
            seconds=seconds,
            pumps=pumps,
            idle=idle,
            open_connections=int(statistics.median([one.connections for one in watch.samples] or [0])),
            counts=dict(ledger.counts),
            faults=dict(ledger.faults),
            bad_inputs=dict(ledger.bad_inputs),
            verified_bytes=ledger.verified_bytes,
            leaf_renewals=watch.leaf_renewals,
            violations=tuple(ledger.violations),
            effects=len(ledger.effects_s),
            effect_median_s=statistics.median(effects),
            effect_worst_s=max(effects),
            resident_before_kib=before,
            resident_after_kib=after,
            descriptors_most=max([one.descriptors for one in watch.samples] or [0]),
            samples=len(watch.samples),
        )


class Flood(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``build/reliability/floods.json``."""

    name: str
    tried: int
    seconds: float
    legitimate_requests: int
    lost: int
    p50_ms: float
    p99_ms: float
    fds_before: int
    fds_after: int
    rss_before_kib: int
    rss_after_kib: int
