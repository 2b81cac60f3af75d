"""Shows an outcome: a table for the terminal, a page for the documentation, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping

from rich.table import Table

from bench.comparison import Outcome, Plan
from bench.figures import Goal, Measure, Row, Spread

COMMAND = "make bench"


def number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def spread(values: Spread | None, digits: int) -> str:
    """``12.0 (11.0 to 13.0)``."""
    if values is None:
        return "-"
    if values.rounds == 1:
        return number(values.median, digits)
    return f"{number(values.median, digits)} ({number(values.lowest, digits)} to {number(values.highest, digits)})"


def goal(measure: Measure) -> str:
    if measure.own_goal is not None:
        return f"{_bound(measure.own_goal, measure.digits)} {measure.unit}"
    return f"{_bound(measure.ratio_goal, 2)} x" if measure.ratio_goal is not None else "-"


def _bound(wanted: Goal, digits: int) -> str:
    return f"{'at least' if wanted.at_least else 'at most'} {wanted.value:.{digits}f}"


def verdict(row: Row) -> str:
    return {None: "-", True: "met", False: "missed"}[row.met]


def table(outcome: Outcome) -> Table:
    shown = Table(title="consul-tgw beside Envoy: medians; ratio with its lowest and highest round")
    shown.add_column("")
    for heading in ("Envoy", "consul-tgw", "ratio", "goal", ""):
        shown.add_column(heading, justify="right")
    styles = {None: "", True: "green", False: "red"}
    for row in outcome.rows:
        measure = row.measure
        shown.add_row(
            f"{measure.name}\n[dim]{measure.unit}[/dim]",
            number(row.envoy.median, measure.digits) if row.envoy else "-",
            number(row.ours.median, measure.digits),
            spread(row.ratio, 2),
            goal(measure),
            verdict(row),
            style=styles[row.met],
        )
    return shown


def _cells(row: Row) -> tuple[str, ...]:
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


def as_json(outcome: Outcome, plan: Plan, machine: Mapping[str, str]) -> str:
    """Raw values included, in the units of the measures before scaling (bytes, connections, microseconds)."""
    rows = [
        {
            "measure": row.measure.name,
            "unit": row.measure.unit,
            "envoy": _spread_json(row.envoy),
            "ours": _spread_json(row.ours),
            "ratio": _spread_json(row.ratio),
            "goal": goal(row.measure),
            "met": row.met,
            "note": row.note,
        }
        for row in outcome.rows
    ]
    tls = {label: str(parameters) for label, parameters in outcome.tls.items()}
    settings = {"rounds": plan.rounds, "round_s": plan.round_s, "placement": outcome.placement}
    document = {"machine": dict(machine), "plan": settings, "tls": tls, "rows": rows, "rounds": outcome.raw}
    return json.dumps(document, indent=2) + "\n"


def _spread_json(values: Spread | None) -> dict[str, float] | None:
    if values is None:
        return None
    return {"median": values.median, "lowest": values.lowest, "highest": values.highest, "rounds": values.rounds}


def page(outcome: Outcome, plan: Plan, machine: Mapping[str, str]) -> str:
    """``docs/performance.md``."""
    tls = next(iter(outcome.tls.values()), "")
    return "\n".join(
        [
            "# Performance",
            "",
            f"Written by `{COMMAND}`, which measures Envoy's terminating gateway and this one in the same run: same",
            "Consul agent, same linked services and intentions, same client, same machine, one worker each.",
            "The ratio is the figure. The absolute numbers are of the machine below, with whatever else it was doing.",
            "",
            *_table_lines(outcome),
            "",
            *(f"- {row.note}" for row in outcome.rows if row.note),
            *([""] if any(row.note for row in outcome.rows) else []),
            "## Method",
            "",
            *(f"- {line}" for line in _method(outcome, plan, str(tls))),
            "",
            "## Machine",
            "",
            "| | |",
            "|---|---|",
            *(f"| {part} | {version} |" for part, version in machine.items()),
            "",
        ]
    )


def _table_lines(outcome: Outcome) -> list[str]:
    headings = ("", "Unit", "Envoy", "consul-tgw", "Ratio", "Goal", "")
    lines = [_line(headings), "|---|---|--:|--:|--:|---|---|"]
    return lines + [_line(_cells(row)) for row in outcome.rows]


def _line(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _method(outcome: Outcome, plan: Plan, tls: str) -> list[str]:
    return [
        f"Rounds are run in turns (Envoy, consul-tgw, Envoy, ...), {plan.rounds} of {plan.round_s:g} s for each and "
        "workload. Each pair of rounds gives one ratio, ours over Envoy's; shown are the median, the lowest and the "
        "highest.",
        "CPU seconds are user and system time of all threads of the gateway's processes (`/proc/PID/stat`): for Envoy "
        "one process, here the control process and its worker.",
        f"Placement: {outcome.placement}. Envoy runs with `--concurrency 1`, this gateway with `--workers 1` and "
        "without access log, which Envoy does not write by default either.",
        "The client is a Go program that speaks mutual TLS with a leaf of Consul's CA straight to the gateway, and "
        "checks the gateway's SPIFFE ID. The external services are Go as well, on loopback, without TLS.",
        f"Negotiated with both: {tls}. A run in which the two differ ends with an error.",
        "Bulk: four connections, each as fast as it goes.",
        "New connections: connect, full mutual-TLS handshake, one byte there and back, close; eight at a time, no "
        "session is resumed.",
        "Echo: one connection, one message after the other; four times as many rounds, each a quarter as long.",
        "HTTP: small requests are GETs with an answer of 128 bytes: HTTP/1.1 on 16 connections with one request at a "
        "time each, HTTP/2 on 4 connections with 8 streams each and to a service of protocol `http2`. Bodies of 1 MiB "
        "go over four connections of HTTP/1.1, with their length. One request at a time: one connection, four times as "
        "many rounds, each a quarter as long. Intentions are as for TCP, no permission is evaluated.",
        f"Memory: growth of a freshly started gateway from {plan.idle_connections:,} connections that have each "
        "carried one byte; kernel memory not included.",
        "Policy: a client holds 20 connections and opens another one every 5 ms while `PUT /v1/config` turns its "
        "source from allow to deny in the `service-intentions` entry. The clock starts just before that request is "
        "sent and stops when the client sees the effect: the first attempt that fails, the last live connection that "
        "ends. Another client, still allowed, holds 20 connections meanwhile; those that do not answer afterwards are "
        "lost.",
    ]
