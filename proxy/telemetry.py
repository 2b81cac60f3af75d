"""Counting what the worker does. Pure: numbers in, :class:`proxy.messages.Counters` out."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.messages import Count, Counters, DialCount


class Telemetry:
    """Totals since the worker started."""

    def __init__(self) -> None:
        self._closed: dict[tuple[str, str, str], list[int]] = {}
        self._dials: dict[str, list[int]] = {}
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

    def counters(
        self,
        live: Iterable[tuple[str, str, int, int]],
        pending_handshakes: int,
        *,
        access_log_lines_dropped: int = 0,
        log_lines_dropped: int = 0,
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
            access_log_lines_dropped=access_log_lines_dropped,
            log_lines_dropped=log_lines_dropped,
        )
