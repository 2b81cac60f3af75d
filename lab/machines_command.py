"""``python -m lab machines``: what Vagrant and whoever runs it ask."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import click

from lab import machines as vagrant
from lab import topology
from lab.federation_option import federation_option
from lab.topology import Federation
from plugin.errors import GatewayError


@click.group()
def machines() -> None:
    """The lab as virtual machines of Vagrant: see vagrant/README.md."""


@machines.command("plan")
@federation_option
def print_plan(federation: Federation) -> None:
    """Print what the Vagrantfile makes of each host, as JSON."""
    try:
        sys.stdout.write(json.dumps(vagrant.as_json(topology.load(), federation), indent=2) + "\n")
    except GatewayError as error:
        raise click.ClickException(str(error)) from error


@machines.command()
@federation_option
@click.argument("folder", type=click.Path(path_type=Path))
def prepare(federation: Federation, folder: Path) -> None:
    """Make what machines are given into FOLDER: programs, and the secrets of each host. What is there is kept."""
    try:
        asyncio.run(vagrant.prepare(topology.load(), federation, folder))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error


@machines.command()
@federation_option
def provision(federation: Federation) -> None:
    """Carry out the steps of the plan on machines that `vagrant up` has made. May be run again."""
    try:
        asyncio.run(vagrant.carry_out(topology.load(), federation, click.echo))
    except GatewayError as error:
        raise click.ClickException(str(error)) from error
