"""``docs/scale.md`` and its pictures, from an outcome. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from bench import plot
from bench.scale import words
from bench.scale.canary import quantile
from bench.scale.control import Figures
from bench.scale.costs import Cost
from bench.scale.run import Outcome

OURS, ENVOY = "consul-tgw", "Envoy"


def page(outcome: Outcome, machine: Mapping[str, str]) -> str:
    largest = max((one.services for one in outcome.figures), default=0)
    lines = [
        "# Scale",
        "",
        *words.INTRODUCTION,
        "",
        f"## {largest:,} services",
        "",
        *_largest(outcome, largest),
        "",
        *(f"- Not measured: {problem.splitlines()[0]}" for problem in outcome.failed),
        *([""] if outcome.failed else []),
        "## Growth",
        "",
        *_growth(outcome),
        "",
        *_pictures_shown(outcome),
        *words.WHERE_IT_BENDS,
        "",
        *_crowd(outcome),
        *_decisions(outcome),
        *_many(outcome),
        "## Method",
        "",
        *words.METHOD,
        "",
        "## Machine",
        "",
        "| | |",
        "|---|---|",
        *(f"| {part} | {version} |" for part, version in machine.items()),
        "",
    ]
    return "\n".join(lines)


def _of(outcome: Outcome, label: str, services: int) -> Figures | None:
    return next((one for one in outcome.figures if (one.label, one.services) == (label, services)), None)


Take = Callable[[Figures], float | None]


def _rows(figures: Iterable[Figures]) -> dict[str, Take]:
    """What is shown of each gateway, by its words."""
    changes = dict.fromkeys(name for one in figures for name in one.changes)
    rows: dict[str, Take] = {
        "Start until all are served, s": lambda one: one.ready_s,
        "The same with every leaf in the agent, s": lambda one: one.again_s,
        "CPU until then, gateway, s": lambda one: one.start.gateway / 1000 if one.start else None,
        "CPU until then, agent, s": lambda one: one.start.agent / 1000 if one.start else None,
        "Memory, all processes, MiB": lambda one: sum(one.memory_mib.values()),
        "Connections to the agent": lambda one: one.connections or None,
        "CPU at rest, gateway, ms a second": lambda one: one.idle.gateway if one.idle else None,
        "CPU at rest, agent, ms a second": lambda one: one.idle.agent if one.idle else None,
    }
    for name in changes:
        rows[f"CPU when {name}, gateway, ms"] = _change(name, lambda cost: cost.gateway)
        rows[f"CPU when {name}, agent, ms"] = _change(name, lambda cost: cost.agent)
    for part, word in ((0.5, "median"), (0.99, "p99")):
        rows[f"Change to effect, {word}, ms"] = _quantile(lambda one: one.quiet_ms, part)
    for part, word in ((0.5, "median"), (0.99, "p99")):
        rows[f"The same in a storm of changes, {word}, ms"] = _quantile(lambda one: one.storm_ms, part)
    rows["Changes a second in the storm"] = lambda one: one.storm_per_s or None
    rows["CPU in the storm, gateway, ms a second"] = lambda one: one.storm.gateway if one.storm else None
    rows["CPU in the storm, agent, ms a second"] = lambda one: one.storm.agent if one.storm else None
    return rows


def _change(name: str, part: Callable[[Cost], float]) -> Take:
    return lambda one: part(one.changes[name]) if name in one.changes else None


def _quantile(samples: Callable[[Figures], list[float]], part: float) -> Take:
    return lambda one: quantile(samples(one), part) if samples(one) else None


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _largest(outcome: Outcome, services: int) -> list[str]:
    envoy, ours = _of(outcome, ENVOY, services), _of(outcome, OURS, services)
    lines = ["|  | Envoy | consul-tgw |", "|---|--:|--:|"]
    for what, take in _rows(outcome.figures).items():
        cells = [_number(take(one)) if one is not None else "-" for one in (envoy, ours)]
        if cells != ["-", "-"]:
            lines.append(f"| {what} | {' | '.join(cells)} |")
    if ours is not None:
        for what, mebibytes in ours.memory_mib.items():
            lines.append(f"| Memory of the {what}, MiB | - | {_number(mebibytes)} |")
        for command, seconds in ours.commands_s.items():
            lines.append(f"| `{command}`, s | - | {seconds:.1f} |")
    for when, mebibytes in outcome.agent_mib.items():
        lines.append(f"| Memory of the agent, {when}, MiB | - | {_number(mebibytes)} |")
    return lines


def _growth(outcome: Outcome) -> list[str]:
    columns = sorted(outcome.figures, key=lambda one: (one.label, one.services))
    lines = [
        f"|  | {' | '.join(f'{one.label}, {one.services:,}' for one in columns)} |",
        f"|---|{'--:|' * len(columns)}",
    ]
    for what, take in _rows(outcome.figures).items():
        if "storm" not in what:
            lines.append(f"| {what} | {' | '.join(_number(take(one)) for one in columns)} |")
    return lines


_Series = Callable[[Figures], dict[str, float]]


def _start(one: Figures) -> dict[str, float]:
    return {one.label: one.ready_s, f"{one.label}, again": one.again_s or 0.0}


def _effect(one: Figures) -> dict[str, float]:
    return {one.label: quantile(one.quiet_ms, 0.5) if one.quiet_ms else 0.0}


_PICTURES: dict[str, tuple[str, _Series]] = {
    "scale-ready.svg": ("Start until all services are served, seconds", _start),
    "scale-memory.svg": ("Memory of all processes, MiB", lambda one: {one.label: sum(one.memory_mib.values())}),
    "scale-cpu.svg": (
        "CPU of the gateway until all are served, seconds",
        lambda one: {one.label: one.start.gateway / 1000 if one.start else 0.0},
    ),
    "scale-effect.svg": ("Change of an intention to its effect, median, milliseconds", _effect),
}


def pictures(outcome: Outcome) -> dict[str, str]:
    """SVG by file name; only those with something to show."""
    drawn: dict[str, str] = {}
    for name, (title, take) in _PICTURES.items():
        series: dict[str, list[tuple[float, float]]] = {}
        for one in sorted(outcome.figures, key=lambda figures: figures.services):
            for label, value in take(one).items():
                if value > 0:
                    series.setdefault(label, []).append((one.services, value))
        if series:
            drawn[name] = plot.curves(title, "linked services", series)
    return drawn


def _pictures_shown(outcome: Outcome) -> list[str]:
    lines: list[str] = []
    for name in pictures(outcome):
        lines += [f"![{_PICTURES[name][0]}](pictures/{name})", ""]
    return lines


def _crowd(outcome: Outcome) -> list[str]:
    crowd = outcome.crowd
    if crowd is None:
        return []
    lines = [
        "## Many connections, one deny",
        "",
        f"{crowd.connections:,} live connections of {crowd.sources} sources to one service, {crowd.workers} workers;"
        " one source is denied.",
        "",
        "|  |  |",
        "|---|--:|",
        f"| Connections of the denied source | {crowd.denied} |",
        f"| Of these, ended | {crowd.ended} |",
        f"| Of the others, ended | {crowd.others_ended} |",
        f"| From the write until the last of them had ended, ms | {crowd.ended_ms:,.1f} |",
    ]
    for when, (median, high, longest) in crowd.latency_us.items():
        lines.append(
            f"| A byte there and back on connections that stay, {when}: median, p99, longest, µs |"
            f" {median:,.0f}, {high:,.0f}, {longest:,.0f} |"
        )
    for what, mebibytes in crowd.memory_mib.items():
        lines.append(f"| Memory of the {what}, MiB | {_number(mebibytes)} |")
    for command, seconds in crowd.commands_s.items():
        lines.append(f"| `{command}`, s | {seconds:.1f} |")
    return [*lines, ""]


def _many(outcome: Outcome) -> list[str]:
    found = outcome.many
    if found is None:
        return []
    rows = {
        "Start until all are served, s": found.ready_s,
        "CPU until then, gateway, s": found.cpu_s,
        "Requests until then": found.requests,
        "Connections to the agent, at most": found.connections,
        **{f"Memory of the {what}, MiB": mebibytes for what, mebibytes in found.memory_mib.items()},
    }
    return [
        f"## {found.services:,} services by `*`",
        "",
        *words.MANY,
        "",
        "|  |  |",
        "|---|--:|",
        *(f"| {what} | {_number(value)} |" for what, value in rows.items()),
        "",
    ]


def _decisions(outcome: Outcome) -> list[str]:
    found = outcome.decisions
    if found is None:
        return []
    return [
        "## Many intentions of one service",
        "",
        "| Intentions | A decision, µs | The whole entry written until its effect, median, ms |",
        "|--:|--:|--:|",
        *(
            f"| {count:,} | {microseconds:.1f} | {_number(found.effect_ms.get(count))} |"
            for count, microseconds in found.decision_us.items()
        ),
        "",
    ]
