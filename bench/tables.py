"""Rows as cells: numbers, spreads, goals and verdicts, for the terminal and for pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench.figures import Goal, Measure, Row, Spread


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def spread(values: Spread | None, digits: int) -> str:
    """``12.0 (11.0 to 13.0)``."""
    if values is None:
        return "-"
    if values.rounds == 1:
        return number(values.median, digits)
    return f"{number(values.median, digits)} ({number(values.lowest, digits)} to {number(values.highest, digits)})"


def median(values: Spread | None, digits: int) -> str:
    return "-" if values is None else number(values.median, digits)


def goal(measure: Measure) -> str:
    if measure.own_goal is not None:
        return f"{_bound(measure.own_goal, measure.digits)} {measure.unit}"
    return f"{_bound(measure.ratio_goal, 2)} x" if measure.ratio_goal is not None else "-"


def _bound(wanted: Goal, digits: int) -> str:
    return f"{'at least' if wanted.at_least else 'at most'} {wanted.value:.{digits}f}"


def verdict(row: Row) -> str:
    return {None: "-", True: "met", False: "missed"}[row.met]


def cells(row: Row) -> tuple[str, ...]:
    """Name, unit, Envoy, ours, ratio, goal, verdict."""
    measure = row.measure
    return (
        measure.name,
        measure.unit,
        spread(row.envoy, measure.digits),
        spread(row.ours, measure.digits),
        spread(row.ratio, 2),
        goal(measure),
        verdict(row),
    )


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """A table; its first ``left`` columns are text, the others numbers."""
    rule = "".join("---|" if index < left else "--:|" for index in range(len(headings)))
    return [_line(headings), f"|{rule}", *map(_line, rows)]


def _line(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"
