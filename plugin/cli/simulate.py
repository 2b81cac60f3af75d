"""``consul-tgw simulate``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plugin.cli.admin_client import change
from plugin.cli.gateway_options import gateway_options
from plugin.errors import ConfigError
from plugin.simulate.answer import Access, Simulation
from plugin.simulate.hcl import read_entries

EXIT_HARMS = 1
TIMEOUT_S = 30.0
"""As long as the admin pages take for an answer: entries that concern all services have them all assembled anew."""
_MOST_BYTES = 60 * 1024
"""What the admin API takes, with room for the rest of the body."""
_EFFECTS = {"gains": "[green]gains[/]", "loses": "[red]loses[/]", "changes": "[yellow]changes[/]"}
_FEW = 10
WIDTH_WITHOUT_TERMINAL = 200


@click.command(short_help="Say what config entries would change that are not written yet.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--verbose", is_flag=True, help="List every connection that would be cut, not the first ten.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the admin API.")
@click.option("--admin-token-file", type=click.Path(path_type=Path), metavar="PATH", help="As of consul-tgw run.")
@gateway_options
def simulate(
    files: tuple[str, ...],
    verbose: bool,
    as_json: bool,
    admin_token_file: Path | None,
    gateway: str,
    admin_address: str,
    runtime_dir: Path | None,
) -> int:
    """Say what the config entries in FILE would change in a running gateway, before anybody writes them.

    FILE is HCL or JSON, as for `consul config write`; - is standard input. Several are taken together. Kinds:
    service-intentions, terminating-gateway, service-defaults, service-resolver, mesh, proxy-defaults, jwt-provider.
    Nothing is written.

    \b
    consul-tgw simulate service-intentions-billing-db.hcl
    consul config read -kind service-intentions -name billing-db | sed s/allow/deny/ | consul-tgw simulate -

    Exit code: 0 nobody loses anything, 1 somebody does or something is wrong with the entries, 2 wrong usage, an
    entry that Consul would not take, or no gateway found.
    """
    entries = [entry for file in files for entry in read_entries(_text(file), file)]
    size = len(json.dumps(entries))
    if size > _MOST_BYTES:
        raise ConfigError(f"the entries have {size} bytes, and {_MOST_BYTES} can be simulated together: give fewer")
    body = change(
        "/api/simulate",
        service=gateway,
        admin_address=admin_address,
        runtime_dir=runtime_dir,
        token_file=admin_token_file,
        body={"entries": entries},
        timeout_s=TIMEOUT_S,
    )
    found = msgspec.json.decode(body, type=Simulation)
    if as_json:
        click.echo(msgspec.json.format(body, indent=2).decode())
    else:
        width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
        render(found, Console(highlight=False, width=width), verbose=verbose)
    return EXIT_HARMS if found.judged().harms else 0


def render(found: Simulation, console: Console, *, verbose: bool) -> None:
    console.print(
        f"[bold]If these were written:[/] {escape(', '.join(found.entries))} (compared with state {found.generation})"
    )
    for problem in found.problems:
        console.print(f"[red]problem[/]: {escape(problem)}")
    for service in found.services:
        state = service.after if service.before == service.after else f"{service.before} -> {service.after}"
        console.print(f"[bold]{escape(service.name)}[/]: {state}")
        for line in service.differences:
            console.print(f"  {escape(line)}")
        for line in service.problems:
            console.print(f"  [red]problem[/]: {escape(line)}")
    if found.access:
        table = Table("service", "source", "", "before", "after", title="Access")
        for one in found.access:
            who = "* (anybody else)" if one.source == "*" else one.source
            table.add_row(
                escape(one.service), escape(who), _EFFECTS[one.effect], _access(one.before), _access(one.after)
            )
        console.print(table)
    if found.requests:
        table = Table("service", "source", "request", "times", "", "before", "after", title="Requests that came lately")
        for request in found.requests:
            row = (request.service, request.source, request.request, str(request.requests))
            table.add_row(*map(escape, row), _EFFECTS[request.effect], escape(request.before), escape(request.after))
        console.print(table)
    _cut(found, console, verbose=verbose)
    for remark in found.remarks:
        console.print(escape(remark))
    if not (found.services or found.access or found.requests or found.connections_cut):
        console.print("Nothing changes for anybody that is known.")
    console.print("Nothing was written.")


def _cut(found: Simulation, console: Console, *, verbose: bool) -> None:
    if not found.connections_cut:
        console.print("No live connection would be cut.")
        return
    console.print(f"[red]{found.connections_cut}[/] live connections, or requests on them, would be cut:")
    shown = found.connections if verbose else found.connections[:_FEW]
    for one in shown:
        request = f" {one.request}" if one.request else ""
        console.print(f"  {escape(f'{one.id} {one.source} => {one.service} from {one.client}{request}: {one.why}')}")
    if found.connections_cut > len(shown):
        hint = "" if verbose else " (--verbose shows them)"
        console.print(f"  and {found.connections_cut - len(shown)} more{hint}")


def _access(access: Access) -> str:
    words = {"by_request": "request by request"}.get(access.kind, access.kind)
    return escape(f"{words}, {access.by}" if access.by else words)


def _text(file: str) -> str:
    """:raises ConfigError: when it cannot be read."""
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
