"""Shows what a run has found on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from bench import tables
from bench.figures import Row


def table(rows: Iterable[Row]) -> Table:
    """Those in which our gateway has a figure."""
    shown = Table(title="consul-tgw beside Envoy: medians; ratio with its lowest and highest round")
    shown.add_column("")
    for heading in ("Envoy", "consul-tgw", "ratio", "goal", ""):
        shown.add_column(heading, justify="right")
    styles = {None: "", True: "green", False: "red"}
    for row in rows:
        if row.ours is None:
            continue
        measure = row.measure
        shown.add_row(
            f"{measure.name}\n[dim]{measure.unit}[/dim]",
            tables.median(row.envoy, measure.digits),
            tables.median(row.ours, measure.digits),
            tables.spread(row.ratio, 2),
            tables.goal(measure),
            tables.verdict(row),
            style=styles[row.met],
        )
    return shown
