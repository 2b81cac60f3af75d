"""The page of the conformance cases: that it holds every case, and what it says of each."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.conformance import report
from tests.conformance.case import TABLE, Case, Row, Verdict, conformance

ROOT = Path(__file__).parents[3]


def case(**fields: object) -> Case:
    known = {"topic": "Links", "sentence": "It works", "envoy": {"web": "echo"}, "ours": {"web": "echo"}}
    return Case(**known | fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def declared() -> list[Case]:
    """Every case of the project."""
    for path in sorted((ROOT / "tests" / "conformance").glob("test_*.py")):
        importlib.import_module(f"tests.conformance.{path.stem}")
    return list(TABLE.declared)


def test_every_case_is_on_the_page(declared: list[Case]) -> None:
    """``make conformance`` writes it anew."""
    shown = (ROOT / "docs" / "conformance.md").read_text()
    missing = [one.sentence for one in declared if f"| {report.cell(one.sentence)} |" not in shown]
    assert missing == [], "run `make conformance`"


def test_no_case_is_on_the_page_that_fails_or_is_gone(declared: list[Case]) -> None:
    shown = (ROOT / "docs" / "conformance.md").read_text()
    assert f"| {Verdict.UNEXPLAINED} | 0 |" in shown
    lines = [line for line in shown.splitlines() if line.startswith("| ") and line.count(" | ") == 3]
    assert len(lines) == len(declared), "run `make conformance`"


@pytest.mark.parametrize(
    ("envoy", "ours", "verdict"),
    [
        ({"web": "echo"}, {"web": "echo"}, Verdict.SAME),
        ({"web": "echo"}, {"web": "refused"}, Verdict.UNEXPLAINED),
        ({"web": "refused"}, {"web": "refused"}, Verdict.UNEXPLAINED),
        ("failed: nothing came", {"web": "echo"}, Verdict.UNEXPLAINED),
    ],
)
def test_only_what_the_case_says_is_the_same(envoy: object, ours: object, verdict: Verdict) -> None:
    assert Row(case(), envoy, ours).verdict is verdict  # type: ignore[arg-type]


def test_a_difference_needs_a_decision_and_a_decision_a_difference() -> None:
    with pytest.raises(TypeError, match="decision"):
        conformance("Links", "differs", envoy={"a": 1}, ours={"a": 2})
    with pytest.raises(TypeError, match="decision"):
        conformance("Links", "does not differ", expect={"a": 1}, decision="004")
    with pytest.raises(TypeError, match="what to expect"):
        conformance("Links", "expects nothing")


def test_the_page_counts_and_tells_facts() -> None:
    better = case(sentence="It is | better", ours={"web": "refused", "seen": True}, decision="004")
    rows = [Row(better, better.envoy, better.ours), Row(case(), {"web": "echo"}, {"web": "echo"})]
    shown = report.page(rows)
    assert "| same | 1 |\n| better on purpose | 1 |\n| different | 0 |" in shown
    assert "| It works | same | web: echo | the same |" in shown
    linked = "better ([004](decisions/004-unlinked-services.md))"
    assert rf"| It is \| better | {linked} | web: echo | web: refused; seen: yes |" in shown
