"""What may happen to a connection and what did: the judge of a soak. Knows no socket and no process.

A pair (source, service) is *allowed* or *denied* from the moment at which that is in force in every worker, and
*changing* from the write in Consul until then. While it is changing, either outcome is right.
"""

from __future__ import annotations

import enum
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

_LISTING_RACE_S = 2.0
"""What was opened this shortly before a worker was killed may be missing in the list of what it carried."""
_EVENTS = 60

Pair = tuple[str, str]


class Standing(enum.StrEnum):
    ALLOWED = "allowed"
    CHANGING = "changing"
    DENIED = "denied"


@dataclass(slots=True)
class Flow:
    """One connection of a client."""

    pair: Pair
    opened_s: float
    port: int = 0
    """The client's; 0 while it is not connected."""
    relayed: bool = False
    """Something has come back."""


@dataclass(frozen=True, slots=True)
class _Loss:
    at_s: float
    ports: frozenset[int]


@dataclass(slots=True)
class Ledger:
    now: Callable[[], float] = time.monotonic
    violations: list[str] = field(default_factory=list)
    events: deque[str] = field(default_factory=lambda: deque(maxlen=_EVENTS))
    faults: Counter[str] = field(default_factory=Counter)
    bad_inputs: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    """Connections, requests, refusals, ... by name."""
    verified_bytes: int = 0
    effects_s: list[float] = field(default_factory=list)
    """From each change of policy to its effect in all workers."""
    _standings: dict[Pair, list[tuple[float, Standing]]] = field(default_factory=dict)
    _losses: list[_Loss] = field(default_factory=list)
    _began_s: float = field(default_factory=time.monotonic)

    def event(self, text: str) -> None:
        self.events.append(f"{self.now() - self._began_s:8.2f} s  {text}")

    def violated(self, text: str) -> None:
        self.event(f"VIOLATION: {text}")
        self.violations.append(text)

    def verified(self, length: int) -> None:
        self.verified_bytes += length

    def stands(self, pair: Pair, standing: Standing) -> None:
        """From now on."""
        self._standings.setdefault(pair, []).append((self.now(), standing))

    def standing(self, pair: Pair) -> Standing:
        """At this moment; what nobody spoke of is denied."""
        known = self._standings.get(pair)
        return known[-1][1] if known else Standing.DENIED

    def since(self, pair: Pair, start_s: float) -> set[Standing]:
        """Every standing that the pair had from ``start_s`` until now."""
        known = self._standings.get(pair, [])
        before = [standing for at_s, standing in known if at_s <= start_s]
        return {before[-1] if before else Standing.DENIED} | {one for at_s, one in known if at_s > start_s}

    def lost(self, ports: Iterable[int]) -> None:
        """A worker is killed now, which carries the connections from these client ports."""
        self._losses.append(_Loss(self.now(), frozenset(ports)))

    def ended_early(self, flow: Flow, how: str) -> None:
        """The connection ended although neither side ended it. Judges whether it may."""
        if self.since(flow.pair, flow.opened_s) != {Standing.ALLOWED}:
            self.counts["live connections ended by policy" if flow.relayed else "refused"] += 1
        elif self._was_lost(flow):
            self.counts["lost with their worker"] += 1
        else:
            source, service = flow.pair
            age_s = self.now() - flow.opened_s
            self.violated(f"wrongly closed: {source} to {service}, port {flow.port}, after {age_s:.2f} s: {how}")

    def refused(self, flow: Flow, how: str) -> None:
        """A request was denied, or ended by a denial. Judges whether it may."""
        if self.may_end(flow):
            self.counts["live calls ended by policy" if flow.relayed else "refused requests"] += 1
        else:
            source, service = flow.pair
            self.violated(f"wrongly closed: {source} to {service}, port {flow.port}: {how}")

    def may_end(self, flow: Flow) -> bool:
        """Policy was not always for it."""
        return self.since(flow.pair, flow.opened_s) != {Standing.ALLOWED}

    def got_through(self, flow: Flow) -> None:
        """Bytes came back on the connection just now."""
        flow.relayed = True
        if self.since(flow.pair, flow.opened_s) == {Standing.DENIED}:
            source, service = flow.pair
            self.violated(f"wrongly allowed: {source} to {service}, port {flow.port}")

    def _was_lost(self, flow: Flow) -> bool:
        return any(
            flow.opened_s <= loss.at_s and (flow.port in loss.ports or flow.opened_s >= loss.at_s - _LISTING_RACE_S)
            for loss in self._losses
        )
