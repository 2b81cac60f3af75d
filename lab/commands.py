"""The commands of a lab in network namespaces: up, check, shell, down, and all in one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from lab import console as shown
from lab import keeping, topology
from lab.actors import Actors
from lab.federation_option import federation_option
from lab.namespaces import plain_environment
from lab.topology import Federation
from plugin.errors import GatewayError

_folder = click.option(
    "--folder",
    type=click.Path(path_type=Path),
    default=keeping.FOLDER,
    show_default=True,
    help="Which lab, of several.",
)
_topology = click.option(
    "--topology", "path", type=click.Path(path_type=Path), default=topology.FILE, help="Another vagrant/topology.yaml."
)


class Group(click.Group):
    """Says what went wrong without a traceback: errors name the thing and the remedy. Its default is ``all``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        asks_for_help = args[:1] in (["-h"], ["--help"])
        if not args or (args[0].startswith("-") and not asks_for_help):
            args = [everything.name or "", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GatewayError as error:
            raise click.ClickException(str(error)) from error


@click.command("all")
@_folder
@_topology
@federation_option
def everything(folder: Path, path: Path, federation: Federation) -> None:
    """Bring the lab up, prove what it is for, and take it down. The default."""
    console = Console()
    topology.load(path)
    # Ended by the kernel with this process, however that ends.
    keeping.start(folder, path, federation, tied=True)
    try:
        shown.show_coming_up(console, keeping.follow(folder))
        proved = asyncio.run(shown.prove(console, Actors.of(keeping.running(folder))))
    finally:
        keeping.stop(folder)
    if not proved:
        raise SystemExit(1)


@click.command()
@_folder
@_topology
@federation_option
def up(folder: Path, path: Path, federation: Federation) -> None:
    """Bring the lab up, and leave it up."""
    console = Console()
    topology.load(path)
    keeping.start(folder, path, federation)
    try:
        shown.show_coming_up(console, keeping.follow(folder))
    except BaseException:
        keeping.stop(folder)
        raise
    shown.show_what_to_try(console)


@click.command()
@_folder
def check(folder: Path) -> None:
    """Prove what the lab is for, on one that is up. Exit code 1 when something is not as it should be."""
    if not asyncio.run(shown.prove(Console(), Actors.of(keeping.running(folder)))):
        raise SystemExit(1)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@_folder
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def shell(folder: Path, host: str, command: tuple[str, ...]) -> None:
    """A shell on HOST, or COMMAND in it. The host `switch` has the networks, as bridges."""
    running = keeping.running(folder)
    hosts = running.hosts | {running.switch.name: running.switch}
    if host not in hosts:
        raise click.ClickException(f"there is no host {host}: {', '.join(hosts)}")
    inside = hosts[host].command(*(command or ("bash", "-l")))
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    os.execvpe(inside[0], inside, plain_environment() | terminal)


@click.command()
@_folder
def down(folder: Path) -> None:
    """End the lab and everything in it."""
    click.echo("The lab is down." if keeping.stop(folder) else "No lab was up.")


@click.command(hidden=True)
@_folder
@_topology
@federation_option
def keep(folder: Path, path: Path, federation: Federation) -> None:
    """Be the process that keeps the lab."""
    asyncio.run(keeping.keep(folder, path, federation))


COMMANDS = (everything, up, check, shell, down, keep)
