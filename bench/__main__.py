"""``python -m bench``: run the comparison, show it, keep it."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console

from bench import comparison, report, versions
from bench.comparison import FULL, NAMES, QUICK, Outcome, Plan
from plugin.errors import GatewayError

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


@click.command()
@click.option("--quick", is_flag=True, help="Two short rounds: checks that everything runs. Writes no page.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds of each steady workload.")
@click.option("--round-seconds", type=click.FloatRange(0.2, 60), help="Length of one.")
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="This workload alone; may be repeated.")
@click.option("--tls", type=click.Choice(["1.2", "1.3"]), default="1.3", show_default=True, help="What clients offer.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="For logs and result.json.")
def main(
    quick: bool, rounds: int | None, round_seconds: float | None, only: tuple[str, ...], tls: str, folder: Path | None
) -> None:
    """Compare consul-tgw with Envoy's terminating gateway on this machine.

    Starts and ends everything it needs, on loopback. A full run takes about six minutes and writes
    docs/performance.md.
    """
    base = QUICK if quick else FULL
    plan = dataclasses.replace(
        base,
        rounds=rounds or base.rounds,
        round_s=round_seconds or base.round_s,
        only=frozenset(only or NAMES),
        tls_max=tls,
    )
    console = Console()
    chosen = folder or Path(tempfile.mkdtemp(prefix="consul-tgw-bench-"))
    chosen.mkdir(parents=True, exist_ok=True)
    try:
        outcome, machine = asyncio.run(_run(plan, chosen, console))
    except GatewayError as error:
        raise click.ClickException(f"{error}\nLogs are in {chosen}") from error
    console.print(report.table(outcome))
    for row in outcome.rows:
        if row.note:
            console.print(f"{row.measure.name}: {row.note}")
    result = chosen / "result.json"
    result.write_text(report.as_json(outcome, plan, machine))
    console.print(f"Every round: {result}", soft_wrap=True)
    if plan == FULL:
        _PAGE.write_text(report.page(outcome, plan, machine))
        console.print(f"Page: {_PAGE}", soft_wrap=True)


async def _run(plan: Plan, folder: Path, console: Console) -> tuple[Outcome, dict[str, str]]:
    began_s = time.monotonic()

    def progress(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began_s:5.0f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    machine = await versions.machine()
    async with comparison.prepared(plan, folder, progress) as prepared:
        await prepared.run()
    return prepared.outcome, machine


if __name__ == "__main__":
    main()
