"""``consul-tgw reload``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from plugin.cli.admin_client import find_directory
from plugin.cli.seconds_option import seconds_option
from plugin.reload.door import NotReloaded, knock
from plugin.reload.messages import Request
from plugin.reload.program import source_tree

EXIT_NOT_RELOADED = 1
_MARGIN_S = 60.0
"""Beside the time of the new generation: the rehearsal's start and end, and the exchange of the control process."""


@click.command()
@click.option("--service", default="", metavar="NAME", help="Service name or ID of the gateway, when several run here.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Where the gateway keeps its runtime files.")
@seconds_option(
    "--timeout",
    default=60.0,
    minimum=1,
    help="How long the new generation may take to get ready.",
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def reload(service: str, runtime_dir: Path | None, timeout: float, flags: tuple[str, ...]) -> int:
    """Replace all processes of a running gateway, with no connection refused or cut.

    The program that runs this command takes the place of the running one: that is how a new version is put in force.
    FLAGS, after --, are those of `consul-tgw run` from now on; without any they stay as they are.

    \b
    consul-tgw reload
    consul-tgw reload -- --service my-gateway --address 10.0.0.5:8443 --workers 4

    A new generation is started and tried beside the running one. Only when it has the whole state does it get the
    listening sockets. Live connections stay in the former workers, for --handover-timeout of `run`. If the new
    generation does not get ready, nothing changes.

    Exit code: 0 reloaded, 1 not reloaded and why, 2 no gateway found.
    """
    directory = find_directory(service, runtime_dir)
    request = Request(
        executable=sys.executable, source=source_tree(), arguments=("run", *flags) if flags else None, timeout_s=timeout
    )
    try:
        answer = asyncio.run(knock(directory, request, timeout + _MARGIN_S))
    except NotReloaded as error:
        click.echo(f"not reloaded: {error}", err=True)
        return EXIT_NOT_RELOADED
    if not answer.reloaded:
        click.echo(f"not reloaded, the running generation goes on: {answer.text}", err=True)
        return EXIT_NOT_RELOADED
    click.echo(answer.text)
    return 0
