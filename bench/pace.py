"""How many rounds there is time for. Pure.

A run has to be over by its deadline wherever it runs. Before each part the longest pace is taken with which all that
is still to be measured fits; what was measured so far says how much longer than planned things take here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OVERHEAD_S = 0.4
"""Of each round: starting the generator, connecting, closing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Rounds of each workload, and the seconds of one."""

    rounds: int
    round_s: float

    def __str__(self) -> str:
        return f"{self.rounds} rounds of {self.round_s:g} s"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part takes: rounds that follow the pace, and seconds that do not."""

    rounds: float
    """Of all its workloads and gateways, for each round of the pace."""
    fixed_s: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.rounds + other.rounds, self.fixed_s + other.fixed_s)

    def at(self, pace: Pace) -> float:
        """Seconds."""
        return self.rounds * pace.rounds * (pace.round_s + OVERHEAD_S) + self.fixed_s


def slower(pace: Pace) -> tuple[Pace, ...]:
    """``pace`` and those to fall back to, the longest first: seconds go before rounds, and three rounds stay."""
    seconds = [pace.round_s * share for share in (1.0, 0.75, 0.5)]
    shortest = seconds[-1]
    fewer = [Pace(rounds, shortest) for rounds in range(pace.rounds - 1, 2, -1)]
    return (*(Pace(pace.rounds, length) for length in seconds), *fewer)


class Clock:
    """Chooses the pace of each part. Told the time, it has none of its own."""

    def __init__(self, wanted: Pace, costs: Mapping[str, Cost], *, now_s: float, deadline_s: float) -> None:
        """``costs`` are in the order in which parts are measured; ``deadline_s`` is on the clock of ``now_s``."""
        self._wanted = wanted
        self._left = dict(costs)
        self._deadline_s = deadline_s
        self._planned_s = 0.0
        self._took_s = 0.0
        self._began_s = now_s
        self._planned_now_s = 0.0

    def begin(self, part: str, now_s: float) -> Pace | None:
        """The pace of ``part``; ``None`` when there is no time for it at all."""
        left_s = (self._deadline_s - now_s) / self._slowness
        chosen = next(
            (pace for pace in slower(self._wanted) if self._needed_s(pace) <= left_s), slower(self._wanted)[-1]
        )
        cost = self._left.pop(part)
        if cost.at(chosen) > left_s:
            return None
        self._began_s, self._planned_now_s = now_s, cost.at(chosen)
        return chosen

    def end(self, now_s: float) -> None:
        """The part that was begun last is over."""
        self._planned_s += self._planned_now_s
        self._took_s += now_s - self._began_s

    @property
    def _slowness(self) -> float:
        return max(1.0, self._took_s / self._planned_s) if self._planned_s else 1.0

    def _needed_s(self, pace: Pace) -> float:
        return sum(cost.at(pace) for cost in self._left.values())
