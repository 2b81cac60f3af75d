"""The state of the gateway as the page has it: what is new since the last look, from the status and the totals.

Pure, and in time proportional to the number of services and of counters. Nothing is kept of what is not shown.
"""

from __future__ import annotations

import heapq

from plugin.admin.dashboard.model import Flow, Head, Refusal, Tick, Traffic
from plugin.admin.dashboard.rates import Latencies, Rates
from plugin.admin.dashboard.remedies import REFUSALS, remedy
from plugin.answers.status import ServiceStatus, Status
from plugin.workers.counters import Totals

MOST_FLOWS = 150
MOST_REFUSALS = 200
_FAILED = frozenset({"5xx", "none"})
_Pair = tuple[str, str]
_Refused = tuple[str, str, str, str]
"""``(service, source, reason, what)``"""


class Picture:
    def __init__(self) -> None:
        self._seen_at_s = 0.0
        self._head: Head | None = None
        self._services: dict[str, ServiceStatus] = {}
        self._traffic: dict[str, Traffic] = {}
        self._flows: tuple[tuple[Flow, ...], int] = ((), 0)
        self._refusals: dict[_Refused, Refusal] = {}
        self._refused: dict[_Refused, int] = {}
        self._shown: tuple[tuple[Refusal, ...], int] = ((), 0)
        self._received: Rates[str] = Rates()
        self._sent: Rates[str] = Rates()
        self._bytes: Rates[_Pair] = Rates()
        self._denials: Rates[_Pair] = Rates()
        self._requests: Rates[str] = Rates()
        self._errors: Rates[str] = Rates()
        self._latencies = Latencies()
        self._refused_per_s = 0.0

    def whole(self) -> Tick:
        """Everything as of the last :meth:`update`."""
        assert self._head is not None
        return Tick(
            head=self._head,
            services=tuple(self._services.values()),
            traffic=tuple(self._traffic.values()),
            flows=self._flows[0],
            flows_left_out=self._flows[1],
            refusals=self._shown[0],
            refusals_left_out=self._shown[1],
        )

    def update(self, status: Status, totals: Totals, now_s: float) -> Tick:
        """What is new at ``now_s``."""
        seconds = max(0.1, now_s - self._seen_at_s)
        services = {one.name: one for one in status.services}
        changed = tuple(one for name, one in services.items() if self._services.get(name) != one)
        gone = tuple(name for name in self._services if name not in services)
        self._services = services
        traffic, flows = self._new_traffic(totals, seconds)
        self._head = _head(status, totals, now_s, self._refused_per_s)
        refusals = self._new_refusals(totals, now_s, status.service)
        self._seen_at_s = now_s
        return Tick(
            head=self._head,
            services=changed,
            gone=gone,
            traffic=traffic,
            flows=self._flows[0] if flows else None,
            flows_left_out=self._flows[1],
            refusals=self._shown[0] if refusals else None,
            refusals_left_out=self._shown[1],
        )

    def _new_traffic(self, totals: Totals, seconds: float) -> tuple[tuple[Traffic, ...], bool]:
        opened: dict[_Pair, int] = {}
        received: dict[str, int] = {}
        sent: dict[str, int] = {}
        both: dict[_Pair, int] = {}
        refused: dict[_Pair, int] = {}
        for (service, source, reason), one in totals.sums.items():
            pair = (service, source)
            received[service] = received.get(service, 0) + one.bytes_received
            sent[service] = sent.get(service, 0) + one.bytes_sent
            both[pair] = both.get(pair, 0) + one.bytes_received + one.bytes_sent
            if not reason:
                opened[pair] = opened.get(pair, 0) + one.connections
            elif reason in REFUSALS:
                refused[pair] = refused.get(pair, 0) + one.connections
        requests: dict[str, int] = {}
        errors: dict[str, int] = {}
        for (service, source, code_class, reason), number in totals.requests.items():
            requests[service] = requests.get(service, 0) + number
            if code_class in _FAILED:
                errors[service] = errors.get(service, 0) + number
            if reason in REFUSALS:
                refused[service, source] = refused.get((service, source), 0) + number
        buckets: dict[str, tuple[int, ...]] = {}
        for (service, _), durations in totals.durations.items():
            old = buckets.get(service)
            new = durations.buckets
            buckets[service] = new if old is None else tuple(a + b for a, b in zip(old, new, strict=True))
        in_, out = self._received.update(received, seconds), self._sent.update(sent, seconds)
        asked, failed = self._requests.update(requests, seconds), self._errors.update(errors, seconds)
        took = self._latencies.update(buckets)
        by_service: dict[str, int] = {}
        for (service, _), number in opened.items():
            by_service[service] = by_service.get(service, 0) + number
        traffic: dict[str, Traffic] = {}
        for name in by_service.keys() | in_.keys() | out.keys() | asked.keys() | took.keys():
            p50, p95 = took.get(name, (0.0, 0.0))
            traffic[name] = Traffic(
                name,
                by_service.get(name, 0),
                _rounded(in_.get(name, 0.0)),
                _rounded(out.get(name, 0.0)),
                _rounded(asked.get(name, 0.0)),
                _rounded(failed.get(name, 0.0)),
                p50,
                p95,
            )
        quiet = [Traffic(name) for name in self._traffic if name not in traffic]
        changed = [one for name, one in traffic.items() if self._traffic.get(name) != one]
        self._traffic = traffic
        rates, denials = self._bytes.update(both, seconds), self._denials.update(refused, seconds)
        self._refused_per_s = _rounded(sum(denials.values()))
        # Who was only ever refused stays; who was let in at some time is not called refused for what is long past.
        never = {pair for pair in refused if not both.get(pair)}
        pairs = [pair for pair in opened.keys() | rates.keys() | denials.keys() | never if all(pair)]
        ranked = ((-rates.get(pair, 0.0), -denials.get(pair, 0.0), -opened.get(pair, 0), pair) for pair in pairs)
        greatest = heapq.nsmallest(MOST_FLOWS, ranked)
        flows = (
            tuple(
                Flow(*pair, -opened_, _rounded(-rate), _rounded(-denial), refused.get(pair, 0))
                for rate, denial, opened_, pair in greatest
            ),
            len(pairs) - len(greatest),
        )
        differ, self._flows = flows != self._flows, flows
        return (*changed, *quiet), differ

    def _new_refusals(self, totals: Totals, now_s: float, gateway: str) -> bool:
        """Whether there are any since the last look."""
        counted: dict[_Refused, int] = {}
        for (service, source, reason), one in totals.sums.items():
            if reason in REFUSALS:
                counted[service, source, reason, "connection"] = one.connections
        for (service, source, _, reason), number in totals.requests.items():
            if reason in REFUSALS:
                key = (service, source, reason, "request")
                counted[key] = counted.get(key, 0) + number
        new = [key for key, count in counted.items() if self._refused.get(key) != count]
        if not new:
            return False
        seen_at_s = now_s if self._seen_at_s else 0.0
        for key in new:
            service, source, reason, what = key
            said = remedy(reason, service=service, source=source, gateway=gateway)
            self._refusals[key] = Refusal(
                service=service,
                source=source,
                reason=reason,
                what=what,
                count=counted[key],
                seen_at_s=seen_at_s,
                why=said.why,
                remedy=said.remedy,
                command=said.command,
            )
        newest = sorted(self._refusals, key=lambda key: (-self._refusals[key].seen_at_s, -self._refusals[key].count))
        self._refusals = {key: self._refusals[key] for key in newest[:MOST_REFUSALS]}
        self._refused = counted
        self._shown = (tuple(self._refusals.values()), max(0, len(counted) - MOST_REFUSALS))
        return True


def _head(status: Status, totals: Totals, now_s: float, refused_per_s: float) -> Head:
    return Head(
        now_s=now_s,
        service=status.service,
        address=status.address,
        version=status.version,
        consul_version=status.consul_version,
        datacenter=status.datacenter,
        default_action=status.default_action,
        phase=status.phase,
        ready=status.ready,
        not_ready=status.not_ready,
        generation=status.generation,
        started_at_s=status.started_at_s,
        registration=status.registration,
        state_age_s=status.state_age_s,
        max_state_age_s=status.max_state_age_s,
        too_old=status.too_old,
        consul_away=status.consul_away,
        restored_from_s=status.restored_from_s,
        root_expires_at_s=status.root_expires_at_s,
        warnings=status.warnings,
        watch_problems=tuple(f"{one.name}: {one.problem}" for one in status.watches if one.problem)[:20],
        workers=status.workers,
        worker_restarts=status.worker_restarts,
        accepted=totals.accepted,
        open_connections=totals.open_connections,
        pending_handshakes=totals.pending_handshakes,
        refused_per_s=refused_per_s,
    )


def _rounded(rate: float) -> float:
    """So that what hardly changes is not sent again."""
    return round(rate) if rate >= 100 else round(rate, 1)
