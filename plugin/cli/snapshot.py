"""``consul-tgw snapshot``."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from plugin.cli.admin_client import fetch


@click.command()
@click.option("--service", default="", metavar="NAME", help="Service name or ID of the gateway, when several run here.")
@click.option("--admin-address", default="", metavar="IP:PORT", help="Ask the gateway whose admin pages are there.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Where the gateway keeps its runtime files.")
def snapshot(service: str, admin_address: str, runtime_dir: Path | None) -> None:
    """Print the state that a running gateway's workers have, as JSON. Private keys are left out.

    \b
    consul-tgw snapshot | jq '.upserts[] | {name, intentions}'
    """
    body = fetch("/api/snapshot", service=service, admin_address=admin_address, runtime_dir=runtime_dir)
    click.echo(msgspec.json.format(body, indent=2).decode())
