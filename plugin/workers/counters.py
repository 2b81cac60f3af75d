"""Adds up what workers count, so that totals survive the workers.

A worker reports absolute totals since its own start. Those of a worker that has ended are kept; what it still had
open ended with it, for the reason ``internal`` unless it was drained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from proxy.messages import DURATION_BOUNDS_S, Count, Counters, DialCount, DurationCount
from proxy.model import CloseReason

Key = tuple[str, str, str]
"""``(service, source, reason)``; the reason is empty for connections that are still open."""


RequestKey = tuple[str, str, str, str]
"""``(service, source, code class, reason)``"""


@dataclass(frozen=True, slots=True)
class Sum:
    connections: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0

    def __add__(self, other: Sum) -> Sum:
        return Sum(
            self.connections + other.connections,
            self.bytes_received + other.bytes_received,
            self.bytes_sent + other.bytes_sent,
        )


@dataclass(frozen=True, slots=True)
class Dials:
    """Of one service, over all workers; see :class:`proxy.messages.DialCount`."""

    failures: int = 0
    ejections: int = 0
    shortages: int = 0

    def __add__(self, other: Dials | DialCount) -> Dials:
        return Dials(self.failures + other.failures, self.ejections + other.ejections, self.shortages + other.shortages)


@dataclass(frozen=True, slots=True)
class Durations:
    """Of requests of one service that were answered alike; see :class:`proxy.messages.DurationCount`."""

    buckets: tuple[int, ...] = (0,) * (len(DURATION_BOUNDS_S) + 1)
    sum_s: float = 0.0

    def __add__(self, other: Durations | DurationCount) -> Durations:
        buckets = tuple(one + more for one, more in zip(self.buckets, other.buckets, strict=True))
        return Durations(buckets, self.sum_s + other.sum_s)


@dataclass(slots=True)
class Totals:
    sums: dict[Key, Sum] = field(default_factory=dict)
    open_connections: int = 0
    pending_handshakes: int = 0
    accepted: int = 0
    policy_closed: int = 0
    dials: dict[str, Dials] = field(default_factory=dict)
    """By service, of those that had any trouble."""
    requests: dict[RequestKey, int] = field(default_factory=dict)
    durations: dict[tuple[str, str], Durations] = field(default_factory=dict)
    """By service and code class."""
    access_log_lines_dropped: int = 0
    log_lines_dropped: int = 0
    audit_log_lines_dropped: int = 0

    def add(self, counters: Counters) -> None:
        for count in counters.counts:
            self._count(count, count.reason)
        self.open_connections += counters.open_connections
        self.pending_handshakes += counters.pending_handshakes
        self._monotonic(counters)

    def add_ended(self, counters: Counters, *, reason: CloseReason) -> None:
        """Take over the totals of a worker that has ended; ``reason`` is why its last connections did."""
        for count in counters.counts:
            self._count(count, count.reason or reason.value)
        self._monotonic(counters)

    def _monotonic(self, counters: Counters) -> None:
        self.accepted += counters.accepted
        self.policy_closed += counters.policy_closed
        for count in counters.dials:
            self.dials[count.service] = self.dials.get(count.service, Dials()) + count
        for one in counters.requests:
            key = (one.service, one.source, one.code_class, one.reason)
            self.requests[key] = self.requests.get(key, 0) + one.requests
        for durations in counters.durations:
            labels = (durations.service, durations.code_class)
            self.durations[labels] = self.durations.get(labels, Durations()) + durations
        self.access_log_lines_dropped += counters.access_log_lines_dropped
        self.log_lines_dropped += counters.log_lines_dropped
        self.audit_log_lines_dropped += counters.audit_log_lines_dropped

    def _count(self, count: Count, reason: str) -> None:
        key = (count.service, count.source, reason)
        self.sums[key] = self.sums.get(key, Sum()) + Sum(count.connections, count.bytes_received, count.bytes_sent)


def totals(ended: Totals, live: Iterable[Counters]) -> Totals:
    """Everything counted so far, by workers that have ended and by those that run."""
    result = replace(
        ended,
        sums=dict(ended.sums),
        dials=dict(ended.dials),
        requests=dict(ended.requests),
        durations=dict(ended.durations),
    )
    for counters in live:
        result.add(counters)
    return result


OTHER = "other"
MOST_SERVICES = 2_000
MOST_SOURCES = 1_000
MOST_COMBINATIONS = 10_000


class Bound:
    """Bounds the values of one label: once ``most`` are known, further ones count as ``other``.

    A value that has been shown stays so: a counter must not go down. Empty is none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._admitted: set[str] = set()

    def shown(self, value: str) -> str:
        if value and value not in self._admitted:
            if len(self._admitted) >= self._most:
                return OTHER
            self._admitted.add(value)
        return value


class Cardinality:
    """Bounds the label combinations that are exported: once ``limit`` are known, new sources count as ``other``.

    Services and sources have bounds of their own, too. A combination that has been exported on its own stays so: a
    counter must not go down.
    """

    def __init__(
        self, limit: int = MOST_COMBINATIONS, *, services: Bound | None = None, sources: Bound | None = None
    ) -> None:
        self._limit = limit
        self._services = services or Bound(MOST_SERVICES)
        self._sources = sources or Bound(MOST_SOURCES)
        self._admitted: set[tuple[str, ...]] = set()

    def bounded(self, sums: Mapping[Key, Sum]) -> dict[Key, Sum]:
        result: dict[Key, Sum] = {}
        for (service, source, reason), value in sums.items():
            shown_service, shown_source = self._shown(service, source, reason)
            shown = (shown_service, shown_source, reason)
            result[shown] = result.get(shown, Sum()) + value
        return result

    def bounded_requests(self, requests: Mapping[RequestKey, int]) -> dict[RequestKey, int]:
        result: dict[RequestKey, int] = {}
        for (service, source, code_class, reason), number in requests.items():
            shown = (*self._shown(service, source, code_class, reason), code_class, reason)
            result[shown] = result.get(shown, 0) + number
        return result

    def _shown(self, service: str, source: str, *more: str) -> tuple[str, str]:
        service, source = self._services.shown(service), self._sources.shown(source)
        key = (service, source, *more)
        if key not in self._admitted:
            if len(self._admitted) >= self._limit:
                return service, OTHER
            self._admitted.add(key)
        return service, source
