"""Counters of connections and requests by service and caller: what ``consul-tgw top`` makes rates of. Pure."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from plugin.workers.counters import Totals
from proxy.messages import DURATION_BOUNDS_S
from proxy.model import CloseReason

DENIALS = frozenset(
    {
        CloseReason.DENIED,
        CloseReason.REVOKED,
        CloseReason.POLICY_UNKNOWN,
        CloseReason.STALE_STATE,
        CloseReason.OVER_LIMIT,
        CloseReason.NOT_TLS,
        CloseReason.NO_SERVER_NAME,
        CloseReason.UNKNOWN_SERVER_NAME,
        CloseReason.NO_CERTIFICATE,
        CloseReason.UNTRUSTED_CERTIFICATE,
        CloseReason.BAD_IDENTITY,
    }
)
"""The gateway did not let somebody in, or no longer."""
ERRORS = frozenset(
    {
        CloseReason.NO_ENDPOINTS,
        CloseReason.DIAL_FAILED,
        CloseReason.DIAL_TIMEOUT,
        CloseReason.EXHAUSTED,
        CloseReason.UPSTREAM_TLS_FAILED,
        CloseReason.UPSTREAM_RESET,
        CloseReason.BAD_REQUEST,
        CloseReason.BAD_RESPONSE,
        CloseReason.REQUEST_TIMEOUT,
        CloseReason.TLS_FAILED,
        CloseReason.HANDSHAKE_TIMEOUT,
        CloseReason.FLOOD,
        CloseReason.INTERNAL,
    }
)
"""Something did not work."""


class TrafficRow(msgspec.Struct, kw_only=True):
    """Totals since the gateway started, but for ``open``."""

    service: str
    """Empty: a connection that did not get as far as a service."""
    source: str
    """``peer:name`` of the caller; empty when it is not authenticated."""
    open: int = 0
    """Live connections."""
    connections: int = 0
    """All so far, the live ones among them."""
    requests: int = 0
    denied: int = 0
    """Connections and requests, see ``DENIALS``."""
    errors: int = 0
    bytes_received: int = 0
    """From the caller."""
    bytes_sent: int = 0


class ServiceDurations(msgspec.Struct, frozen=True):
    """Of requests, how many took how long."""

    service: str
    buckets: tuple[int, ...]
    """One more than there are ``bounds_s``."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``/api/traffic``."""

    at_s: float
    """Monotonic time of the gateway's machine: what rates are made with."""
    rows: tuple[TrafficRow, ...]
    durations: tuple[ServiceDurations, ...]
    bounds_s: tuple[float, ...] = DURATION_BOUNDS_S


def traffic(totals: Totals) -> Traffic:
    rows: dict[tuple[str, str], TrafficRow] = {}

    def row(service: str, source: str) -> TrafficRow:
        found = rows.get((service, source))
        if found is None:
            found = rows[service, source] = TrafficRow(service=service, source=source)
        return found

    for (service, source, reason), one in totals.sums.items():
        counted = row(service, source)
        counted.connections += one.connections
        counted.bytes_received += one.bytes_received
        counted.bytes_sent += one.bytes_sent
        if not reason:
            counted.open += one.connections
        counted.denied += one.connections if reason in DENIALS else 0
        counted.errors += one.connections if reason in ERRORS else 0
    for (service, source, _, reason), number in totals.requests.items():
        counted = row(service, source)
        counted.requests += number
        counted.denied += number if reason in DENIALS else 0
        counted.errors += number if reason in ERRORS else 0
    buckets: dict[str, tuple[int, ...]] = {}
    for (service, _), durations in totals.durations.items():
        before = buckets.get(service, (0,) * len(durations.buckets))
        buckets[service] = tuple(map(sum, zip(before, durations.buckets, strict=True)))
    return Traffic(
        at_s=time.monotonic(),
        rows=tuple(rows[key] for key in sorted(rows)),
        durations=tuple(ServiceDurations(service, found) for service, found in sorted(buckets.items())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Between two readings, a second."""

    service: str
    source: str
    """Empty in the row of a whole service."""
    open: int = 0
    connections: float = 0.0
    requests: float = 0.0
    denied: float = 0.0
    errors: float = 0.0
    received: float = 0.0
    sent: float = 0.0
    p50_s: float | None = None
    p99_s: float | None = None
    """Of requests; of a whole service alone. ``None`` without any."""

    @property
    def busy(self) -> float:
        return self.received + self.sent + self.connections + self.requests


def rates(before: Traffic, after: Traffic, *, by_source: bool) -> list[Rates]:
    """Of each service, the busiest first, and with ``by_source`` below it of each caller."""
    passed_s = max(after.at_s - before.at_s, 1e-3)
    earlier = {(one.service, one.source): one for one in before.rows}
    of_callers: dict[str, list[Rates]] = {}
    for one in after.rows:
        was = earlier.get((one.service, one.source)) or TrafficRow(service=one.service, source=one.source)
        of_callers.setdefault(one.service, []).append(_rates(was, one, passed_s))
    histograms = {one.service: one.buckets for one in before.durations}
    new = {
        one.service: tuple(
            max(0, now - then)
            for now, then in zip(one.buckets, histograms.get(one.service, (0,) * len(one.buckets)), strict=True)
        )
        for one in after.durations
    }
    result: list[Rates] = []
    whole = {service: _sum(service, each, new.get(service, ()), after.bounds_s) for service, each in of_callers.items()}
    for service in sorted(whole, key=lambda name: (-whole[name].busy, name)):
        result.append(whole[service])
        if by_source:
            known = [one for one in of_callers[service] if one.source]
            result += sorted(known, key=lambda one: (-one.busy, one.source))
    return result


def _rates(was: TrafficRow, one: TrafficRow, passed_s: float) -> Rates:
    def rate(now: int, then: int) -> float:
        return max(0, now - then) / passed_s

    return Rates(
        service=one.service,
        source=one.source,
        open=one.open,
        connections=rate(one.connections, was.connections),
        requests=rate(one.requests, was.requests),
        denied=rate(one.denied, was.denied),
        errors=rate(one.errors, was.errors),
        received=rate(one.bytes_received, was.bytes_received),
        sent=rate(one.bytes_sent, was.bytes_sent),
    )


def _sum(service: str, each: list[Rates], buckets: tuple[int, ...], bounds_s: tuple[float, ...]) -> Rates:
    return Rates(
        service=service,
        source="",
        open=sum(one.open for one in each),
        connections=sum(one.connections for one in each),
        requests=sum(one.requests for one in each),
        denied=sum(one.denied for one in each),
        errors=sum(one.errors for one in each),
        received=sum(one.received for one in each),
        sent=sum(one.sent for one in each),
        p50_s=quantile(buckets, bounds_s, 0.5),
        p99_s=quantile(buckets, bounds_s, 0.99),
    )


def quantile(buckets: tuple[int, ...], bounds_s: tuple[float, ...], part: float) -> float | None:
    """Interpolated within its bucket, as Prometheus' ``histogram_quantile`` does; the last bucket has no upper end,
    and then it is the greatest bound."""
    total = sum(buckets)
    if not total:
        return None
    rank, reached, lower_s = part * total, 0, 0.0
    for number, upper_s in zip(buckets, bounds_s, strict=False):
        if number and reached + number >= rank:
            return lower_s + (upper_s - lower_s) * (rank - reached) / number
        reached += number
        lower_s = upper_s
    return bounds_s[-1]
