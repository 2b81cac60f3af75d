"""``consul-tgw check``."""

from __future__ import annotations

import asyncio
import logging

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from plugin.check import Finding, Report, check_gateway
from plugin.cli.dns_option import dns_server_option, dns_servers
from plugin.cli.seconds_option import seconds_option
from plugin.settings import ConsulSettings

EXIT_MISSING = 1
_MARKS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "missing": "[red]missing[/]"}


@click.command()
@click.option("--service", required=True, metavar="NAME", help="The gateway's service name.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@seconds_option("--patience", default=10.0, minimum=0.1)
@dns_server_option
def check(service: str, as_json: bool, patience: float, dns_server: tuple[str, ...]) -> int:
    """Look at everything a gateway needs, and say what is missing: ACL rules, certificates, files, registrations.

    Run it where the gateway runs (it reads the same files), with the gateway's token and --dns-server. It changes
    nothing.

    \b
    CONSUL_HTTP_TOKEN=... consul-tgw check --service my-gateway

    Exit code: 0 nothing is missing, 1 something is, 2 Consul cannot be asked.
    """
    # What the watches complain about is in the report.
    logging.getLogger().setLevel(logging.CRITICAL)
    settings, servers = ConsulSettings.from_environment(), dns_servers(dns_server)
    report = asyncio.run(check_gateway(settings, service, patience_s=patience, dns_servers=servers))
    if as_json:
        body = {"ok": report.ok, **msgspec.to_builtins(report)}
        click.echo(msgspec.json.format(msgspec.json.encode(body), indent=2).decode())
    else:
        render(report, Console(highlight=False, soft_wrap=True))
    return 0 if report.ok else EXIT_MISSING


def render(report: Report, console: Console) -> None:
    console.print(f"[bold]{escape(report.gateway)}[/] at Consul {escape(report.consul)}")
    _print(report.findings, console)
    for service in report.services:
        console.print(f"[bold]{escape(service.name)}[/]")
        _print(service.findings, console)


def _print(findings: tuple[Finding, ...], console: Console) -> None:
    for finding in findings:
        console.print(f"  {_MARKS[finding.level]}  {escape(finding.text)}")
        if finding.rule:
            console.print(f"      ACL rule: [cyan]{escape(finding.rule)}[/]")
