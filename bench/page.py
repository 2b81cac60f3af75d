"""``docs/performance.md`` and its pictures, from what is kept of runs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench import plot, tables
from bench.figures import ENVOY, OURS, Row
from bench.limits import HERE
from bench.measures import LIMITS, PARTS, SECTIONS
from bench.peers import GHOSTUNNEL, HAPROXY
from bench.prose import prose
from bench.reasons import REASONS
from bench.results import Results, rows

COMMAND = "make bench"
_TITLES = {
    "bulk": "Bulk",
    "echo": "Small messages",
    "connections": "New connections",
    "http": "HTTP",
    "grpc": "gRPC",
    "sidecar": "Through a sidecar",
    "policy": "A change of policy",
    "memory": "Memory",
    "scaling": "Two workers",
}
_BY_CONNECTIONS = {1: "echo-1", 16: "echo-16", 256: "echo-256", 2_000: "echo-2000"}
_BY_SIZE = {
    128: "echo-16",
    1_024: "echo-size-1024",
    4_096: "echo-size-4096",
    16_384: "echo-size-16384",
    65_536: "echo-size-65536",
}
_CURVES = {
    "connections": ("Round trips of 128 bytes for each CPU second", "connections", _BY_CONNECTIONS),
    "sizes": ("Round trips for each CPU second, 16 connections", "bytes of a message", _BY_SIZE),
}
"""Title, title of the axis, and measures by their place on it; by the name of the picture, and of its prose."""
_LABELS = (ENVOY, OURS, HAPROXY, GHOSTUNNEL)
_CAPTION = "1 is as much as Envoy; a stroke is the goal: at least for work, at most for times and memory"
_UNKNOWN = "Not looked into yet."


def page(results: Results) -> str:
    """The whole page. Figures of several runs each say which one they are from."""
    every = [row for part in PARTS for row in rows(results, SECTIONS[part])]
    lines = ["# Performance", "", *prose("introduction"), "", *_summary(every), ""]
    if any(row.ratio for row in every):
        lines += ["![Ratios to Envoy](pictures/performance-ratios.svg)", ""]
    for part, title in _TITLES.items():
        lines += _section(title, rows(results, SECTIONS[part]))
    lines += _missed(every)
    lines += _peers(every)
    lines += _limits({row.measure.key: row for row in every})
    lines += _growth(results)
    lines += ["## Method", "", *prose("method"), ""]
    lines += _runs(results)
    return "\n".join(lines)


def pictures(results: Results) -> dict[str, str]:
    """By their file's name."""
    every = [row for part in PARTS for row in rows(results, SECTIONS[part])]
    bars = [
        plot.Bar(
            name=row.measure.name.replace(", through a sidecar", " (sidecar)"),
            value=row.ratio,
            goal=row.measure.ratio_goal,
        )
        for row in every
        if row.ratio is not None and row.measure.own_goal is None
    ]
    found = {}
    if bars:
        found["performance-ratios.svg"] = plot.ratios("consul-tgw over Envoy", _CAPTION, bars)
    for name, (title, x_title, keys) in _CURVES.items():
        series = _series(every, keys)
        if series:
            found[f"performance-{name}.svg"] = plot.curves(title, x_title, series)
    return found


def _series(every: Iterable[Row], keys: dict[int, str]) -> dict[str, list[tuple[float, float]]]:
    by_key = {row.measure.key: row for row in every}
    series: dict[str, list[tuple[float, float]]] = {}
    for label in _LABELS:
        points = [
            (float(x), by_key[key].values[label].median)
            for x, key in keys.items()
            if key in by_key and label in by_key[key].values
        ]
        if len(points) > 1:
            series[label] = points
    return series


def _summary(every: Sequence[Row]) -> list[str]:
    judged = [row for row in every if row.met is not None]
    met = sum(1 for row in judged if row.met)
    return [
        f"Of {len(judged)} figures with a goal, {met} meet it; for the others the reason is [below](#missed-goals)."
    ]


def _section(title: str, found: Sequence[Row]) -> list[str]:
    if not found:
        return []
    headings = ("", "Unit", ENVOY, OURS, "Ratio", "Goal", "", "Run")
    cells = [(*tables.cells(row), row.run) for row in found]
    notes = [f"- {row.note}" for row in found if row.note]
    return [f"## {title}", "", *tables.markdown(headings, cells, left=2), "", *notes, *([""] if notes else [])]


def _missed(every: Iterable[Row]) -> list[str]:
    missed = [row for row in every if row.met is False]
    if not missed:
        return ["## Missed goals", "", "None.", ""]
    cells = []
    for row in missed:
        figure = row.ours if row.measure.own_goal is not None else row.ratio
        digits = row.measure.digits if row.measure.own_goal is not None else 2
        cells.append((row.measure.name, tables.median(figure, digits), tables.goal(row.measure), _reason(row)))
    return ["## Missed goals", "", *tables.markdown(("", "Is", "Goal", "Reason"), cells, left=4), ""]


def _reason(row: Row) -> str:
    if (known := REASONS.get(row.measure.key)) is not None:
        return known
    wanted, ratio = row.measure.ratio_goal, row.ratio
    if wanted is not None and ratio is not None and ratio.lowest <= wanted.value <= ratio.highest:
        return f"Too near to tell: the rounds spread from {ratio.lowest:.2f} to {ratio.highest:.2f}."
    return _UNKNOWN


def _peers(every: Iterable[Row]) -> list[str]:
    found = [row for row in every if HAPROXY in row.values or GHOSTUNNEL in row.values]
    if not found:
        return []
    cells = [
        (
            row.measure.name,
            row.measure.unit,
            *(tables.median(row.values.get(label), row.measure.digits) for label in _LABELS),
            row.run,
        )
        for row in found
    ]
    table = tables.markdown(("", "Unit", *_LABELS, "Run"), cells, left=2)
    return ["## HAProxy and ghostunnel", "", *prose("peers"), "", *table, ""]


def _limits(by_key: dict[str, Row]) -> list[str]:
    found = [by_key[measure.key] for measure in LIMITS if measure.key in by_key]
    if not found:
        return []
    cells = [
        (row.measure.name, row.measure.unit, tables.spread(row.values.get(HERE), row.measure.digits), row.run)
        for row in found
    ]
    table = tables.markdown(("", "Unit", "This machine", "Run"), cells, left=2)
    return ["## Limits", "", *prose("limits"), "", *table, "", *(f"- {line}" for line in _arithmetic(by_key)), ""]


def _arithmetic(by_key: dict[str, Row]) -> Iterable[str]:
    """How near the figures are to the limits."""

    def limit(key: str) -> float | None:
        return by_key[key].values[HERE].median if key in by_key else None

    copy, aes = limit("limit-copy"), limit("limit-aes")
    bulk = by_key.get("bulk-down-1")
    if copy and aes and bulk is not None and bulk.ours and bulk.envoy:
        bound = 1 / (1 / copy + 1 / aes)
        yield (
            f"Bulk: copying and then encrypting gives 1 / (1/{copy:.2f} + 1/{aes:.2f}) = {bound:.2f} GiB for each CPU "
            f"second. One connection to the client reaches {bulk.ours.median / bound:.0%} of that, "
            f"Envoy {bulk.envoy.median / bound:.0%}."
        )
    sign, verify, exchange = limit("limit-sign"), limit("limit-verify"), limit("limit-x25519")
    handshake, new = limit("limit-handshake"), by_key.get("new-full")
    if sign and verify and exchange and handshake and new is not None and new.ours and new.envoy:
        micros = [1e6 / rate for rate in (sign, verify, exchange)]
        yield (
            f"New connections: one signature, one verification and one exchange take {micros[0]:.0f} + {micros[1]:.0f} "
            f"+ {micros[2]:.0f} = {sum(micros):.0f} microseconds, and the library's handshake around them "
            f"{1e6 / handshake:.0f}. A connection costs {1e6 / new.ours.median:.0f} here, with a second one to the "
            f"external service, a byte each way and the ends, and {1e6 / new.envoy.median:.0f} with Envoy, whose "
            "library is another."
        )


def _growth(results: Results) -> list[str]:
    drawn = pictures(results)
    lines: list[str] = []
    for name, (title, _, _) in _CURVES.items():
        if f"performance-{name}.svg" in drawn:
            lines += [f"![{title}](pictures/performance-{name}.svg)", "", *prose(name), ""]
    return ["## Growth", "", *lines] if lines else []


def _runs(results: Results) -> list[str]:
    parts: list[str] = []
    for name, run in results.runs.items():
        given = [part for part in PARTS if any(row.run == name for row in rows(results, SECTIONS[part]))]
        about = {
            "When": f"{run.when} UTC",
            "Figures": ", ".join(given),
            "Rounds": run.pace,
            "TLS": run.tls,
            "Placement": run.placement,
            "Load average before": f"{run.load:.2f}",
            **run.machine,
        }
        parts += [f"## Run {name}", "", *tables.markdown(("", ""), about.items(), left=2), ""]
        parts += [*(f"- {remark}" for remark in run.remarks), *([""] if run.remarks else [])]
    return parts
