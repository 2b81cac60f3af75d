"""Prometheus metrics, computed when they are asked for from the status and the workers' totals.

Nothing is counted here. Labels are bounded: services are those linked, reasons are a closed list, and sources beyond a
limit are summed up as ``other``.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from plugin.admin.request_metrics import request_metrics
from plugin.admin.view import GatewayView
from plugin.life import Phase
from plugin.status import Status
from plugin.workers.counters import Cardinality, Dials, Key, Sum, Totals
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


class GatewayCollector:
    """Yields every metric of one gateway; registered with a ``prometheus_client`` registry."""

    def __init__(self, view: GatewayView) -> None:
        self._view = view
        self._cardinality = Cardinality()
        self._requests = Cardinality()

    def collect(self) -> Iterator[Metric]:
        status, totals = self._view.status(), self._view.totals()
        yield from _process(status)
        yield from _traffic(self._cardinality.bounded(totals.sums), status, totals)
        yield from request_metrics(self._requests, totals)
        yield from _dials(status, totals)
        yield from _services(status)
        yield from _watches(status)
        yield from _ages(status)


def exposition(collector: GatewayCollector) -> bytes:
    """The text format of https://prometheus.io/docs/instrumenting/exposition_formats/."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"consul_tgw_{name}", text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"consul_tgw_{name}", text, value=value)


def _process(status: Status) -> Iterator[Metric]:
    build = {"version": status.version, "python": platform.python_version()}
    yield InfoMetricFamily("consul_tgw_build", "The running program.", value=build)
    yield _gauge("ready", "1 when registered, with a known mesh, and with every worker up to date.", status.ready)
    yield _gauge("generation", "Number of the newest state.", status.generation)
    yield _gauge("start_time_seconds", "When the control process started, Unix time.", status.started_at_s)
    yield _counter("worker_restarts", "Workers that ended unasked and were replaced.", status.worker_restarts)
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
    yield _gauge("workers", "Workers that are running, without those that drain.", len(generation.samples))


def _traffic(sums: dict[Key, Sum], status: Status, totals: Totals) -> Iterator[Metric]:
    labels = ["service", "source"]
    closed = CounterMetricFamily(
        "consul_tgw_connections_closed", "Connections that ended, by reason.", labels=[*labels, "reason"]
    )
    opened = GaugeMetricFamily("consul_tgw_connections_open", "Live connections.", labels=labels)
    received = CounterMetricFamily(
        "consul_tgw_received_bytes", "From callers towards the external service.", labels=labels
    )
    sent = CounterMetricFamily("consul_tgw_sent_bytes", "From the external service towards callers.", labels=labels)
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
    yield _counter("connections_accepted", "Connections accepted by all workers.", totals.accepted)
    yield _gauge("handshakes_pending", "Connections whose handshake is not finished.", totals.pending_handshakes)
    yield _counter("policy_closed", "Live connections that a change of policy ended.", totals.policy_closed)
    yield _counter(
        "access_log_lines_dropped", "Access log lines that their target did not take.", totals.access_log_lines_dropped
    )
    yield _counter(
        "log_lines_dropped", "Log lines of all processes that standard error did not take.", totals.log_lines_dropped
    )


def _dials(status: Status, totals: Totals) -> Iterator[Metric]:
    failures = CounterMetricFamily(
        "consul_tgw_dial_failures",
        "Attempts that an endpoint refused or did not answer; one connection may make several.",
        labels=["service"],
    )
    ejections = CounterMetricFamily(
        "consul_tgw_endpoint_ejections",
        "How often an endpoint was left out for a while because dialling it failed again and again, in any worker.",
        labels=["service"],
    )
    shortages = CounterMetricFamily(
        "consul_tgw_dial_shortages",
        "Attempts that failed because this machine lacks file descriptors, local ports or memory.",
        labels=["service"],
    )
    names = {service.name for service in status.services} | totals.dials.keys()
    for name in sorted(names):
        dials = totals.dials.get(name, Dials())
        failures.add_metric([name], dials.failures)
        ejections.add_metric([name], dials.ejections)
        shortages.add_metric([name], dials.shortages)
    yield from (failures, ejections, shortages)


def _services(status: Status) -> Iterator[Metric]:
    now_s = time.time()
    linked = GaugeMetricFamily("consul_tgw_services", "Linked services.", labels=["state"])
    served = sum(service.served for service in status.services)
    linked.add_metric(["served"], served)
    linked.add_metric(["unserved"], len(status.services) - served)
    problems = GaugeMetricFamily(
        "consul_tgw_service_problems", "Reasons why the newest state cannot be served.", labels=["service"]
    )
    expiry = GaugeMetricFamily(
        "consul_tgw_leaf_expiry_seconds", "Seconds until the leaf of a service expires.", labels=["service"]
    )
    endpoints = GaugeMetricFamily("consul_tgw_endpoints", "Endpoints of a service.", labels=["service", "healthy"])
    for service in status.services:
        problems.add_metric([service.name], len(service.reasons))
        if service.leaf_expires_at_s:
            expiry.add_metric([service.name], service.leaf_expires_at_s - now_s)
        if service.served:
            healthy = sum(endpoint.healthy for endpoint in service.endpoints)
            endpoints.add_metric([service.name, "true"], healthy)
            endpoints.add_metric([service.name, "false"], len(service.endpoints) - healthy)
    yield from (linked, problems, expiry, endpoints)
    if status.root_expires_at_s:
        yield _gauge("root_expiry_seconds", "Seconds until the first root expires.", status.root_expires_at_s - now_s)


def _watches(status: Status) -> Iterator[Metric]:
    age = GaugeMetricFamily(
        "consul_tgw_watch_age_seconds", "Seconds since Consul last confirmed an answer.", labels=["watch"]
    )
    problem = GaugeMetricFamily(
        "consul_tgw_watch_problem", "1 while the newest attempt to ask Consul failed.", labels=["watch"]
    )
    for watch in status.watches:
        age.add_metric([watch.name], watch.age_s)
        problem.add_metric([watch.name], 1 if watch.problem else 0)
    yield from (age, problem)


def _ages(status: Status) -> Iterator[Metric]:
    kinds = GaugeMetricFamily(
        "consul_tgw_fact_age_seconds", "Seconds since Consul last confirmed a kind of fact.", labels=["kind"]
    )
    for kind, age_s in sorted(status.fact_ages_s.items()):
        kinds.add_metric([kind], age_s)
    yield kinds
    if status.state_age_s is not None:
        yield _gauge("state_age_seconds", "Seconds since Consul last confirmed the whole state.", status.state_age_s)
    yield _gauge("state_too_old", "1 while new connections are denied for the age of the state.", status.too_old)
    text = "1 while a saved state is in force that Consul has not confirmed yet."
    yield _gauge("saved_state_in_force", text, bool(status.restored_from_s))
    yield _gauge("consul_away", "1 while Consul is only asked whether it is back.", bool(status.consul_away))
