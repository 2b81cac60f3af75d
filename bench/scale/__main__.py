"""``python -m bench.scale``: measure what scale costs, and write the page."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console

from bench import versions
from bench.scale import capacity, page
from bench.scale.run import FULL, QUICK, Outcome, finish
from plugin.errors import GatewayError

_DOCS = Path(__file__).resolve().parents[2] / "docs"


@click.command()
@click.option("--quick", is_flag=True, help="Small numbers, to see that everything runs. Writes no page.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="For logs and result.json.")
@click.option(
    "--from",
    "former",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Write the page from the result.json of a former run.",
)
def main(quick: bool, folder: Path | None, former: Path | None) -> None:
    """Measure a gateway with many services, connections and intentions, beside Envoy's.

    Starts and ends everything it needs, on loopback. A full run takes about ten minutes and writes docs/scale.md.
    """
    console, began_s = Console(), time.monotonic()

    def progress(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began_s:5.0f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    if former is not None:
        outcome = msgspec.json.decode(former.read_bytes(), type=Outcome)
    else:
        chosen = folder or Path(tempfile.mkdtemp(prefix="consul-tgw-scale-"))
        chosen.mkdir(parents=True, exist_ok=True)
        try:
            outcome = finish(QUICK if quick else FULL, chosen, progress)
        except GatewayError as error:
            raise click.ClickException(f"{error}\nLogs are in {chosen}") from error
        result = chosen / "result.json"
        result.write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))
        console.print(f"Every figure: {result}", soft_wrap=True)
    text = page.page(outcome, asyncio.run(versions.machine(peers=False)))
    if quick:
        console.print(text, soft_wrap=True, markup=False)
        return
    for name, drawing in page.pictures(outcome).items():
        (_DOCS / "pictures" / name).write_text(drawing)
    (_DOCS / "scale.md").write_text(text)
    (_DOCS / "capacity.md").write_text(capacity.page(outcome))
    console.print(f"Page: {_DOCS / 'scale.md'}", soft_wrap=True)


if __name__ == "__main__":
    main()
