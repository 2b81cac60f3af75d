"""``docs/reliability.md``, from the figures of one soak, the floods if they were run, and the size of the corpora."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from soak.figures import Figures, Flood

HEADINGS = ("## Losses", "## Load", "## Faults", "## Bad input", "## Resources", "## Floods", "## Method")
_LOSSES = ("wrong, missing or surplus bytes", "wrongly allowed", "wrongly closed", "anything else")
_METHOD = """\
- One real Consul agent that keeps its state (leaves live for two minutes), the gateway with two workers, external
  services that speak TCP, mutual TLS, HTTP/1.1 and gRPC over HTTP/2, one of them a process of its own. All on one
  machine, with its load generator.
- Every byte is checked, on both sides: each knows by a seed what has to come, in both directions at once, in pieces
  and pauses of chance, with a half close of either side first. A clean end before the last byte is a loss, whatever
  the fault was.
- A source is denied from the moment at which the admin API shows the denial in the published state (`/api/snapshot`)
  and every worker reports that generation as applied (`/api/status`). No byte that the client sends after that may
  arrive. The time to effect is from the write in Consul to that moment.
- Requests over HTTP/1.1, on connections that are kept, and calls over HTTP/2, which last for seconds, are for one path
  that is always allowed, one whose permission is flipped, and one that is never allowed. Their bodies are checked as
  well. None that is denied may arrive, none that is allowed may be refused; a call that is newly denied ends, and no
  byte of it passes after that.
- A connection may end early only if its source was denied, its service unlinked or its worker killed.
- Faults are drawn from a seed, one after the other, each kind once before any comes again. Memory is of all processes
  of the gateway, medians of the first and the last third of the run after a warm-up; more than 24 MiB of growth fails.
- `make soak MINUTES=60` runs it for longer. Any violation ends it with the invariant, the seed and the last events."""


def page(figures: Figures, floods: Sequence[Flood], corpus_entries: int) -> str:
    """Markdown."""
    minutes = figures.seconds / 60
    parts = [
        "# Reliability",
        "",
        f"Written by `make soak`: {minutes:g} minutes of everything at once, from the seed {figures.seed}.",
        "",
        "## Losses",
        "",
        *_table(("", "Count"), [(name, str(count)) for name, count in losses(figures).items()]),
        "",
        "## Load",
        "",
        *_table(("", ""), _load(figures)),
        "",
        "## Faults",
        "",
        f"{sum(figures.faults.values())} in {minutes:g} minutes; {figures.leaf_renewals} leaves were renewed.",
        "",
        *_table(("Fault", "Times"), [(name, str(count)) for name, count in sorted(figures.faults.items())]),
        "",
        "## Bad input",
        "",
        *_table(("", "Count"), _bad_input(figures, corpus_entries)),
        "",
        "## Resources",
        "",
        *_table(("", ""), _resources(figures)),
        "",
        "## Floods",
        "",
        *_floods(floods),
        "",
        "## Method",
        "",
        _METHOD,
        "",
    ]
    return "\n".join(parts)


def losses(figures: Figures) -> Mapping[str, int]:
    """Violations by what was lost."""
    found = dict.fromkeys(_LOSSES, 0)
    for text in figures.violations:
        name = next((one for one in _LOSSES[1:3] if text.startswith(one)), "")
        found[name or (_LOSSES[0] if "bytes" in text or "truncated" in text else _LOSSES[3])] += 1
    return found


def floods_of(path: Path) -> list[Flood]:
    """What ``make floods`` has measured; nothing when it was not run."""
    return msgspec.json.decode(path.read_bytes(), type=list[Flood]) if path.exists() else []


def corpus_size(folders: Iterable[Path]) -> int:
    """Files of the fuzz corpora."""
    return sum(one.is_file() for folder in folders for one in folder.glob("**/corpus/**/*"))


def _load(figures: Figures) -> list[tuple[str, str]]:
    rows = [
        ("connections held at the gateway, median", f"{figures.open_connections:,}"),
        ("of these idle", f"{figures.idle:,}"),
        ("of these checked pumps", f"{figures.pumps:,}"),
        ("bytes verified", f"{figures.verified_bytes:,}"),
    ]
    return rows + [(name, f"{count:,}") for name, count in sorted(figures.counts.items())]


def _bad_input(figures: Figures, corpus_entries: int) -> list[tuple[str, str]]:
    rows = [(name, f"{count:,}") for name, count in sorted(figures.bad_inputs.items())]
    return [*rows, ("entries of the fuzz corpora, run with the tests", f"{corpus_entries:,}")]


def _resources(figures: Figures) -> list[tuple[str, str]]:
    return [
        ("memory after the warm-up", f"{figures.resident_before_kib:,} KiB"),
        ("memory at the end", f"{figures.resident_after_kib:,} KiB"),
        ("most descriptors of the workers", f"{figures.descriptors_most:,}"),
        ("changes of policy", f"{figures.effects:,}"),
        ("from a change to its effect in every worker, median", f"{figures.effect_median_s * 1000:,.0f} ms"),
        ("from a change to its effect in every worker, worst", f"{figures.effect_worst_s * 1000:,.0f} ms"),
    ]


def _floods(floods: Sequence[Flood]) -> list[str]:
    if not floods:
        return ["Not part of this run: `make floods` measures them."]
    heading = ("Flood", "Tried", "Requests beside it", "Lost", "p50", "p99", "Descriptors", "Memory")
    return _table(heading, [_flood(one) for one in floods])


def _flood(one: Flood) -> tuple[str, ...]:
    return (
        one.name,
        f"{one.tried:,} in {one.seconds:.0f} s",
        f"{one.legitimate_requests:,}",
        f"{one.lost:,}",
        f"{one.p50_ms:.1f} ms",
        f"{one.p99_ms:.1f} ms",
        f"{one.fds_before:,} to {one.fds_after:,}",
        f"{one.rss_before_kib:,} to {one.rss_after_kib:,} KiB",
    )


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [_line(heading), "|---" + "|--:" * (len(heading) - 1) + "|"]
    return lines + [_line(row) for row in rows]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
