"""Names, units, texts and bounds of metrics; alerts, dashboard and the page are held to the real exposition."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from plugin.admin.metrics import GatewayCollector, exposition
from plugin.answers.status import EndpointStatus, ServiceStatus, Status, WatchStatus, WorkerStatus
from plugin.process.life import Phase
from plugin.workers.counters import MOST_COMBINATIONS, MOST_SERVICES, MOST_SOURCES, OTHER, Durations, Sum, Totals
from proxy.messages import DURATION_BOUNDS_S
from proxy.model import CloseReason
from tests.support.promql import Selector, used
from tests.unit.plugin.admin.test_admin import READY, TOTALS, View

ROOT = Path(__file__).resolve().parents[4]
ALERTS = ROOT / "packaging" / "monitoring" / "alerts.yaml"
DASHBOARD = ROOT / "packaging" / "monitoring" / "grafana.json"
PAGE = ROOT / "docs" / "reference" / "metrics.md"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
NOT_BASE_UNITS = ("milliseconds", "ms", "minutes", "hours", "days", "kilobytes", "kb", "mb", "percent", "usec")
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus itself adds."""

FULL = msgspec.structs.replace(
    READY,
    services=(
        ServiceStatus(
            name="legacy",
            served=True,
            leaf_expires_at_s=9e9,
            endpoints=(EndpointStatus("10.0.0.1:1"), EndpointStatus("10.0.0.2:1", healthy=False)),
        ),
        ServiceStatus(name="broken", served=False, reasons=("no CAFile",)),
    ),
    workers=(
        WorkerStatus(
            index=0,
            pid=2,
            generation=7,
            adopted=False,
            draining=False,
            connected=True,
            started_at_s=1.0,
            open_files=40,
            most_files=1024,
        ),
    ),
    watches=(WatchStatus(name="leaf of legacy", known=True, age_s=3.0), WatchStatus(name="roots", known=True)),
    phase=Phase.SERVING.value,
    root_expires_at_s=9e9,
    state_age_s=1.0,
    fact_ages_s={"intentions": 1.0},
    open_files=30,
    most_files=1024,
)
BUCKETS = (1, *[0] * len(DURATION_BOUNDS_S))


def totals() -> Totals:
    return Totals(
        sums={**TOTALS.sums, ("legacy", "web", "denied"): Sum(7)},
        accepted=10,
        dials=TOTALS.dials,
        requests={("legacy", "web", "4xx", "denied"): 5, ("legacy", "web", "2xx", "completed"): 1},
        durations={("legacy", "2xx"): Durations(BUCKETS, 0.1)},
    )


class FullView(View):
    def __init__(self, shown: Status = FULL, counted: Totals | None = None) -> None:
        super().__init__(shown)
        self._counted = counted or totals()

    def totals(self) -> Totals:
        return self._counted


def families(view: View | None = None) -> list[Metric]:
    body, content_type = exposition(GatewayCollector(view or FullView()))
    assert content_type.startswith("text/plain; version=0.0.4")
    return list(parse_text(body.decode()))


@pytest.fixture(scope="module")
def shown() -> dict[str, Metric]:
    return {family.name: family for family in families()}


def test_names_and_texts_follow_the_conventions(shown: dict[str, Metric]) -> None:
    assert len(shown) > 30
    for name, family in shown.items():
        assert re.fullmatch(r"consul_tgw_[a-z]+(_[a-z]+)*", name), name
        words = name.split("_")
        assert not set(words) & set(NOT_BASE_UNITS), name
        assert "total" not in words, name
        assert family.type != "unknown", name
        assert re.fullmatch(r"[A-Z0-9][^\n]{10,}\.", family.documentation), (name, family.documentation)
        samples = {sample.name for sample in family.samples}
        assert samples, f"{name} has no sample: the populated view does not cover it"
        if family.type == "counter":
            assert samples == {f"{name}_total"}, name
        for sample in family.samples:
            for label in sample.labels:
                assert re.fullmatch(r"[a-z]+(_[a-z]+)*", label), (name, label)
                assert label == "le" or family.type == "gauge" or label not in words, (name, label)


def test_ages_and_moments_say_their_unit(shown: dict[str, Metric]) -> None:
    for name in shown:
        if re.search(r"_(age|duration|expiry|time)(_|$)", name):
            assert name.endswith("_seconds"), name
        if "expiry" in name:
            assert name.endswith("_timestamp_seconds"), name


def test_open_metrics_for_those_who_accept_it(shown: dict[str, Metric]) -> None:
    body, content_type = exposition(GatewayCollector(FullView()), OPEN_METRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    parsed: Iterable[Metric] = parse_open_metrics(body.decode())  # type: ignore[no-untyped-call]
    found = {family.name: family for family in parsed}
    assert {name.removesuffix("_info") for name in shown} == found.keys()
    for name, family in found.items():
        if name.endswith(("_seconds", "_bytes")):
            assert family.unit == name.rpartition("_")[2], name


def test_every_label_is_bounded() -> None:
    names = [f"s{number}" for number in range(MOST_SERVICES + 500)]
    sources = [f"c{number}" for number in range(MOST_SOURCES + 500)]
    services = tuple(
        ServiceStatus(name=name, served=True, leaf_expires_at_s=1e9 + number, reasons=("x",))
        for number, name in enumerate(names)
    )
    watches = tuple(WatchStatus(name=f"leaf of {name}", known=True, age_s=2.0, problem="x") for name in names)
    many = Totals(
        sums={(names[0], source, "denied"): Sum(1) for source in sources},
        requests={(name, sources[0], "2xx", "completed"): 1 for name in names},
        durations={(name, "2xx"): Durations(BUCKETS, 0.1) for name in names},
    )
    view = FullView(msgspec.structs.replace(FULL, services=services, watches=watches), many)
    found = {family.name: family for family in families(view)}
    for name, family in found.items():
        for label in {label for sample in family.samples for label in sample.labels}:
            values = {sample.labels[label] for sample in family.samples if label in sample.labels}
            most = {"service": MOST_SERVICES + 1, "source": MOST_SOURCES + 1}.get(label, 60)
            assert len(values) <= most, (name, label, len(values))
        assert len(family.samples) <= (MOST_COMBINATIONS + MOST_SERVICES) * 25, name
    rest = {s.labels["service"]: s.value for s in found["consul_tgw_service_problems"].samples}
    assert rest[OTHER] == 500
    first = {s.labels["service"]: s.value for s in found["consul_tgw_leaf_expiry_timestamp_seconds"].samples}
    assert first[OTHER] == 1e9 + MOST_SERVICES
    [failing] = found["consul_tgw_watches_failing"].samples
    assert (failing.labels, failing.value) == ({"watch": "leaf"}, len(names))


def test_denials_are_there_before_the_first_one(shown: dict[str, Metric]) -> None:
    values = {sample.labels["service"]: sample.value for sample in shown["consul_tgw_denials"].samples}
    assert values == {"legacy": 12.0, "broken": 0.0}


def alert_rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panel_expressions() -> Iterator[tuple[str, str]]:
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def labels_by_sample(families: dict[str, Metric]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in families.values():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def complaints(expression: str, known: dict[str, set[str]]) -> list[str]:
    """What of ``expression`` no gateway exposes."""
    parts, found = used(expression), []
    labels: set[str] = set(OF_PROMETHEUS)
    for selector in parts.selectors:
        if selector.metric not in known:
            found.append(f"no metric {selector.metric}")
            continue
        labels |= known[selector.metric]
        found += _matcher_complaints(selector, known[selector.metric] | OF_PROMETHEUS)
    return found + [f"no label {label}" for label in parts.grouped_by - labels]


def _matcher_complaints(selector: Selector, labels: set[str]) -> Iterator[str]:
    closed: dict[str, set[str]] = {
        "reason": {one.value for one in CloseReason},
        "state": {"served", "unserved"},
        "healthy": {"true", "false"},
    }
    for label, operator, value in selector.matchers:
        if label not in labels:
            yield f"{selector.metric} has no label {label}"
        elif label in closed and operator == "=" and value not in closed[label]:
            yield f"{label} is never {value}"


def test_alerts_use_what_there_is(shown: dict[str, Metric]) -> None:
    known, rules = labels_by_sample(shown), alert_rules()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 9
    for rule in rules:
        assert complaints(rule["expr"], known) == [], rule["alert"]
        assert used(rule["expr"]).selectors, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "remedy"} == rule["annotations"].keys(), rule["alert"]
        labels = {label for one in used(rule["expr"]).selectors for label in known[one.metric]} | OF_PROMETHEUS
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            assert label in labels, (rule["alert"], label)


def test_the_dashboard_uses_what_there_is(shown: dict[str, Metric]) -> None:
    known, expressions = labels_by_sample(shown), list(panel_expressions())
    assert len(expressions) > 20
    for title, expression in expressions:
        assert complaints(expression, known) == [], title
    dashboard = json.loads(DASHBOARD.read_text())
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            assert label in known[metric] | OF_PROMETHEUS
    places = [tuple(panel["gridPos"].values()) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places)


def test_every_metric_is_on_the_dashboard_or_in_an_alert_that_an_operator_needs(shown: dict[str, Metric]) -> None:
    texts = " ".join([*(rule["expr"] for rule in alert_rules()), *(one for _, one in panel_expressions())])
    for name in ("open_fds", "denials", "dial_failures", "service_unserved", "state_age_seconds", "passing"):
        assert f"consul_tgw_{name}" in texts


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("consul_tgw_made_up > 0", "no metric consul_tgw_made_up"),
        ("rate(consul_tgw_denials[5m])", "no metric consul_tgw_denials"),
        ("sum by (colour) (consul_tgw_ready)", "no label colour"),
        ('consul_tgw_ready{service="x"}', "consul_tgw_ready has no label service"),
        ('consul_tgw_connections_closed_total{reason="bored"}', "reason is never bored"),
    ],
)
def test_what_no_gateway_exposes_is_found(shown: dict[str, Metric], expression: str, complaint: str) -> None:
    assert complaints(expression, labels_by_sample(shown)) == [complaint]


@pytest.mark.parametrize("expression", ["sum(", "frobnicate(consul_tgw_ready)", "consul_tgw_ready{x}", "a $ b"])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"unbalanced|no function|no label matcher|not understood"):
        used(expression)


def rows(families: dict[str, Metric]) -> list[str]:
    """The table of the page, one line for each metric, by name."""
    table = []
    for name, family in sorted(families.items()):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        exposed = f"{name}_total" if family.type == "counter" else name
        shown_labels = ", ".join(f"`{label}`" for label in labels)
        table.append(f"| `{exposed}` | {family.type} | {shown_labels} | {family.documentation} |")
    return table


def test_the_page_has_every_metric_and_no_other(shown: dict[str, Metric]) -> None:
    on_page = [line for line in PAGE.read_text().splitlines() if line.startswith("| `consul_tgw_")]
    assert on_page == rows(shown)
