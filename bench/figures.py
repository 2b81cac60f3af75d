"""From measurements to figures: medians, spreads and ratios. Pure.

Gateways are measured in turns: what else happens on the machine changes slowly against a pair of rounds, so each
pair gives one ratio and the median of these is the figure. A ratio is always ours over Envoy's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ENVOY = "Envoy"
OURS = "consul-tgw"


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

    key: str
    """Under which its rounds are kept; never changes."""
    name: str
    unit: str
    digits: int = 0
    scale: float = 1.0
    """Multiplies raw values for display."""
    ratio_goal: Goal | None = None
    own_goal: Goal | None = None
    """For our own value, in ``unit``."""
    more_is_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A measure with what each program gave: none for one that gives nothing, or was not asked."""

    measure: Measure
    values: Mapping[str, Spread]
    """By label."""
    ratio: Spread | None = None
    """Ours over Envoy's, when both have rounds."""
    note: str = ""
    run: str = ""
    """Which run it is from."""

    @property
    def envoy(self) -> Spread | None:
        return self.values.get(ENVOY)

    @property
    def ours(self) -> Spread | None:
        return self.values.get(OURS)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; ``None`` without one, or without a figure for it."""
        if self.measure.own_goal is not None and self.ours is not None:
            return self.measure.own_goal.met(self.ours.median)
        if self.measure.ratio_goal is None or self.ratio is None:
            return None
        return self.measure.ratio_goal.met(self.ratio.median)


def compare(measure: Measure, rounds: Mapping[str, Sequence[float]], *, note: str = "", run: str = "") -> Row:
    """The row of ``measure``, from the raw values of rounds that were run in turns, by label.

    :raises ValueError: when Envoy and we both have rounds, but not the same number of them.
    """
    scaled = {label: [value * measure.scale for value in values] for label, values in rounds.items() if values}
    both = ENVOY in scaled and OURS in scaled
    return Row(
        measure=measure,
        values={label: Spread.of(values) for label, values in scaled.items()},
        ratio=Spread.of(pair_ratios(scaled[ENVOY], scaled[OURS])) if both else None,
        note=note,
        run=run,
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


def speed_of_two(one_per_cpu_s: float, two_per_cpu_s: float) -> float:
    """How many times as fast two workers are, from what a CPU second of them yields against one worker's.

    That is what they reach when each has a processor of its own and both are busy.
    """
    return 2 * two_per_cpu_s / one_per_cpu_s
