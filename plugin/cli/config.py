"""``consul-tgw config`` and ``consul-tgw config run``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from plugin.cli.admin_client import find
from plugin.cli.run import gateway_settings, given_flags
from plugin.cli.run import run as run_command
from plugin.cli.screen import console
from plugin.effective import DEFAULT, Effective, Setting, effective


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@click.option("--service", default="", metavar="NAME", help="Service name or ID of the gateway, when several run here.")
@click.option("--admin-address", default="", metavar="IP:PORT|unix:///PATH", help="Of the gateway meant.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Where the gateway keeps its runtime files.")
@click.pass_context
def config(context: click.Context, as_json: bool, service: str, admin_address: str, runtime_dir: Path | None) -> None:
    """Show the settings of a running gateway, and where each came from.

    \b
    consul-tgw config --service my-gateway
    consul-tgw config run --service my-gateway --address 10.0.0.5:8443

    The second form takes the flags of consul-tgw run, starts nothing and asks nobody, and shows what would apply.
    """
    context.obj = as_json
    if context.invoked_subcommand is not None:
        return
    found = find(service=service, admin_address=admin_address, runtime_dir=runtime_dir)
    _print(msgspec.json.decode(found.fetch("/api/config"), type=Effective), as_json)


_JSON = click.Option(["--json", "as_json"], is_flag=True, help="Print them as JSON.")


@config.command(name="run", params=[*run_command.params, _JSON])
def run(as_json: bool, **options: Any) -> None:
    """Show what consul-tgw run would use with these flags and this environment, and where each setting comes from."""
    context = click.get_current_context()
    _print(effective(gateway_settings(options, given_flags(context))), as_json or bool(context.obj))


def _print(shown: Effective, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
        return
    output = console()
    _print_table(output, "Settings", shown.settings)
    _print_table(output, "Consul", shown.consul)
    _print_table(output, "Proxy.Config", shown.proxy_config)
    for warning in shown.warnings:
        output.print(f"[yellow]{escape(warning)}[/]")


def _print_table(output: Console, title: str, settings: Iterable[Setting]) -> None:
    table = Table(Column("name", no_wrap=True), Column("value", overflow="fold"), "from", title=title)
    for one in settings:
        origin = one.origin if one.where in ("", one.name) else f"{one.origin}: {one.where}"
        style = "dim" if one.origin == DEFAULT else ""
        table.add_row(one.name, escape(one.value), escape(origin), style=style)
    output.print(table)
