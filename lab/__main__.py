"""``python -m lab``: the lab's command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from lab import plan, topology
from lab.commands import COMMANDS, Group
from lab.faults_command import faults
from lab.federation_option import federation_option
from lab.machines_command import machines
from lab.topology import Federation


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """The lab of several datacenters: from the cloud to a service outside the mesh, on this machine.

    Without a command: all, which takes everything down again.
    """


@main.command("plan")
@click.option("--topology", "path", type=click.Path(path_type=Path), default=topology.FILE, show_default=True)
@federation_option
def print_plan(path: Path, federation: Federation) -> None:
    """Print hosts, their addresses and memory, and what is run on them in which order, as JSON."""
    sys.stdout.write(json.dumps(plan.as_json(topology.load(path), federation), indent=2) + "\n")


for command in (*COMMANDS, faults, machines):
    main.add_command(command)

if __name__ == "__main__":
    main()
