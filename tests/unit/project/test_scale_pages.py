"""The pages of `make scale`: every figure that was measured is there, and the arithmetic follows from it."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bench.scale import capacity, page
from bench.scale.capacity import Line
from bench.scale.control import Figures
from bench.scale.costs import Cost
from bench.scale.crowd import CrowdFigures, DecisionFigures
from bench.scale.many import ManyFigures
from bench.scale.run import Outcome


def figures(label: str, services: int, factor: float = 1.0) -> Figures:
    return Figures(
        label=label,
        services=services,
        ready_s=services / 50,
        again_s=services / 400,
        start=Cost(1_000 + services * factor, 500.0),
        memory_mib={"control process": 50 + services / 50, "worker": 40 + services / 100},
        connections=57,
        idle=Cost(1.0 + services / 1_000, 2.0),
        changes={"an intention": Cost(3.25 * factor, 7.5)},
        quiet_ms=[5.0, 6.0, 7.0],
        storm_ms=[50.0, 60.0] if services == 1_000 else [],
        storm_per_s=98.5,
        storm=Cost(120.0, 900.0),
        commands_s={"consul-tgw status": 0.75},
    )


@pytest.fixture
def outcome() -> Outcome:
    return Outcome(
        figures=[figures(label, services) for services in (100, 1_000) for label in ("consul-tgw", "Envoy")],
        crowd=CrowdFigures(
            connections=10_000,
            sources=500,
            workers=2,
            denied=20,
            ended=20,
            others_ended=0,
            ended_ms=12.5,
            latency_us={"before": (100.0, 200.0, 300.0)},
            memory_mib={"control process": 80.0, "worker": 206.25},
            commands_s={"consul-tgw connections": 1.5},
        ),
        decisions=DecisionFigures(decision_us={1_000: 4.5}, effect_ms={1_000: 8.0}),
        many=ManyFigures(
            services=10_000, ready_s=20.5, cpu_s=18.5, requests=20_120, connections=45, memory_mib={"worker": 250.0}
        ),
        agent_mib={"the catalog alone": 160.0},
        failed=["Envoy, 300 services: it did not start\nthe end of its log"],
    )


def test_the_page_has_both_gateways_and_what_could_not_be_measured(outcome: Outcome) -> None:
    text = page.page(outcome, {"Consul": "1.21.0"})
    assert "| Start until all are served, s | 20.0 | 20.0 |" in text
    assert "| CPU when an intention, gateway, ms | 3.2 | 3.2 |" in text
    assert "| The same in a storm of changes, p99, ms | 60.0 | 60.0 |" in text
    assert "| Of these, ended | 20 |" in text
    assert "| 1,000 | 4.5 | 8.0 |" in text
    assert "- Not measured: Envoy, 300 services: it did not start\n" in text
    assert "## 10,000 services by `*`" in text
    assert "| Requests until then | 20,120 |" in text
    assert "| Consul | 1.21.0 |" in text


def test_every_picture_is_shown_and_can_be_read(outcome: Outcome) -> None:
    text = page.page(outcome, {})
    drawn = page.pictures(outcome)
    assert drawn
    for name, picture in drawn.items():
        ElementTree.fromstring(picture)
        assert f"(pictures/{name})" in text


def test_capacity_is_arithmetic_from_the_figures(outcome: Outcome) -> None:
    found = capacity.costs(outcome)
    assert found.control_mib.at(2_000) == pytest.approx(90.0)
    assert found.worker_mib.at(0) == pytest.approx(40.0)
    # 5,000 connections in each worker, of which 1,000 services make 50 MiB of the 206.25.
    assert found.connection_kib == pytest.approx((206.25 - 50) * 1024 / 5_000)
    text = capacity.page(outcome)
    assert "| First start, s | services / 50 | 2 | 20 | 100 |" in text
    assert "| Leaves to sign when all start for the first time | gateways x services | 300 | 10,000 | 50,000 |" in text
    assert "| Time for that, s | leaves / 50 | 6 | 200 | 1,000 |" in text


@pytest.mark.parametrize(
    ("points", "at_nothing", "each"),
    [([(100, 1.0)], 1.0, 0.0), ([(100, 1.0), (300, 3.0)], 0.0, 0.01), ([(0, 0), (1, 1), (2, 5)], -0.5, 2.5)],
)
def test_a_line_is_drawn_through_what_was_measured(
    points: list[tuple[float, float]], at_nothing: float, each: float
) -> None:
    line = Line.through(points)
    assert line.at_nothing == pytest.approx(at_nothing)
    assert line.each == pytest.approx(each)


def test_nothing_measured_of_ours_is_said() -> None:
    with pytest.raises(ValueError, match="no figures"):
        capacity.costs(Outcome())
