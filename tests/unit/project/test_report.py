"""How the outcome of a comparison is shown."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from bench import report
from bench.comparison import FULL, Outcome
from bench.figures import Goal, Measure, Row, Spread, compare
from bench.generator import Negotiated

_TLS = Negotiated("TLS 1.3", "TLS_AES_128_GCM_SHA256", "X25519", False)
_BULK = Measure(name="Bulk", unit="GiB per CPU second", digits=2, ratio_goal=Goal(value=0.95, at_least=True))
_ENDED = Measure(name="Live ended", unit="milliseconds", digits=1, own_goal=Goal(value=100.0, at_least=False))
_MACHINE = {"Processor": "a fast one", "Envoy": "1.40.0"}


@pytest.fixture
def outcome() -> Outcome:
    return Outcome(
        rows=[compare(_BULK, [1.0, 2.0], [0.5, 1.0]), compare(_ENDED, [], [12.0], note="Envoy: 20 of 20 stayed.")],
        tls={"Envoy": _TLS, "consul-tgw": _TLS},
        placement="gateway on CPU 1, client and external service on CPU 0",
        raw={"Bulk": {"Envoy": [1.0, 2.0], "consul-tgw": [0.5, 1.0]}},
    )


def test_a_spread_shows_median_and_bounds() -> None:
    assert report.spread(Spread.of([1000.0, 2000.0, 4000.0]), 0) == "2,000 (1,000 to 4,000)"
    assert report.spread(Spread.of([0.5]), 2) == "0.50"
    assert report.spread(None, 2) == "-"


def test_goals_are_told_with_their_unit() -> None:
    assert report.goal(_BULK) == "at least 0.95 x"
    assert report.goal(_ENDED) == "at most 100.0 milliseconds"
    assert report.goal(Measure(name="memory", unit="KiB")) == "-"


def test_verdicts(outcome: Outcome) -> None:
    assert [report.verdict(row) for row in outcome.rows] == ["missed", "met"]
    assert report.verdict(compare(Measure(name="memory", unit="KiB"), [1.0], [1.0])) == "-"


def _row_of(page: str, name: str) -> list[str]:
    line = next(line for line in page.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_a_line_for_each_measure_the_notes_and_the_machine(outcome: Outcome) -> None:
    page = report.page(outcome, FULL, _MACHINE)
    assert _row_of(page, "Bulk")[2:] == [
        *("1.50 (1.00 to 2.00)", "0.75 (0.50 to 1.00)", "0.50 (0.50 to 0.50)", "at least 0.95 x", "missed")
    ]
    assert _row_of(page, "Live ended")[2:] == ["-", "12.0", "-", "at most 100.0 milliseconds", "met"]
    assert "- Envoy: 20 of 20 stayed." in page
    assert _row_of(page, "Envoy")[1] == "1.40.0"
    assert str(_TLS) in page
    assert outcome.placement in page
    assert page.endswith("\n")


def test_the_table_shows_every_measure(outcome: Outcome) -> None:
    output = io.StringIO()
    Console(file=output, width=120).print(report.table(outcome))
    for text in ("Bulk", "Live ended", "missed", "0.50"):
        assert text in output.getvalue()


def test_the_json_keeps_every_round(outcome: Outcome) -> None:
    document = json.loads(report.as_json(outcome, FULL, _MACHINE))
    assert document["rounds"] == outcome.raw
    bulk, ended = document["rows"]
    assert bulk["ratio"]["median"] == 0.5
    assert bulk["met"] is False
    assert (ended["envoy"], ended["ours"]["median"]) == (None, 12.0)
    assert document["tls"]["Envoy"] == str(_TLS)


def test_a_row_without_rounds_of_envoy_has_no_ratio() -> None:
    row: Row = compare(_ENDED, [], [1.0, 2.0])
    assert report.spread(row.ratio, 2) == "-"
