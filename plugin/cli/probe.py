"""``consul-tgw probe``."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from plugin.addresses import HostPort
from plugin.answers.status import Status
from plugin.cli.admin_client import fetch
from plugin.cli.gateway_options import gateway_options
from plugin.errors import ConfigError
from plugin.explain.answer import Explanation, State
from plugin.explain.caller import service_name
from plugin.probing.answer import ProbeReport
from plugin.probing.probe import Probe, Wish, read_update
from plugin.settings import ConsulSettings

EXIT_BAD = 1
_MARKS = {State.GOOD: "[green]ok[/]  ", State.NOTE: "[yellow]note[/]", State.BAD: "[red]no[/]  "}


@click.command(short_help="Walk the whole path to a service by hand, with times.")
@click.argument("service")
@click.option("--source", default="", metavar="NAME", help="Call as this service, with a certificate from Consul.")
@click.option("--path", default="", help="Make a request for it; services of http, http2 and grpc alone.")
@click.option("--method", type=click.Choice(["GET", "HEAD"]), default="GET", show_default=True, help="Of the request.")
@click.option("--send", default="", metavar="TEXT", help=r"Send this to a service of tcp; \r and \n are its line ends.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@gateway_options
def probe(
    service: str,
    source: str,
    path: str,
    method: str,
    send: str,
    as_json: bool,
    gateway: str,
    admin_address: str,
    runtime_dir: Path | None,
) -> int:
    """Walk the path to SERVICE as a sidecar and as the gateway would, part by part, each with its time.

    Through the gateway: TCP, mutual TLS with a certificate of --source, the served leaf, the policy, what the gateway
    reaches, the first byte. Then from this host to each endpoint, with TLS if the link has a CAFile. Nothing is sent to
    the service unless --path or --send says so. Consul is found as its own tools find it; a certificate of --source
    takes service:write for it.

    \b
    consul-tgw probe billing-db --source web
    consul-tgw probe partner-api --source web --path /health

    Exit code: 0 all of it works, 1 something does not, 2 wrong usage or no gateway found.
    """
    ask = partial(fetch, service=gateway, admin_address=admin_address, runtime_dir=runtime_dir)
    if path and not (path.startswith("/") and path.isascii() and path.isprintable() and " " not in path):
        raise click.UsageError("--path begins with a slash, and is written as in a request")
    service_name(service)
    status = msgspec.json.decode(ask("/api/status"), type=Status)
    served = next((one for one in status.services if one.name == service), None)
    if served is not None and served.served:
        if path and served.protocol == "tcp":
            raise click.UsageError(f"{service} is of tcp, which has no paths: see --send")
        if send and served.protocol != "tcp":
            raise click.UsageError(f"{service} is of {served.protocol}: see --path")
    query = {"source": source or "nobody", "destination": service, "method": method, "path": path}
    explanation = msgspec.json.decode(ask(f"/api/explain?{urlencode(query)}"), type=Explanation)
    update = read_update(ask("/api/snapshot"))

    async def asked(where: str) -> bytes:
        return await asyncio.to_thread(ask, where)

    found = asyncio.run(
        Probe(
            Wish(service=service, source=source, method=method, path=path, send=_bytes(send)),
            asked,
            HostPort.parse(status.address, what="the gateway's address"),
            explanation,
            update,
            _consul(),
        ).run()
    )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        render(found, Console(highlight=False, soft_wrap=True))
    return 0 if found.good else EXIT_BAD


def render(found: ProbeReport, console: Console) -> None:
    whose = f" as {escape(found.source)}" if found.source else ""
    console.print(f"[bold]{escape(found.service)}[/]{whose}")
    for step in found.steps:
        for number, line in enumerate(step.lines):
            ms = f"{step.ms:.1f} ms" if step.ms is not None else ""
            about = f"{_MARKS[step.state]} {step.about:<13}{ms:>10}" if number == 0 else " " * 28
            console.print(f"{about}  {escape(line)}")


def _consul() -> ConsulSettings:
    return ConsulSettings.from_environment()


def _bytes(text: str) -> bytes:
    with contextlib.suppress(UnicodeError):
        return text.replace("\\r", "\r").replace("\\n", "\n").encode()
    raise ConfigError("--send is no text in UTF-8")
