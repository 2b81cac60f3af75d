"""``consul-tgw explain``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from plugin.admin.view import ConnectionList
from plugin.answers.status import Status
from plugin.cli.admin_client import fetch
from plugin.cli.gateway_options import gateway_options
from plugin.errors import ConfigError
from plugin.explain.answer import Explanation, Recollected, State, Verdict
from plugin.explain.past import connection_id, told, told_live
from plugin.explain.request import header
from proxy.messages import Connection

HEADER = "X-Asked-Header"
EXIT_NOT_ALLOWED = 1
_MARKS = {State.GOOD: "[green]ok[/]  ", State.NOTE: "[yellow]note[/]", State.BAD: "[red]no[/]  "}
_SHOWN = {
    Verdict.ALLOWED: "[green]allowed[/]",
    Verdict.DENIED: "[red]denied[/]",
    Verdict.NOT_SERVED: "[red]not served[/]",
}


@click.command(short_help="Say why a caller may or may not reach a service, from the state in force.")
@click.argument("source", required=False, default="")
@click.argument("destination", required=False, default="")
@click.option("--method", default="", help="Of the request, where requests are decided about. [default: GET]")
@click.option("--path", default="", help="Of the request, with its query. [default: /]")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Of the request; may be repeated.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The request has the JSON Web Token in FILE, as `Authorization: Bearer`. - is standard input.",
)
@click.option("--connection", default="", metavar="WORKER-NUMBER", help="Say what became of this connection instead.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the admin API.")
@gateway_options
def explain(
    source: str,
    destination: str,
    method: str,
    path: str,
    headers: tuple[str, ...],
    token_file: Path | None,
    connection: str,
    as_json: bool,
    gateway: str,
    admin_address: str,
    runtime_dir: Path | None,
) -> int:
    """Say what would happen if SOURCE called DESTINATION now, and why, step by step.

    It asks a running gateway, so it tells what is in force there. SOURCE is a service (web, namespace/web, peer:web) or
    a SPIFFE ID.

    \b
    consul-tgw explain web billing-db
    consul-tgw explain web partner-api --method POST --path /orders --header 'x-role: clerk'
    consul-tgw explain --connection 0-17

    Exit code: 0 allowed, 1 denied or not served, 2 wrong usage or no gateway found.
    """
    if connection:
        if source or destination:
            raise click.UsageError("--connection says what became of one: give no SOURCE and no DESTINATION with it")
        ask = partial(fetch, service=gateway, admin_address=admin_address, runtime_dir=runtime_dir)
        return _connection(connection, ask, as_json=as_json)
    if not (source and destination):
        raise click.UsageError("say who calls what: consul-tgw explain SOURCE DESTINATION")
    if path and not path.startswith("/"):
        raise click.UsageError("--path begins with a slash")
    asked = [*headers, *([f"authorization: Bearer {_token(token_file)}"] if token_file is not None else [])]
    for one in asked:
        header(one)
    query = urlencode({"source": source, "destination": destination, "method": method, "path": path})
    body = fetch(
        f"/api/explain?{query}",
        service=gateway,
        admin_address=admin_address,
        runtime_dir=runtime_dir,
        headers=[(HEADER, one) for one in asked],
    )
    explanation = msgspec.json.decode(body, type=Explanation)
    if as_json:
        click.echo(msgspec.json.format(body, indent=2).decode())
    else:
        render(explanation, _console())
    return 0 if explanation.verdict is Verdict.ALLOWED else EXIT_NOT_ALLOWED


def render(shown: Explanation, console: Console) -> None:
    request = f"{escape(shown.request)}, " if shown.request else ""
    console.print(f"[bold]{escape(shown.source)} => {escape(shown.destination)}[/] ({request}state {shown.generation})")
    for step in shown.steps:
        for number, line in enumerate(step.lines):
            about = f"{_MARKS[step.state]} {step.about:<13}" if number == 0 else " " * 18
            console.print(f"{about} {escape(line)}")
    console.print(f"{_SHOWN[shown.verdict]}: {escape(shown.sentence)}")
    for remedy in shown.remedies:
        console.print("\nThis would allow it:\n")
        console.print(escape(remedy))
    for remark in shown.remarks:
        console.print(f"\n{escape(remark)}")


def _connection(connection: str, ask: Callable[[str], bytes], *, as_json: bool) -> int:
    worker, number = connection_id(connection)
    body = ask(f"/api/recent?{urlencode({'worker': worker, 'number': number})}")
    found = msgspec.json.decode(body, type=Recollected)
    live = _live(worker, number, ask)
    if as_json:
        answer = {"live": live, **msgspec.to_builtins(found)}
        click.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2).decode())
        return 0 if live or _let_in(found) else EXIT_NOT_ALLOWED
    console = _console()
    if live is not None:
        for line in told_live(live):
            console.print(escape(line))
    if found.records or live is None:
        for line in told(connection, found):
            console.print(escape(line))
    return 0 if live or _let_in(found) else EXIT_NOT_ALLOWED


def _live(worker: int, number: int, ask: Callable[[str], bytes]) -> Connection | None:
    """The connection, if it has not ended."""
    status = msgspec.json.decode(ask("/api/status"), type=Status)
    for one in status.workers:
        if one.index == worker:
            page = ask(f"/api/connections?{urlencode({'after': f'{one.pid}:{number - 1}', 'limit': 1})}")
            for shown in msgspec.json.decode(page, type=ConnectionList).connections:
                if (shown.pid, shown.connection.number) == (one.pid, number):
                    return shown.connection
    return None


def _let_in(found: Recollected) -> bool:
    return bool(found.records) and all(one.verdict == "allowed" for one in found.records)


def _console() -> Console:
    # Lines that are cut or broken cannot be pasted.
    return Console(highlight=False, soft_wrap=True)


def _token(file: Path) -> str:
    """:raises ConfigError: when it cannot be read, or is no token."""
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--token-file {file} cannot be read: {error}") from error
    token = text.strip()
    if not token or not token.isprintable() or " " in token:
        raise ConfigError(f"--token-file {file} holds no token: one JSON Web Token and nothing else")
    return token
