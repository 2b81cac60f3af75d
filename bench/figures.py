"""From measurements to figures: medians, spreads and ratios. Pure.

Two gateways are measured in turns: what else happens on the machine changes slowly against a pair of rounds, so each
pair gives one ratio and the median of these is the figure. A ratio is always ours over Envoy's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """What several rounds gave."""

    median: float
    lowest: float
    highest: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """:raises ValueError: without values, or when one is not a finite number."""
        if not values:
            raise ValueError("no round was measured")
        if not all(math.isfinite(value) for value in values):
            raise ValueError(f"a round gave no finite number: {list(values)}")
        return cls(statistics.median(values), min(values), max(values), len(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a figure is to be: at least, or at most, ``value``."""

    value: float
    at_least: bool

    def met(self, figure: float) -> bool:
        return figure >= self.value if self.at_least else figure <= self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One row of the comparison: how it is called, told and judged."""

    name: str
    unit: str
    digits: int = 0
    scale: float = 1.0
    """Multiplies raw values for display."""
    ratio_goal: Goal | None = None
    own_goal: Goal | None = None
    """For our own value, in ``unit``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measure with what both gateways gave; ``envoy`` is ``None`` where it gives nothing within the time allowed."""

    measure: Measure
    envoy: Spread | None
    ours: Spread
    ratio: Spread | None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; ``None`` without one."""
        if self.measure.own_goal is not None:
            return self.measure.own_goal.met(self.ours.median)
        if self.measure.ratio_goal is None or self.ratio is None:
            return None
        return self.measure.ratio_goal.met(self.ratio.median)


def compare(measure: Measure, envoy: Sequence[float], ours: Sequence[float], *, note: str = "") -> Row:
    """The row of ``measure``, from the raw values of rounds that were run in turns.

    :raises ValueError: when ours has no round, or both have rounds but not the same number of them.
    """
    scaled_envoy = [value * measure.scale for value in envoy]
    scaled_ours = [value * measure.scale for value in ours]
    return Row(
        measure=measure,
        envoy=Spread.of(scaled_envoy) if scaled_envoy else None,
        ours=Spread.of(scaled_ours),
        ratio=Spread.of(pair_ratios(scaled_envoy, scaled_ours)) if scaled_envoy else None,
        note=note,
    )


def pair_ratios(envoy: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Ours over Envoy's, round by round.

    :raises ValueError: when the numbers of rounds differ, or Envoy gave zero.
    """
    if len(envoy) != len(ours):
        raise ValueError(f"{len(envoy)} rounds of Envoy and {len(ours)} of ours cannot be paired")
    if any(value == 0 for value in envoy):
        raise ValueError("a round of Envoy gave zero: there is no ratio to it")
    return [mine / theirs for theirs, mine in zip(envoy, ours, strict=True)]


def per_cpu_second(amount: float, cpu_s: float) -> float:
    """:raises ValueError: when no processor time was seen: the round was too short for the kernel's clock."""
    if cpu_s <= 0:
        raise ValueError("the gateway used no measurable processor time: make the rounds longer")
    return amount / cpu_s
