"""What the comparison keeps of its runs, and the pages that are written from it."""

from __future__ import annotations

import io
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from bench import beside, page, plot, report, results, tables
from bench.figures import ENVOY, OURS, Goal, Spread, compare
from bench.limits import HERE
from bench.measures import LIMITS, MEMORY_BASE, PARTS, SECTIONS
from bench.reasons import REASONS
from bench.results import Results, Run

DOCS = Path(__file__).resolve().parents[3] / "docs"
ALL = {measure.key: measure for part in PARTS for measure in SECTIONS[part]}


def run() -> Run:
    return Run(
        when="2026-01-02 03:04",
        machine={"Processor": "a fast one", "Envoy": "1.40.0"},
        placement="gateway on CPU 1, client and external service on CPU 0",
        tls="TLS 1.3, TLS_AES_128_GCM_SHA256, X25519, one certificate",
        pace="5 rounds of 2 s, 20 minutes in all",
        load=0.25,
        remarks=["shortened to be over in time: http 3 rounds of 1 s"],
    )


@pytest.fixture
def kept() -> Results:
    """Of two runs: the second has measured new connections again."""
    first = results.merged(
        Results(),
        run(),
        {
            "echo-256": {ENVOY: [20_000.0, 30_000.0], OURS: [22_000.0, 30_000.0], "HAProxy": [31_000.0]},
            "new-full": {ENVOY: [3_000.0], OURS: [2_000.0]},
            "limit-sign": {HERE: [40_000.0]},
            "limit-verify": {HERE: [20_000.0]},
            "limit-x25519": {HERE: [20_000.0]},
            "limit-handshake": {HERE: [4_000.0]},
        },
        {},
    )
    return results.merged(
        first, run(), {"new-full": {ENVOY: [3_000.0], OURS: [2_500.0]}}, {"new-full": "Only one round."}
    )


def row_of(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


class TestTables:
    def test_a_spread_shows_median_and_bounds(self) -> None:
        assert tables.spread(Spread.of([1000.0, 2000.0, 4000.0]), 0) == "2,000 (1,000 to 4,000)"
        assert tables.spread(Spread.of([0.5]), 2) == "0.50"
        assert tables.spread(None, 2) == "-"

    def test_goals_are_told_with_their_unit(self) -> None:
        assert tables.goal(ALL["bulk-up-1"]) == "at least 1.15 x"
        assert tables.goal(ALL["refused"]) == "at most 100.0 milliseconds"
        assert tables.goal(MEMORY_BASE) == "-"

    def test_verdicts(self) -> None:
        rounds = {ENVOY: [1.0, 1.0], OURS: [1.2, 1.1]}
        assert tables.verdict(compare(ALL["bulk-up-1"], rounds)) == "met"
        assert tables.verdict(compare(ALL["echo-p50"], rounds)) == "missed"
        assert tables.verdict(compare(MEMORY_BASE, rounds)) == "-"


class TestResults:
    def test_a_part_that_was_not_measured_again_keeps_its_run(self, kept: Results) -> None:
        assert (kept.rows["echo-256"].run, kept.rows["new-full"].run) == ("1", "2")
        assert list(kept.runs) == ["1", "2"]

    def test_a_run_of_which_nothing_is_left_is_forgotten(self, kept: Results) -> None:
        everything = {key: {OURS: [1.0]} for key in kept.rows}
        assert list(results.merged(kept, run(), everything, {}).runs) == ["3"]

    def test_what_is_written_is_read_again(self, kept: Results, tmp_path: Path) -> None:
        results.save(kept, tmp_path / "results.json")
        assert results.load(tmp_path / "results.json") == kept

    def test_there_need_not_be_any(self, tmp_path: Path) -> None:
        assert results.load(tmp_path / "none.json") == Results()

    def test_a_measure_that_is_no_more_is_not_shown(self, kept: Results) -> None:
        gone = results.merged(kept, run(), {"of-old": {OURS: [1.0]}}, {})
        assert "of-old" not in page.page(gone)


class TestPage:
    def test_each_row_says_from_which_run_it_is(self, kept: Results) -> None:
        text = page.page(kept)
        assert row_of(text, "New connections, full handshake")[2:] == [
            *("3,000", "2,500", "0.83", "at least 1.00 x", "missed", "2")
        ]
        assert row_of(text, "Messages of 128 bytes, 256 connections")[2:] == [
            *("25,000 (20,000 to 30,000)", "26,000 (22,000 to 30,000)", "1.05 (1.00 to 1.10)", "at least 1.00 x"),
            *("met", "1"),
        ]
        assert text.endswith("\n")

    def test_a_missed_goal_stands_beside_its_reason(self, kept: Results) -> None:
        missed = page.page(kept).split("## Missed goals")[1].split("\n## ")[0]
        assert row_of(missed, "New connections, full handshake")[1:3] == ["0.83", "at least 1.00 x"]
        assert REASONS["new-full"] in missed
        assert "256 connections" not in missed

    def test_a_miss_that_the_rounds_do_not_tell_from_the_goal_is_called_so(self) -> None:
        near = {"echo-p99": {ENVOY: [100.0, 100.0, 100.0], OURS: [99.0, 101.0, 120.0]}}
        far = {"echo-p50": {ENVOY: [100.0, 100.0, 100.0], OURS: [110.0, 111.0, 120.0]}}
        missed = page.page(results.merged(Results(), run(), {**near, **far}, {})).split("## Missed goals")[1]
        assert row_of(missed, ALL["echo-p99"].name)[3] == "Too near to tell: the rounds spread from 0.99 to 1.20."
        assert row_of(missed, ALL["echo-p50"].name)[3] == "Not looked into yet."

    def test_others_have_a_table_of_their_own(self, kept: Results) -> None:
        others = page.page(kept).split("## HAProxy and ghostunnel")[1].split("\n## ")[0]
        cells = row_of(others, "Messages of 128 bytes, 256 connections")
        assert cells[2:] == ["25,000", "26,000", "31,000", "-", "1"]

    def test_limits_come_with_the_arithmetic(self, kept: Results) -> None:
        limits = page.page(kept).split("## Limits")[1].split("\n## ")[0]
        assert "25 + 50 + 50 = 125 microseconds, and the library's handshake around them 250. A connection" in limits
        assert "costs 400 here" in limits
        assert "333 with Envoy" in limits

    def test_runs_notes_and_remarks_are_told(self, kept: Results) -> None:
        text = page.page(kept)
        assert "- Only one round." in text
        assert "- shortened to be over in time: http 3 rounds of 1 s" in text
        assert row_of(text.split("## Run 2")[1], "Envoy")[1] == "1.40.0"
        assert row_of(text.split("## Run 1")[1], "Figures")[1] == "echo, limits"
        assert row_of(text.split("## Run 2")[1], "Figures")[1] == "connections"

    def test_reasons_are_given_for_measures_that_there_are(self) -> None:
        assert set(REASONS) <= set(ALL)

    def test_every_part_is_shown(self) -> None:
        rounds = {key: {ENVOY: [1.0, 2.0], OURS: [1.0, 2.0], HERE: [1.0]} for key in ALL}
        text = page.page(results.merged(Results(), run(), rounds, {}))
        assert [measure.name for measure in ALL.values() if f"| {measure.name} |" not in text] == []
        assert len(ALL) == sum(len(SECTIONS[part]) for part in PARTS)


class TestPictures:
    def test_they_are_small_well_formed_and_have_colours_for_the_dark(self) -> None:
        rounds = {key: {ENVOY: [1.0, 2.0], OURS: [3.0, 4.0]} for key in ALL if ALL[key] not in LIMITS}
        drawn = page.pictures(results.merged(Results(), run(), rounds, {}))
        assert set(drawn) == {f"performance-{name}.svg" for name in ("ratios", "connections", "sizes")}
        for text in drawn.values():
            root = ElementTree.fromstring(text)
            assert root.tag.endswith("svg")
            assert "prefers-color-scheme: dark" in text
            assert len(text) < 30_000

    def test_a_bar_says_whether_its_goal_is_met(self) -> None:
        goal = Goal(value=1.0, at_least=True)
        bars = [plot.Bar(name=f"<{value}>", value=Spread(value, value, value, 1), goal=goal) for value in (0.9, 1.1)]
        text = plot.ratios("Ratios", "& goals", bars)
        assert (text.count('class="missed"'), text.count('class="met"')) == (1, 1)
        assert "&lt;0.9&gt;" in text

    def test_points_of_a_curve_lie_where_they_belong(self) -> None:
        text = plot.curves("Cost", "connections", {"one": [(1.0, 10.0), (10.0, 100.0), (100.0, 1_000.0)]})
        places = [
            (float(circle.attrib["cx"]), float(circle.attrib["cy"]))
            for circle in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}circle")
        ]
        (x1, y1), (x2, y2), (x3, y3) = places
        assert x1 < x2 < x3
        assert y1 > y2 > y3
        # Both axes are logarithmic: the middle one of equal factors is in the middle.
        assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
        assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)

    def test_more_curves_than_colours_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="5 series"):
            plot.curves("", "", {str(number): [(1.0, 1.0)] for number in range(5)})


class TestBeside:
    PAGE = f"before\n{beside.BEGIN}\n\nold | 99,999 |\n\n{beside.END}\nafter\n"

    def test_figures_are_filled_in_and_the_rest_stays(self, kept: Results) -> None:
        text = beside.filled(self.PAGE, kept)
        assert text.startswith(f"before\n{beside.BEGIN}\n")
        assert text.endswith(f"{beside.END}\nafter\n")
        assert "99,999" not in text
        assert row_of(text, "New mutual-TLS connections for each CPU second")[1:] == ["3,000", "2,500"]
        assert beside.filled(text, kept) == text

    def test_only_what_differs_beyond_the_rounds_is_called_better(self, kept: Results) -> None:
        text = beside.filled(self.PAGE, kept)
        assert "- Better with Envoy beyond the spread of rounds: new connections, full handshake (1.20 x)." in text
        assert "this gateway beyond" not in text

    def test_a_page_without_marks_is_an_error(self, kept: Results) -> None:
        with pytest.raises(ValueError, match="where do the figures go"):
            beside.filled("no marks", kept)


def test_the_terminal_shows_every_measure(kept: Results) -> None:
    output = io.StringIO()
    Console(file=output, width=120).print(report.table(results.rows(kept, ALL.values())))
    for text in ("New connections", "missed", "0.83", "256"):
        assert text in output.getvalue()


def test_the_pages_are_those_of_what_is_kept() -> None:
    kept = results.load()
    assert (DOCS / "performance.md").read_text() == page.page(kept), "write them again: make bench ARGS=--pages"
    compared = (DOCS / "comparison.md").read_text()
    assert compared == beside.filled(compared, kept)
    for name, drawn in page.pictures(kept).items():
        assert (DOCS / "pictures" / name).read_text() == drawn
