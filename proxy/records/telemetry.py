"""Counting what the worker does. Pure: numbers in, :class:`proxy.messages.Counters` out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from proxy.messages import DURATION_BOUNDS_S, Count, Counters, DialCount, DurationCount, RequestCount

_CLASSES = {number: f"{number}xx" for number in range(1, 6)}


class Telemetry:
    """Totals since the worker started."""

    def __init__(self) -> None:
        self._closed: dict[tuple[str, str, str], list[int]] = {}
        self._dials: dict[str, list[int]] = {}
        self._requests: dict[tuple[str, str, str, str], int] = {}
        self._durations: dict[tuple[str, str], _Durations] = {}
        self.accepted = 0
        self.policy_closed = 0

    def closed(self, service: str, source: str, reason: str, received: int, sent: int) -> None:
        """One connection has ended. ``received`` and ``sent`` are bytes from and to the client."""
        totals = self._closed.setdefault((service, source, reason), [0, 0, 0])
        totals[0] += 1
        totals[1] += received
        totals[2] += sent

    def dialled(self, service: str, failures: int, ejections: int, shortages: int) -> None:
        """Attempts of one connection have failed; the numbers are of that connection."""
        totals = self._dials.setdefault(service, [0, 0, 0])
        totals[0] += failures
        totals[1] += ejections
        totals[2] += shortages

    def requested(self, service: str, source: str, status: int, reason: str, duration_s: float) -> None:
        """One request has ended. ``status`` of 0: nothing was answered."""
        code_class = _CLASSES.get(status // 100, "none")
        labels = (service, source, code_class, reason)
        self._requests[labels] = self._requests.get(labels, 0) + 1
        durations = self._durations.get((service, code_class))
        if durations is None:
            durations = self._durations[service, code_class] = _Durations()
        durations.note(duration_s)

    def counters(
        self,
        live: Iterable[tuple[str, str, int, int]],
        pending_handshakes: int,
        *,
        access_log_lines_dropped: int = 0,
        log_lines_dropped: int = 0,
        audit_log_lines_dropped: int = 0,
        open_files: int = 0,
        most_files: int = 0,
    ) -> Counters:
        """``live`` has (service, source, bytes received, bytes sent) of every open connection."""
        open_totals: dict[tuple[str, str], list[int]] = {}
        open_connections = 0
        for service, source, received, sent in live:
            open_connections += 1
            totals = open_totals.setdefault((service, source), [0, 0, 0])
            totals[0] += 1
            totals[1] += received
            totals[2] += sent
        counts = [Count(*labels, *totals) for labels, totals in self._closed.items()]
        counts += [Count(service, source, "", *totals) for (service, source), totals in open_totals.items()]
        return Counters(
            counts=tuple(counts),
            open_connections=open_connections,
            pending_handshakes=pending_handshakes,
            accepted=self.accepted,
            policy_closed=self.policy_closed,
            dials=tuple(DialCount(service, *numbers) for service, numbers in self._dials.items()),
            requests=tuple(RequestCount(*labels, number) for labels, number in self._requests.items()),
            durations=tuple(
                DurationCount(service, code_class, tuple(one.buckets), one.sum_s)
                for (service, code_class), one in self._durations.items()
            ),
            access_log_lines_dropped=access_log_lines_dropped,
            log_lines_dropped=log_lines_dropped,
            audit_log_lines_dropped=audit_log_lines_dropped,
            open_files=open_files,
            most_files=most_files,
        )


class _Durations:
    """A histogram."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(DURATION_BOUNDS_S) + 1)
        self.sum_s = 0.0

    def note(self, duration_s: float) -> None:
        self.buckets[bisect_left(DURATION_BOUNDS_S, duration_s)] += 1
        self.sum_s += duration_s
