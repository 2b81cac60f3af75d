"""``python -m soak``: run one, show it, keep it."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console

from plugin.errors import GatewayError
from soak import report
from soak.figures import Figures
from soak.ledger import Ledger
from soak.run import Plan, soak

_ROOT = Path(__file__).resolve().parent.parent
_PAGE = _ROOT / "docs" / "reliability.md"
_BUILD = _ROOT / "build" / "reliability"
_FULL_S = 600.0


@click.command()
@click.option("--minutes", type=click.FloatRange(0.2, 10_000), default=10.0, show_default=True)
@click.option("--seed", type=int, help="Of everything that is left to chance; printed.")
@click.option("--pumps", type=click.IntRange(4, 1_000), default=12, show_default=True, help="Checked streams.")
@click.option("--idle", type=click.IntRange(0, 10_000), default=150, show_default=True, help="Idle connections.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="For logs; new or empty.")
def main(minutes: float, seed: int | None, pumps: int, idle: int, folder: Path | None) -> None:
    """Load, faults and invariants, for minutes or hours.

    Ten minutes or more without a violation write docs/reliability.md. A violation ends it with exit code 1, the
    invariant, the seed and the last events.
    """
    chosen = folder or Path(tempfile.mkdtemp(prefix="consul-tgw-soak-"))
    chosen.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        seed=random.SystemRandom().randrange(1_000_000) if seed is None else seed,
        seconds=minutes * 60,
        pumps=pumps,
        idle=idle,
    )
    console = Console()
    console.print(f"seed {plan.seed}, {minutes:g} minutes, logs in {chosen}", soft_wrap=True)
    began_s = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began_s:6.1f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    try:
        figures, ledger = asyncio.run(soak(plan, chosen, say))
    except GatewayError as error:
        raise click.ClickException(f"{error}\nseed {plan.seed}; logs are in {chosen}") from error
    _keep(figures, console)
    if figures.violations:
        raise click.ClickException(_told(plan, ledger, chosen))
    console.print(f"no violation; {figures.verified_bytes:,} bytes verified, {sum(figures.faults.values())} faults")


def _keep(figures: Figures, console: Console) -> None:
    _BUILD.mkdir(parents=True, exist_ok=True)
    kept = _BUILD / "soak.json"
    kept.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    console.print(f"Figures: {kept}", soft_wrap=True)
    if figures.seconds >= _FULL_S and not figures.violations:
        floods = report.floods_of(_BUILD / "floods.json")
        corpora = report.corpus_size((_ROOT / "fuzz", _ROOT / "tests" / "fuzz"))
        _PAGE.write_text(report.page(figures, floods, corpora))
        console.print(f"Page: {_PAGE}", soft_wrap=True)


def _told(plan: Plan, ledger: Ledger, folder: Path) -> str:
    lines = [f"{len(ledger.violations)} violations with the seed {plan.seed}; logs are in {folder}"]
    lines += [f"  {text}" for text in ledger.violations[:20]]
    return "\n".join([*lines, "the last events:", *ledger.events])


if __name__ == "__main__":
    main()
