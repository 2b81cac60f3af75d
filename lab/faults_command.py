"""``python -m lab faults``: goes through the faults on a lab that is up, or on one of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from rich.console import Console

from lab import console as shown
from lab import keeping, topology
from lab.actors import Actors
from lab.faults import FAULTS
from lab.federation_option import federation_option
from lab.proofs.policy import works_with_an_intention
from lab.topology import Federation


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=keeping.FOLDER, show_default=True, help="Which lab.")
@click.option(
    "--topology", "path", type=click.Path(path_type=Path), default=topology.FILE, help="Another vagrant/topology.yaml."
)
@federation_option
def faults(folder: Path, path: Path, federation: Federation) -> None:
    """Break one thing after the other, and say what went on: on the lab that is up, else on one of its own."""
    console = Console()
    topology.load(path)
    own = not keeping.is_up(folder)
    if own:
        keeping.start(folder, path, federation, tied=True)
    try:
        if own:
            shown.show_coming_up(console, keeping.follow(folder))
        proofs = {"works with an intention": works_with_an_intention, **FAULTS}
        proved = asyncio.run(shown.prove(console, Actors.of(keeping.running(folder)), proofs))
    finally:
        if own:
            keeping.stop(folder)
    if not proved:
        raise SystemExit(1)
