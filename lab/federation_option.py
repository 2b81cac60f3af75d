"""``--federation``, as all commands of the lab take it."""

from __future__ import annotations

import click

from lab.topology import Federation

federation_option = click.option(
    "--federation",
    # By their values: click would take an enumeration by the names of its members.
    type=click.Choice([one.value for one in Federation]),
    default=Federation.PEERING.value,
    show_default=True,
    callback=lambda context, parameter, value: Federation(value),
    help="How the datacenters know of each other.",
)
