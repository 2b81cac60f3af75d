"""What is kept of runs: every round of the newest run of each measure, in ``bench/results.json``.

The pages are written from it, so that a run of some parts leaves the figures of others as they are, each with the run
that it is from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from bench.figures import Measure, Row, compare
from bench.world import Rounds

PATH = Path(__file__).resolve().parent / "results.json"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures of one run were measured with."""

    when: str
    """UTC."""
    machine: dict[str, str]
    """Part to version, in the order in which they are shown."""
    placement: str
    tls: str
    pace: str
    load: float
    """How many processes wanted a processor just before (load average of a minute)."""
    remarks: list[str] = []
    """What was shortened or left out."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One measure."""

    run: str
    rounds: dict[str, list[float]]
    """By label, before scaling."""
    note: str = ""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    runs: dict[str, Run] = {}
    rows: dict[str, Kept] = {}
    """By the key of the measure."""


def load(path: Path = PATH) -> Results:
    return msgspec.json.decode(path.read_bytes(), type=Results) if path.exists() else Results()


def save(results: Results, path: Path = PATH) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")


def merged(before: Results, run: Run, rounds: Mapping[str, Rounds], notes: Mapping[str, str]) -> Results:
    """``before`` with what a new run has found in place of what there was; runs that nothing is left of are dropped."""
    name = str(max((int(other) for other in before.runs), default=0) + 1)
    new = {key: Kept(run=name, rounds=_short(values), note=notes.get(key, "")) for key, values in rounds.items()}
    rows = {**before.rows, **new}
    used = {kept.run for kept in rows.values()}
    return Results(runs={key: one for key, one in {**before.runs, name: run}.items() if key in used}, rows=rows)


def rows(results: Results, measures: Iterable[Measure]) -> list[Row]:
    """Those that were measured, in the order of ``measures``."""
    kept = results.rows
    chosen = [measure for measure in measures if measure.key in kept]
    return [compare(one, kept[one.key].rounds, note=kept[one.key].note, run=kept[one.key].run) for one in chosen]


def _short(rounds: Rounds) -> Rounds:
    """Seven digits are more than any clock gives; the file is read by people as well."""
    return {label: [float(f"{value:.7g}") for value in values] for label, values in rounds.items()}
