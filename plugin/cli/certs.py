"""``consul-tgw certs``."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec
from rich.markup import escape
from rich.table import Column, Table

from plugin.answers.certificates import CertificateList, CertificateStatus, expiring
from plugin.assemble.durations import duration_s
from plugin.cli import names
from plugin.cli.admin_client import find
from plugin.cli.gateway_options import gateway_options
from plugin.cli.screen import console
from plugin.cli.status import duration
from plugin.errors import ConfigError

EXIT_EXPIRING = 1


@click.command()
@click.option("--expiring-in", default="", metavar="DURATION", help="Only what ends sooner, for example 24h.")
@click.option(
    "--service",
    default="",
    metavar="NAME",
    shell_complete=names.services,
    help="Only what this external service depends on.",
)
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@gateway_options
def certs(
    expiring_in: str, service: str, as_json: bool, gateway: str, admin_address: str, runtime_dir: Path | None
) -> int:
    """Show every certificate that a running gateway depends on, when it ends and what renews it.

    Leaves with their intermediates, roots of the mesh and of peers, the files of links (CAFile, CertFile), and those
    for the connection to Consul; the one that ends first comes first.

    \b
    consul-tgw certs --expiring-in 24h || page-somebody

    Exit code: 0, 1 when something ends within --expiring-in or has ended, 2 no gateway found.
    """
    within_s = _within_s(expiring_in) if expiring_in else None
    found = find(service=gateway, admin_address=admin_address, runtime_dir=runtime_dir)
    listed = msgspec.json.decode(found.fetch("/api/certificates"), type=CertificateList)
    shown = list(listed.certificates) if within_s is None else expiring(listed, within_s)
    if service:
        shown = [one for one in shown if not one.services or service in one.services]
    if as_json:
        body = msgspec.json.encode(CertificateList(tuple(shown), listed.problems))
        click.echo(msgspec.json.format(body, indent=2).decode())
    else:
        if shown or not expiring_in:
            console().print(_table(shown, time.time()))
        else:
            console().print(f"Nothing ends within {expiring_in}.")
        for problem in listed.problems:
            console().print(f"[yellow]{escape(problem)}[/]")
    return EXIT_EXPIRING if within_s is not None and shown else 0


def _within_s(text: str) -> float:
    try:
        return duration_s(text)
    except ValueError as error:
        raise ConfigError(f"--expiring-in {error}") from error


def _table(shown: list[CertificateStatus], now_s: float) -> Table:
    table = Table(Column("ends", no_wrap=True), Column("kind", no_wrap=True))
    for heading in ("of", "issuer", "serial", "renewed by"):
        table.add_column(heading, overflow="fold")
    for one in shown:
        left_s = one.not_after_s - now_s
        ends = f"in {duration(left_s)}" if left_s > 0 else f"[red]{duration(left_s)} ago[/]".replace("-", "")
        kind = one.kind.replace("_", " ") + ("" if one.active is None else ", active" if one.active else ", old")
        names = " ".join(one.spiffe_ids) or one.subject or "(no subject)"
        if one.services and not one.spiffe_ids:
            names += f" for {', '.join(one.services)}"
        renewal = one.renewed_by
        if one.renewal_s:
            due_s = one.renewal_s - now_s
            renewal += f"; by age in {duration(due_s)}" if due_s > 0 else "; due now"
        if one.modified_s:
            renewal += f", last {duration(now_s - one.modified_s)} ago"
        table.add_row(ends, kind, escape(names), escape(one.issuer), one.serial, escape(renewal))
    return table
