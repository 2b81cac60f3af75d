"""``consul-tgw status``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from plugin.answers.status import ServiceStatus, Status
from plugin.cli.admin_client import fetch
from plugin.spans import duration as duration

EXIT_NOT_READY = 1
WIDTH_WITHOUT_TERMINAL = 200


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--service", default="", metavar="NAME", help="Service name or ID of the gateway, when several run here.")
@click.option("--admin-address", default="", metavar="IP:PORT", help="Ask the gateway whose admin pages are there.")
@click.option("--runtime-dir", type=click.Path(path_type=Path), help="Where the gateway keeps its runtime files.")
def status(as_json: bool, service: str, admin_address: str, runtime_dir: Path | None) -> int:
    """Show what a running gateway serves, what it does not serve, and why.

    \b
    consul-tgw status
    consul-tgw status --service my-gateway --json | jq '.services[] | select(.served | not)'

    Exit code: 0 ready, 1 running but not ready, 2 no gateway found.
    """
    body = fetch("/api/status", service=service, admin_address=admin_address, runtime_dir=runtime_dir)
    decoded = msgspec.json.decode(body, type=Status)
    if as_json:
        click.echo(msgspec.json.format(body, indent=2).decode())
    else:
        # In a pipe there is no width to fit into, and names that are cut cannot be searched for.
        width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
        render(decoded, Console(highlight=False, width=width), now_s=time.time())
    return 0 if decoded.ready else EXIT_NOT_READY


def render(shown: Status, console: Console, *, now_s: float) -> None:
    console.print(_head(shown, now_s))
    console.print(_services(shown, now_s))
    for one in shown.services:
        for text in (*one.reasons, *one.warnings, *_dials(one)):
            console.print(f"[yellow]{escape(one.name)}[/]: {escape(text)}")
    console.print(_workers(shown))
    for watch in shown.watches:
        if watch.problem:
            console.print(f"[yellow]{escape(watch.name)}[/]: {escape(watch.problem)}")
        elif watch.note:
            console.print(f"{escape(watch.name)}: {escape(watch.note)}")


def _head(shown: Status, now_s: float) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_row("gateway", f"{escape(shown.service_id)} ({escape(shown.service)}) on {shown.address}")
    table.add_row(
        "state", "[green]ready[/]" if shown.ready else f"[red]not ready[/]: {escape('; '.join(shown.not_ready))}"
    )
    if shown.phase not in ("", "starting", "serving"):
        table.add_row("phase", shown.phase)
    if shown.registration.wanted:
        registration = f"registered, {shown.registration.check}" if shown.registration.registered else "not registered"
        if shown.registration.problem:
            registration += f": {escape(shown.registration.problem)}"
        table.add_row("registration", registration)
    elif shown.registration.problem:
        table.add_row("registration", escape(shown.registration.problem))
    for warning in shown.warnings:
        table.add_row("warning", escape(warning))
    table.add_row("mesh", f"{shown.trust_domain or 'not known yet'} in {shown.datacenter or 'not known yet'}")
    for peer in shown.peers:
        table.add_row("peer", f"{escape(peer.name)} ({escape(peer.trust_domain)}) may ask for {_list(peer.services)}")
    table.add_row("default", shown.default_action or "not known yet (refused)")
    table.add_row("Consul", shown.consul_version or 'version not known (agent_prefix "" { policy = "read" } tells it)')
    table.add_row("state age", _age(shown))
    if shown.restored_from_s:
        saved = duration(now_s - shown.restored_from_s)
        table.add_row("saved state", f"[yellow]in force, saved {saved} ago; Consul has not confirmed it yet[/]")
    if shown.consul_away:
        table.add_row("Consul is away", f"[yellow]{escape(shown.consul_away)}[/]")
    table.add_row("state number", str(shown.generation))
    table.add_row("running", f"{duration(now_s - shown.started_at_s)}, process {shown.pid}, version {shown.version}")
    for code in sorted({one.code for one in shown.workers if one.code}):
        table.add_row("workers run", escape(code))
    return table


def _list(names: tuple[str, ...]) -> str:
    return escape(", ".join(names)) or "nothing"


def _age(shown: Status) -> str:
    if shown.state_age_s is None:
        return "nothing is known yet"
    if shown.too_old:
        most = duration(shown.max_state_age_s)
        return f"[red]{duration(shown.state_age_s)}, more than the maximum of {most}: new connections are denied[/]"
    return f"{duration(shown.state_age_s)} since Consul confirmed all of it"


def _services(shown: Status, now_s: float) -> Table:
    table = Table(Column("service", no_wrap=True), title="Linked services")
    for heading in ("state", "protocol", "endpoints", "TLS", "intentions", "leaf ends", "open"):
        table.add_column(heading)
    for one in shown.services:
        table.add_row(
            escape(one.name) + (" (*)" if one.from_wildcard else ""),
            _state(one),
            one.protocol or "-",
            f"{sum(e.healthy for e in one.endpoints)} of {len(one.endpoints)}" if one.served else "-",
            "yes" if one.upstream_tls else "no",
            str(one.intentions) if one.intentions is not None else "not known",
            f"in {duration(one.leaf_expires_at_s - now_s)}" if one.leaf_expires_at_s else "-",
            str(one.open_connections),
        )
    return table


def _dials(one: ServiceStatus) -> list[str]:
    """What has gone wrong towards the external service since the gateway started, in words."""
    dials, found = one.dials, []
    if dials.failures:
        left_out = f"; an endpoint was left out {dials.ejections} times" if dials.ejections else ""
        found.append(f"{dials.failures} attempts to reach it have failed{left_out}")
    if dials.shortages:
        found.append(f"{dials.shortages} attempts have failed for want of resources of this machine: see the log")
    return found


def _state(one: ServiceStatus) -> str:
    if not one.served:
        return "[red]not served[/]"
    return "[yellow]served, with an earlier state[/]" if one.reasons else "[green]served[/]"


def _workers(shown: Status) -> Table:
    table = Table("worker", "process", "state number", "open", "", title="Workers")
    for one in shown.workers:
        notes = [word for word, true in (("adopted", one.adopted), ("draining", one.draining)) if true]
        if not one.connected:
            notes.append("not connected")
        table.add_row(
            str(one.index),
            str(one.pid),
            str(one.generation),
            str(one.open_connections),
            escape(", ".join([*notes, *one.problems])),
        )
    return table
