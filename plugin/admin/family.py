"""Metrics of one value, by the rules of https://prometheus.io/docs/practices/naming/: the prefix, the unit in the
name."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

PREFIX = "consul_tgw_"
UNITS = ("seconds", "bytes")


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}{name}", text, value=value, unit=_unit(name))


def counter(name: str, text: str, value: float) -> Metric:
    """Without ``_total``, which the exposition adds."""
    return CounterMetricFamily(f"{PREFIX}{name}", text, value=value, unit=_unit(name))


def _unit(name: str) -> str:
    last = name.rpartition("_")[2]
    return last if last in UNITS else ""
