"""``consul-tgw connections`` and ``consul-tgw connections kill``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import click
import msgspec
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from plugin.admin.operations_view import KillReport, KillRequest
from plugin.admin.view import ConnectionList, WorkerConnection
from plugin.cli import names
from plugin.cli.admin_client import Found, change, find
from plugin.cli.gateway_options import gateway_options
from plugin.cli.screen import can_be_live, console, live, size
from plugin.cli.seconds_option import seconds_option
from plugin.cli.status import duration
from plugin.errors import ConfigError
from proxy.messages import LiveRequest

EXIT_INCOMPLETE = 1
PAGE = 5_000
"""Connections asked for at a time."""
_SORTS: dict[str, Callable[[WorkerConnection], float]] = {
    "age": lambda one: one.connection.opened_at_s,
    "bytes": lambda one: -(one.connection.bytes_received + one.connection.bytes_sent),
    "rate": lambda one: -one.connection.bytes_per_s,
    "idle": lambda one: -one.connection.quiet_s,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a connection must have to be shown; empty and 0 are any."""

    service: str = ""
    source: str = ""
    client: str = ""
    endpoint: str = ""
    older_than_s: float = 0.0
    idle_s: float = 0.0

    def takes(self, one: WorkerConnection, now_s: float) -> bool:
        connection = one.connection
        endpoints = (connection.endpoint, *(request.endpoint for request in connection.live_requests))
        callers = (connection.source, connection.caller, *(request.caller for request in connection.live_requests))
        return (
            self.service in ("", connection.service)
            and (not self.source or self.source in callers)
            and (not self.client or _is_at(self.client, connection.client))
            and (not self.endpoint or any(_is_at(self.endpoint, each) for each in endpoints))
            and now_s - connection.opened_at_s >= self.older_than_s
            and connection.quiet_s >= self.idle_s
        )


@click.group(invoke_without_command=True)
@click.option(
    "--service",
    "service",
    default="",
    metavar="NAME",
    shell_complete=names.services,
    help="Only those of this external service.",
)
@click.option(
    "--source",
    default="",
    metavar="NAME",
    shell_complete=names.sources,
    help="Only those of this caller: its service name or SPIFFE ID.",
)
@click.option("--client", default="", metavar="IP[:PORT]", help="Only those that come from there.")
@click.option("--endpoint", default="", metavar="IP[:PORT]|HOST", help="Only those that go there.")
@seconds_option("--older-than", default=0.0, help="Only those that opened so long ago.")
@seconds_option("--idle", default=0.0, help="Only those on which no byte has moved for so long.")
@click.option("--sort", type=click.Choice(tuple(_SORTS)), default="age", show_default=True, help="The largest first.")
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, metavar="N", help="0 shows all.")
@click.option("--watch", is_flag=True, help="Draw it anew until q is pressed; without a terminal, print it once.")
@seconds_option("--interval", default=2.0, minimum=0.2, help="Of --watch.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, as /api/connections has them.")
@gateway_options
@click.pass_context
def connections(
    context: click.Context,
    service: str,
    source: str,
    client: str,
    endpoint: str,
    older_than: float,
    idle: float,
    sort: str,
    limit: int,
    watch: bool,
    interval: float,
    as_json: bool,
    gateway: str,
    admin_address: str,
    runtime_dir: Path | None,
) -> int:
    """Show live connections, and the requests under way on them, over all workers.

    \b
    consul-tgw connections --service billing-db --sort bytes --limit 10
    consul-tgw connections --idle 3600 --json | jq -r '.connections[].id'
    consul-tgw connections kill 0-17 --reason 'ticket 4711'

    Exit code: 0, 1 when a worker did not answer, 2 no gateway found.
    """
    if context.invoked_subcommand is not None:
        return 0
    wanted = Filter(
        service=service, source=source, client=client, endpoint=endpoint, older_than_s=older_than, idle_s=idle
    )
    found = find(service=gateway, admin_address=admin_address, runtime_dir=runtime_dir)
    if watch and can_be_live() and not as_json:
        live(lambda: _drawn(chosen(everything(found), wanted, sort), limit), every_s=interval)
        return 0
    listed = chosen(everything(found), wanted, sort)
    if as_json:
        shown = listed.connections[:limit] if limit else listed.connections
        body = msgspec.json.encode(msgspec.structs.replace(listed, connections=shown))
        click.echo(msgspec.json.format(body, indent=2).decode())
    else:
        console().print(_drawn(listed, limit))
    return EXIT_INCOMPLETE if listed.problems else 0


@connections.command()
@click.argument("connection", required=False, default="", metavar="[WORKER-NUMBER]")
@click.option("--pid", type=click.IntRange(0), default=0, metavar="PID", help="Of its worker, while one is replaced.")
@click.option(
    "--service", default="", metavar="NAME", shell_complete=names.services, help="All of this external service."
)
@click.option(
    "--source",
    default="",
    metavar="NAME",
    shell_complete=names.sources,
    help="All of this caller: its service name or SPIFFE ID.",
)
@click.option("--reason", default="", metavar="TEXT", help="For the access log and the log.")
@click.option("--json", "as_json", is_flag=True, help="Print what was ended as JSON.")
@click.option("--admin-token-file", type=click.Path(path_type=Path), metavar="PATH", help="As of consul-tgw run.")
@gateway_options
def kill(
    connection: str,
    pid: int,
    service: str,
    source: str,
    reason: str,
    as_json: bool,
    admin_token_file: Path | None,
    gateway: str,
    admin_address: str,
    runtime_dir: Path | None,
) -> int:
    """End one live connection, or all of a service or a caller (with both: of that caller to that service).

    Nothing keeps the caller from connecting again: that is what intentions are for. It needs the admin token, as
    consul-tgw refresh does.

    Exit code: 0 something was ended, 1 nothing was, or a worker did not answer, 2 no gateway found.
    """
    if bool(connection) == bool(service or source):
        raise ConfigError("say which connections: either WORKER-NUMBER, or --service, --source or both")
    body = change(
        "/api/connections/kill",
        service=gateway,
        admin_address=admin_address,
        runtime_dir=runtime_dir,
        token_file=admin_token_file,
        body=msgspec.to_builtins(KillRequest(connection, pid, service, source, reason)),
    )
    report = msgspec.json.decode(body, type=KillReport)
    if as_json:
        click.echo(msgspec.json.format(body, indent=2).decode())
    else:
        for one in report.ended:
            ended = one.connection
            where = f" to {ended.service}" if ended.service else ""
            click.echo(f"ended {one.id}: {ended.caller or 'a caller not known yet'} at {ended.client}{where}")
        for problem in report.problems:
            click.echo(problem, err=True)
        if not report.ended:
            click.echo("nothing was ended: there is no such connection", err=True)
    return 0 if report.ended and not report.problems else EXIT_INCOMPLETE


def everything(found: Found) -> ConnectionList:
    """Every page."""
    after = ""
    listed: list[WorkerConnection] = []
    problems: list[str] = []
    while True:
        body = found.fetch(f"/api/connections?limit={PAGE}&after={quote(after)}")
        page = msgspec.json.decode(body, type=ConnectionList)
        listed += page.connections
        problems += page.problems
        after = page.next
        if not after:
            return ConnectionList(tuple(listed), "", tuple(dict.fromkeys(problems)))


def chosen(listed: ConnectionList, wanted: Filter, sort: str) -> ConnectionList:
    now_s = time.time()
    taken = (one for one in listed.connections if wanted.takes(one, now_s))
    return msgspec.structs.replace(listed, connections=tuple(sorted(taken, key=_SORTS[sort])))


def _drawn(listed: ConnectionList, limit: int) -> RenderableType:
    now_s = time.time()
    shown = listed.connections[:limit] if limit else listed.connections
    table = Table(Column("id", no_wrap=True), *(Column(name, no_wrap=True) for name in ("client", "source", "service")))
    for heading in ("endpoint", "state", "age", "idle"):
        table.add_column(heading)
    for heading in ("received", "sent", "rate"):
        table.add_column(heading, justify="right")
    table.add_column("allowed by")
    for one in shown:
        connection = one.connection
        table.add_row(
            one.id,
            connection.client,
            escape(connection.caller) or "-",
            escape(connection.service) or "-",
            connection.endpoint or "-",
            connection.state if connection.requests is None else f"{connection.state}, {connection.requests} requests",
            duration(now_s - connection.opened_at_s),
            duration(connection.quiet_s),
            size(connection.bytes_received),
            size(connection.bytes_sent),
            f"{size(connection.bytes_per_s)}/s",
            escape(connection.intention),
        )
        for request in connection.live_requests:
            table.add_row(*_request_row(request, now_s))
    left_out = len(listed.connections) - len(shown)
    below = [Text(f"{len(shown)} of {len(listed.connections)} shown; --limit 0 shows all")] if left_out else []
    return Group(table, *below, *_problems(listed.problems))


def _request_row(request: LiveRequest, now_s: float) -> Iterable[str]:
    answered = f" {request.status}" if request.status else ""
    return (
        "",
        "",
        escape(request.caller),
        escape(f"{request.method} {request.authority}{request.path}"),
        request.endpoint or "-",
        f"{request.phase}{answered}",
        duration(now_s - request.opened_at_s),
        "",
        size(request.bytes_received),
        size(request.bytes_sent),
        "",
        escape(request.intention),
    )


def _problems(problems: Iterable[str]) -> list[Text]:
    return [Text(problem, style="yellow") for problem in problems]


def _is_at(wanted: str, place: str) -> bool:
    """``place`` is ``ip:port``, maybe with the hostname in parentheses; ``wanted`` all of that, or a part of it."""
    address, _, name = place.partition(" ")
    host = address.rpartition(":")[0]
    return bool(place) and wanted in (address, host, host.strip("[]"), name.strip("()"))
