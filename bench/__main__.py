"""``python -m bench``: run the comparison, show it, keep it, write the pages."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import os
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console

from bench import beside, comparison, page, report, results, versions
from bench.measures import PARTS, SECTIONS
from bench.pace import Pace
from bench.results import Results, Run
from bench.world import FULL, QUICK, Findings, Plan, World
from plugin.errors import GatewayError

_DOCS = Path(__file__).resolve().parent.parent / "docs"


def _parts(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    if not value:
        return PARTS
    chosen = [name.strip() for name in value.split(",")]
    if unknown := [name for name in chosen if name not in PARTS]:
        raise click.BadParameter(f"no part is called {', '.join(unknown)}: there are {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in chosen)


@click.command()
@click.option("--only", "parts", metavar="PARTS", callback=_parts, help=f"Of {', '.join(PARTS)}; several with commas.")
@click.option("--quick", is_flag=True, help="Two short rounds: checks that everything runs. Keeps nothing.")
@click.option("--rounds", type=click.IntRange(2, 100), help="Rounds of each steady workload.")
@click.option("--round-seconds", type=click.FloatRange(0.2, 60), help="Length of one.")
@click.option("--minutes", type=click.FloatRange(1, 600), default=22, show_default=True, help="To be over after.")
@click.option("--peers/--no-peers", default=True, help="HAProxy and ghostunnel as well.")
@click.option("--tls", type=click.Choice(["1.2", "1.3"]), default="1.3", show_default=True, help="What clients offer.")
@click.option("--keep/--no-keep", "keep", default=None, help="Whether pages are written. Unless --quick, they are.")
@click.option("--pages", "pages_only", is_flag=True, help="Measure nothing: write the pages from what is kept.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="For logs.")
def main(
    parts: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    round_seconds: float | None,
    minutes: float,
    peers: bool,
    tls: str,
    keep: bool | None,
    pages_only: bool,
    folder: Path | None,
) -> None:
    """Compare consul-tgw with Envoy's terminating gateway, and with HAProxy and ghostunnel, on this machine.

    Starts and ends everything it needs, on loopback. Writes docs/performance.md, its pictures and the figures of
    docs/comparison.md; what is not measured stays there as it was, with the run that it is from.
    """
    console = Console()
    if pages_only:
        _write_pages(results.load(), console)
        return
    base = QUICK if quick else FULL
    pace = Pace(rounds or base.pace.rounds, round_seconds or base.pace.round_s)
    plan = dataclasses.replace(base, pace=pace, minutes=minutes, parts=parts, peers=peers, tls_max=tls)
    chosen = folder or Path(tempfile.mkdtemp(prefix="consul-tgw-bench-"))
    chosen.mkdir(parents=True, exist_ok=True)
    try:
        world, run = asyncio.run(_run(plan, chosen, console))
    except GatewayError as error:
        raise click.ClickException(f"{error}\nLogs are in {chosen}") from error
    kept = results.merged(results.load(), run, world.findings.rounds, world.findings.notes)
    _show(kept, world.findings, console)
    if keep if keep is not None else not quick:
        results.save(kept)
        _write_pages(kept, console)
    if world.findings.failures:
        raise click.ClickException("\n".join(["not measured:", *world.findings.failures, f"Logs are in {chosen}"]))


async def _run(plan: Plan, folder: Path, console: Console) -> tuple[World, Run]:
    began_s = time.monotonic()
    load = os.getloadavg()[0]

    def progress(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began_s:5.0f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    machine = await versions.machine(peers=plan.peers)
    async with comparison.prepared(plan, folder, progress) as world:
        await comparison.run(world, began_s + 60 * plan.minutes)
    took = time.monotonic() - began_s
    findings = world.findings
    run = Run(
        when=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M}",
        machine=machine,
        placement=str(world.placement),
        tls=str(findings.tls[world.ours.label]),
        pace=f"{plan.pace}, {took / 60:.1f} minutes in all",
        load=round(load, 2),
        remarks=[*findings.remarks, *(f"not measured: {failure}" for failure in findings.failures)],
    )
    return world, run


def _show(kept: Results, findings: Findings, console: Console) -> None:
    measured = [one for part in PARTS for one in SECTIONS[part] if one.key in findings.rounds]
    found = results.rows(kept, measured)
    console.print(report.table(found))
    for row in found:
        if row.note:
            console.print(f"{row.measure.name}: {row.note}")


def _write_pages(kept: Results, console: Console) -> None:
    (_DOCS / "performance.md").write_text(page.page(kept))
    for name, drawn in page.pictures(kept).items():
        (_DOCS / "pictures" / name).write_text(drawn)
    compared = _DOCS / "comparison.md"
    compared.write_text(beside.filled(compared.read_text(), kept))
    console.print("Written: docs/performance.md, its pictures, docs/comparison.md")


if __name__ == "__main__":
    main()
