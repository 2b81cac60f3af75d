"""The page of the soak: what its generator writes, and that the page in the documentation is of that shape."""

from __future__ import annotations

import re
from pathlib import Path

from soak import report
from soak.chaos import FAULTS
from soak.figures import Figures, Flood

ROOT = Path(__file__).parents[3]


def figures(**fields: object) -> Figures:
    known: dict[str, object] = {
        "seed": 7,
        "seconds": 600.0,
        "pumps": 12,
        "idle": 150,
        "open_connections": 170,
        "counts": {"requests": 9000, "rounds": 40000},
        "faults": dict.fromkeys(FAULTS, 5),
        "bad_inputs": {"garbage": 200},
        "verified_bytes": 12345678,
        "leaf_renewals": 9,
        "violations": (),
        "effects": 10,
        "effect_median_s": 0.25,
        "effect_worst_s": 2.5,
        "resident_before_kib": 150000,
        "resident_after_kib": 151000,
        "descriptors_most": 400,
        "samples": 590,
    }
    return Figures(**known | fields)  # type: ignore[arg-type]


def test_the_page_is_of_the_generators_shape() -> None:
    shown = (ROOT / "docs" / "reliability.md").read_text()
    assert [line for line in shown.splitlines() if line.startswith("## ")] == list(report.HEADINGS)
    for name in FAULTS:
        assert re.search(rf"^\| {re.escape(name)} \| [1-9][\d,]* \|$", shown, re.MULTILINE), f"{name}: run `make soak`"
    for name in report.losses(figures()):
        assert f"| {name} | 0 |" in shown
    written = report.page(figures(), [], 0)
    assert shown.partition("## Method")[2] == written.partition("## Method")[2], "run `make soak`"


def test_the_headings_are_those_that_are_written() -> None:
    written = report.page(figures(), [], 0)
    assert [line for line in written.splitlines() if line.startswith("## ")] == list(report.HEADINGS)
    assert "| bytes verified | 12,345,678 |" in written
    assert "worst | 2,500 ms |" in written


def test_losses_are_counted_by_kind() -> None:
    found = report.losses(
        figures(violations=("wrongly closed: a to b", "wrong bytes within 3", "a clean end: truncated", "mute"))
    )
    assert list(found.values()) == [2, 0, 1, 1]


def test_floods_and_corpora_are_folded_in(tmp_path: Path) -> None:
    flood = Flood(
        name="silent",
        tried=2000,
        seconds=9.6,
        legitimate_requests=500,
        lost=0,
        p50_ms=1.25,
        p99_ms=9.0,
        fds_before=40,
        fds_after=40,
        rss_before_kib=50000,
        rss_after_kib=50500,
    )
    written = report.page(figures(), [flood], 33)
    assert "| silent | 2,000 in 10 s | 500 | 0 | 1.2 ms | 9.0 ms | 40 to 40 | 50,000 to 50,500 KiB |" in written
    assert "| entries of the fuzz corpora, run with the tests | 33 |" in written
    assert report.floods_of(tmp_path / "floods.json") == []


def test_corpora_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "frames" / "corpus"
    folder.mkdir(parents=True)
    (folder / "one").write_bytes(b"1")
    (tmp_path / "notes").write_text("not one")
    assert report.corpus_size((tmp_path, tmp_path / "absent")) == 1
