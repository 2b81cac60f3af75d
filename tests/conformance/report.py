"""The page of all cases, for people who consider the change from Envoy's gateway."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.conformance.case import Observation, Row, Verdict

_DECISIONS = Path(__file__).parents[2] / "docs" / "decisions"
_HEAD = """\
# Conformance

Written by `make conformance`, which runs every case against Envoy's terminating gateway (`consul connect envoy
-gateway=terminating`) and against this one, on the same Consul. A case in which both do the same is *same*; where this
gateway differs, it is *better on purpose* and the decision says why. Anything else fails the tests.
"""


def page(rows: Sequence[Row]) -> str:
    """Markdown. Topics and cases in alphabetical order: the page does not depend on the order of the run."""
    ordered = sorted(rows, key=lambda row: (row.case.topic, row.case.sentence))
    counts = Counter(row.verdict for row in ordered)
    parts = [_HEAD, "| | Cases |\n|---|--:|"]
    parts[-1] += "".join(f"\n| {verdict} | {counts[verdict]} |" for verdict in Verdict)
    for topic, group in groupby(ordered, key=lambda row: row.case.topic):
        parts.append(f"\n## {topic}\n\n| Case | | Envoy | consul-tgw |\n|---|---|---|---|")
        parts[-1] += "".join("\n" + _line(row) for row in group)
    return "\n".join(parts) + "\n"


def _line(row: Row) -> str:
    case = row.case
    verdict = str(row.verdict)
    if row.verdict is Verdict.BETTER:
        (path,) = _DECISIONS.glob(f"{case.decision}-*.md")
        verdict = f"better ([{case.decision}](decisions/{path.name}))"
    ours = "the same" if row.verdict is Verdict.SAME else _facts(row.ours)
    return f"| {cell(case.sentence)} | {verdict} | {cell(_facts(row.envoy))} | {cell(ours)} |"


def _facts(observation: Observation | str) -> str:
    if isinstance(observation, str):
        return observation
    return "; ".join(f"{name}: {_value(value)}" for name, value in observation.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(_value(one) for one in value) or "none"
    return str(value)


def cell(text: str) -> str:
    """``text`` as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
