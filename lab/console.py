"""What a person sees of the lab: how it comes up, what it proves, what to try."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lab.actors import Actors
from lab.keeping import State
from lab.proofs import PROOFS, Disproved, Proof
from plugin.errors import StartError

_TRY = """\
  make lab ARGS="shell cloud-app-1"      a shell on a host: there, `psql -h 127.0.0.1 -U app postgres`, `curl 127.0.0.1`
  make lab ARGS=check                    what is proved, again
  make lab ARGS=down                     end it"""


def show_coming_up(console: Console, states: Iterable[State]) -> None:
    """Draw until it is up. :raises StartError: when it does not come up."""
    seconds = 0.0
    with Live(console=console, refresh_per_second=8) as live:
        for state in states:
            live.update(_parts(state))
            seconds = state.seconds
    if not console.is_terminal:
        console.line()  # which Live leaves out there
    console.print(f"The lab is up, after {seconds:.0f} s.")


def show_what_to_try(console: Console) -> None:
    console.print(_TRY, highlight=False, soft_wrap=True)


def _parts(state: State) -> Table:
    table = Table.grid(padding=(0, 2))
    for part in state.begun:
        hosts = f"{part.hosts} hosts" if part.hosts > 1 else ""
        table.add_row(part.what, hosts, "..." if part.seconds is None else f"{part.seconds:.1f} s")
    return table


async def prove(console: Console, actors: Actors, proofs: Mapping[str, Proof] = PROOFS) -> bool:
    """Run all proofs, in order; whether all hold. The first that does not is the last."""
    for name, proof in proofs.items():
        since = time.monotonic()
        with console.status(name):
            try:
                seen = await proof(actors)
            except (Disproved, StartError) as error:
                console.print(f"[red]✗[/] {name}: {error}", highlight=False, soft_wrap=True)
                return False
        took = f"[dim]({time.monotonic() - since:.1f} s)[/]"
        console.print(f"[green]✓[/] {name}: {seen} {took}", highlight=False, soft_wrap=True)
    return True
