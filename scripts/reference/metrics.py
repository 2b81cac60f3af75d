"""Every metric, from the collector that makes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from prometheus_client.core import Metric

from plugin.admin.metrics import GatewayCollector
from plugin.admin.view import GatewayView
from plugin.answers.status import RegistrationStatus, Status
from plugin.workers.counters import Totals
from scripts.reference.text import table

_HEAD = """\
# Every metric

NOTICE
How to scrape them, how labels are bounded, alerts and a dashboard: [metrics.md](../metrics.md).

"""
_STATUS = Status(
    service="",
    service_id="",
    address="",
    version="",
    pid=0,
    started_at_s=0.0,
    ready=True,
    not_ready=(),
    generation=0,
    datacenter="",
    trust_domain="",
    default_action="",
    registration=RegistrationStatus(wanted=True, registered=True),
    services=(),
    workers=(),
    watches=(),
    root_expires_at_s=1.0,
    state_age_s=0.0,
)
"""Of a gateway that has a state; what is not known yet has no metric."""


class _View:
    def status(self) -> Status:
        return _STATUS

    def totals(self) -> Totals:
        return Totals(sums={}, accepted=0, dials={})


def page() -> str:
    families = sorted(GatewayCollector(cast(GatewayView, _View())).collect(), key=lambda one: one.name)
    return (_HEAD + table(("Metric", "Type", "Labels", ""), map(_row, families))).rstrip() + "\n"


def _row(family: Metric) -> tuple[str, str, str, str]:
    exposed = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)
    kind = "gauge" if family.type == "info" else family.type
    return f"`{exposed}`", kind, ", ".join(f"`{label}`" for label in sorted(set(_labels(family)))), family.documentation


def _labels(family: Metric) -> Iterator[str]:
    """Those that are declared, and of what has none declared those that it has."""
    declared: Any = getattr(family, "_labelnames", ())
    yield from declared
    for sample in family.samples:
        yield from sample.labels.keys() - {"le"}
