"""Prometheus metrics of each linked service: whether it is served, its leaf, its endpoints, what went wrong.

Every linked service has every counter from the start, with 0: what appears only with the first failure is missed by
``rate()``. Services beyond the bound are one, ``other``: numbers are summed up, and of leaves the first to expire
counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from plugin.admin.family import gauge
from plugin.answers.status import Status
from plugin.workers.counters import Bound, Dials, Totals
from proxy.model import CloseReason

DENIALS = frozenset({CloseReason.DENIED, CloseReason.POLICY_UNKNOWN, CloseReason.STALE_STATE})
"""Reasons for which a caller whose identity is known is not let in."""


def service_metrics(status: Status, totals: Totals, services: Bound) -> Iterator[Metric]:
    yield from _state(status, services)
    yield from _denials(status, totals, services)
    yield from _dials(status, totals, services)
    if status.root_expires_at_s:
        text = "When the first of the trusted roots expires, Unix time."
        yield gauge("root_expiry_timestamp_seconds", text, status.root_expires_at_s)


def _state(status: Status, services: Bound) -> Iterator[Metric]:
    linked = GaugeMetricFamily("consul_tgw_services", "Linked services.", labels=["state"])
    served = sum(service.served for service in status.services)
    linked.add_metric(["served"], served)
    linked.add_metric(["unserved"], len(status.services) - served)
    problems: dict[str, int] = {}
    expiry: dict[str, float] = {}
    endpoints: dict[tuple[str, bool], int] = {}
    unserved: dict[str, int] = {}
    for service in status.services:
        name = services.shown(service.name)
        problems[name] = problems.get(name, 0) + len(service.reasons)
        unserved[name] = unserved.get(name, 0) + (not service.served)
        if service.leaf_expires_at_s:
            expiry[name] = min(expiry.get(name, service.leaf_expires_at_s), service.leaf_expires_at_s)
        if service.served:
            healthy = sum(endpoint.healthy for endpoint in service.endpoints)
            for kind, number in ((True, healthy), (False, len(service.endpoints) - healthy)):
                endpoints[name, kind] = endpoints.get((name, kind), 0) + number
    yield linked
    yield _by_service("service_unserved", "1 while a linked service is not served at all.", unserved)
    yield _by_service("service_problems", "Reasons why the newest state of a service cannot be served.", problems)
    leaves = GaugeMetricFamily(
        "consul_tgw_leaf_expiry_timestamp_seconds",
        "When the leaf of a service expires, Unix time.",
        labels=["service"],
        unit="seconds",
    )
    for name, at_s in expiry.items():
        leaves.add_metric([name], at_s)
    yield leaves
    shown = GaugeMetricFamily("consul_tgw_endpoints", "Endpoints of a service.", labels=["service", "healthy"])
    for (name, kind), number in endpoints.items():
        shown.add_metric([name, "true" if kind else "false"], number)
    yield shown


def _by_service(name: str, text: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"consul_tgw_{name}", text, labels=["service"])
    for service, value in values.items():
        family.add_metric([service], value)
    return family


def _denials(status: Status, totals: Totals, services: Bound) -> Iterator[Metric]:
    """Connections and requests, whatever the reason and the caller: those are labels of other metrics."""
    numbers = dict.fromkeys((services.shown(service.name) for service in status.services), 0)
    for (service, _, reason), value in totals.sums.items():
        if reason in DENIALS:
            name = services.shown(service)
            numbers[name] = numbers.get(name, 0) + value.connections
    for (service, _, _, reason), number in totals.requests.items():
        if reason in DENIALS:
            name = services.shown(service)
            numbers[name] = numbers.get(name, 0) + number
    denied = CounterMetricFamily(
        "consul_tgw_denials",
        "Connections and requests of known callers that were not let in: by an intention, or for want of a state.",
        labels=["service"],
    )
    for name, number in numbers.items():
        denied.add_metric([name], number)
    yield denied


def _dials(status: Status, totals: Totals, services: Bound) -> Iterator[Metric]:
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
    shown: dict[str, Dials] = {}
    for name in sorted({service.name for service in status.services} | totals.dials.keys()):
        label = services.shown(name)
        shown[label] = shown.get(label, Dials()) + totals.dials.get(name, Dials())
    for label, dials in shown.items():
        failures.add_metric([label], dials.failures)
        ejections.add_metric([label], dials.ejections)
        shortages.add_metric([label], dials.shortages)
    yield from (failures, ejections, shortages)
