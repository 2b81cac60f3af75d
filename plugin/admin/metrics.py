"""Prometheus metrics, computed when they are asked for from the status and the workers' totals.

Nothing is counted here. Labels are bounded: reasons, phases and states are closed lists, and the names of services,
callers and watches beyond a limit are summed up as ``other`` (:mod:`plugin.workers.counters`).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from plugin.admin.family import counter, gauge
from plugin.admin.request_metrics import request_metrics
from plugin.admin.service_metrics import service_metrics
from plugin.admin.view import GatewayView
from plugin.answers.status import Status
from plugin.process.life import Phase
from plugin.workers.counters import MOST_SERVICES, MOST_SOURCES, Bound, Cardinality, Key, Sum, Totals
from proxy.model import CloseReason

REFUSALS = frozenset(
    {
        CloseReason.NOT_TLS,
        CloseReason.NO_SERVER_NAME,
        CloseReason.UNKNOWN_SERVER_NAME,
        CloseReason.NO_CERTIFICATE,
        CloseReason.UNTRUSTED_CERTIFICATE,
        CloseReason.BAD_IDENTITY,
        CloseReason.TLS_FAILED,
        CloseReason.HANDSHAKE_TIMEOUT,
    }
)
"""Reasons for which a connection ends before its caller is authenticated."""
MOST_WATCHES = 50
"""Kinds of watch; there are about fifteen."""


class GatewayCollector:
    """Yields every metric of one gateway; registered with a ``prometheus_client`` registry."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view
        self._services = services = Bound(MOST_SERVICES)
        sources = Bound(MOST_SOURCES)
        self._cardinality = Cardinality(services=services, sources=sources)
        self._requests = Cardinality(services=services, sources=sources)
        self._watch_kinds = Bound(MOST_WATCHES)

    def collect(self) -> Iterator[Metric]:
        status, totals = self._view.status(), self._view.totals()
        yield from _process(status)
        yield from _open_files(status)
        yield from _traffic(self._cardinality.bounded(totals.sums), totals)
        yield from request_metrics(self._requests, totals, self._services)
        yield from service_metrics(status, totals, self._services)
        yield from _watches(status, self._watch_kinds)
        yield from _ages(status)


def exposition(collector: GatewayCollector, accept: str = "") -> tuple[bytes, str]:
    """What is shown to somebody who sends the header ``Accept``, and its type.

    The text format of https://prometheus.io/docs/instrumenting/exposition_formats/, or OpenMetrics 1.0 for those who
    name it, as Prometheus does.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _process(status: Status) -> Iterator[Metric]:
    build = {"version": status.version, "python": platform.python_version()}
    yield InfoMetricFamily("consul_tgw_build", "The running program.", value=build)
    yield gauge("ready", "1 when registered, with a known mesh, and with every worker up to date.", status.ready)
    registration = status.registration
    passing = registration.check == "passing" if registration.wanted else status.ready
    yield gauge(
        "passing",
        "1 when the agent was last told that the gateway is well; if somebody else registers it, as consul_tgw_ready.",
        passing,
    )
    yield gauge("generation", "Number of the newest state.", status.generation)
    yield gauge("start_time_seconds", "When the control process started, Unix time.", status.started_at_s)
    yield counter("worker_restarts", "Workers that ended unasked and were replaced.", status.worker_restarts)
    yield counter("reloads", "How often all processes were replaced since the first start.", status.reloads)
    phase = GaugeMetricFamily("consul_tgw_phase", "1 for the phase that the gateway is in.", labels=["phase"])
    for one in Phase:
        phase.add_metric([one.value], one.value == status.phase)
    yield phase
    generation = GaugeMetricFamily(
        "consul_tgw_worker_generation", "Number of the newest state in force in a worker.", labels=["worker"]
    )
    for worker in status.workers:
        if not worker.draining:
            generation.add_metric([str(worker.index)], worker.generation)
    yield generation
    yield gauge("workers", "Workers that are running, without those that drain.", len(generation.samples))


def _open_files(status: Status) -> Iterator[Metric]:
    opened = GaugeMetricFamily(
        "consul_tgw_open_fds", "File descriptors that a process has open, at its last report.", labels=["process"]
    )
    most = GaugeMetricFamily("consul_tgw_max_fds", "File descriptors that a process may have open.", labels=["process"])
    rows = [("control", status.open_files, status.most_files)]
    rows += [(f"worker {one.index}", one.open_files, one.most_files) for one in status.workers if not one.draining]
    for process, number, limit in rows:
        if number:
            opened.add_metric([process], number)
        if limit:
            most.add_metric([process], limit)
    yield from (opened, most)


def _traffic(sums: dict[Key, Sum], totals: Totals) -> Iterator[Metric]:
    labels = ["service", "source"]
    closed = CounterMetricFamily(
        "consul_tgw_connections_closed", "Connections that ended, by reason.", labels=[*labels, "reason"]
    )
    opened = GaugeMetricFamily("consul_tgw_connections_open", "Live connections.", labels=labels)
    received = CounterMetricFamily(
        "consul_tgw_received_bytes", "From callers towards the external service.", labels=labels, unit="bytes"
    )
    sent = CounterMetricFamily(
        "consul_tgw_sent_bytes", "From the external service towards callers.", labels=labels, unit="bytes"
    )
    refused = dict.fromkeys(sorted(REFUSALS), 0)
    by_caller: dict[tuple[str, str], Sum] = {}
    for (service, source, reason), value in sums.items():
        by_caller[service, source] = by_caller.get((service, source), Sum()) + value
        if reason:
            closed.add_metric([service, source, reason], value.connections)
        else:
            opened.add_metric([service, source], value.connections)
        if reason in REFUSALS:
            refused[CloseReason(reason)] += value.connections
    for (service, source), value in by_caller.items():
        received.add_metric([service, source], value.bytes_received)
        sent.add_metric([service, source], value.bytes_sent)
    refusals = CounterMetricFamily(
        "consul_tgw_handshakes_refused", "Connections that ended before the caller was known.", labels=["reason"]
    )
    for why, number in refused.items():
        refusals.add_metric([why.value], number)
    yield from (closed, opened, received, sent, refusals)
    yield counter("connections_accepted", "Connections accepted by all workers.", totals.accepted)
    yield gauge("handshakes_pending", "Connections whose handshake is not finished.", totals.pending_handshakes)
    yield counter("policy_closed", "Live connections that a change of policy ended.", totals.policy_closed)
    yield counter(
        "access_log_lines_dropped", "Access log lines that their target did not take.", totals.access_log_lines_dropped
    )
    yield counter(
        "audit_log_lines_dropped",
        "Audit log lines of all processes that the file did not take.",
        totals.audit_log_lines_dropped,
    )
    yield counter(
        "log_lines_dropped", "Log lines of all processes that standard error did not take.", totals.log_lines_dropped
    )


def _watches(status: Status, kinds: Bound) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "consul_tgw_watch_age_seconds",
        "Seconds since Consul last confirmed an answer, the oldest one of its kind.",
        labels=["watch"],
        unit="seconds",
    )
    failing = GaugeMetricFamily(
        "consul_tgw_watches_failing", "Watches whose newest attempt to ask Consul failed.", labels=["watch"]
    )
    ages: dict[str, float] = {}
    problems: dict[str, int] = {}
    for watch in status.watches:
        # One service's are called "leaf of billing-db".
        kind = kinds.shown(watch.name.partition(" of ")[0])
        ages[kind] = max(ages.get(kind, 0.0), watch.age_s)
        problems[kind] = problems.get(kind, 0) + bool(watch.problem)
    for kind, age_s in ages.items():
        age.add_metric([kind], age_s)
        failing.add_metric([kind], problems[kind])
    yield from (age, failing)


def _ages(status: Status) -> Iterator[Metric]:
    kinds = GaugeMetricFamily(
        "consul_tgw_fact_age_seconds",
        "Seconds since Consul last confirmed a kind of fact.",
        labels=["kind"],
        unit="seconds",
    )
    for kind, age_s in sorted(status.fact_ages_s.items()):
        kinds.add_metric([kind], age_s)
    yield kinds
    if status.state_age_s is not None:
        yield gauge("state_age_seconds", "Seconds since Consul last confirmed the whole state.", status.state_age_s)
    yield gauge("state_too_old", "1 while new connections are denied for the age of the state.", status.too_old)
    text = "1 while a saved state is in force that Consul has not confirmed yet."
    yield gauge("saved_state_in_force", text, bool(status.restored_from_s))
    yield gauge("consul_away", "1 while Consul is only asked whether it is back.", bool(status.consul_away))
