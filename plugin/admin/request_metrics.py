"""Prometheus metrics of requests: how many of each caller, how answered and why, and how long they took."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from plugin.workers.counters import Bound, Cardinality, Durations, Totals
from proxy.messages import DURATION_BOUNDS_S


def request_metrics(cardinality: Cardinality, totals: Totals, services: Bound) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "consul_tgw_requests",
        "Requests of services of http, http2 and grpc that have ended, by class of the status and by reason.",
        labels=["service", "source", "code", "reason"],
    )
    for labels, number in cardinality.bounded_requests(totals.requests).items():
        requests.add_metric(labels, number)
    durations = HistogramMetricFamily(
        "consul_tgw_request_duration_seconds",
        "From the head of a request until its response is complete.",
        labels=["service", "code"],
        unit="seconds",
    )
    shown: dict[tuple[str, str], Durations] = {}
    for (service, code_class), one in totals.durations.items():
        key = (services.shown(service), code_class)
        shown[key] = shown.get(key, Durations()) + one
    for (service, code_class), one in shown.items():
        reached, buckets = 0, []
        for bound, number in zip((*map(str, DURATION_BOUNDS_S), "+Inf"), one.buckets, strict=True):
            reached += number
            buckets.append((bound, float(reached)))
        durations.add_metric([service, code_class], buckets, one.sum_s)
    yield from (requests, durations)
