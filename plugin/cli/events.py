"""``consul-tgw events``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
from rich.markup import escape
from rich.table import Column, Table

from plugin.assemble.durations import duration_s
from plugin.cli import names
from plugin.cli.admin_client import Found, NotRunning, find
from plugin.cli.gateway_options import gateway_options
from plugin.cli.screen import console
from plugin.errors import ConfigError
from plugin.events.ring import Event, EventPage

WAIT_S = 20
ANSWER_S = 30.0
PATIENCE_S = 15.0
TRY_AGAIN_S = 0.5
_COLOURS = {"warning": "yellow", "error": "red"}


@click.command()
@click.option("--since", default="", metavar="DURATION", help="Only what is not older, for example 10m or 1h30m.")
@click.option(
    "--service",
    default="",
    metavar="NAME",
    shell_complete=names.services,
    help="Only what concerns this external service.",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON; with --follow one to a line.")
@gateway_options
def events(
    since: str,
    service: str,
    follow: bool,
    as_json: bool,
    gateway: str,
    admin_address: str,
    runtime_dir: Path | None,
) -> None:
    """Show what has changed in a running gateway, when, and from which index of Consul.

    \b
    consul-tgw events --since 10m
    consul-tgw events --follow --service billing-db --json | jq -r '.changes[].what'

    It keeps the last 1000 events: in memory, and with --state-dir also for the next start.
    """
    oldest_s = time.time() - _since_s(since) if since else 0.0
    found = find(service=gateway, admin_address=admin_address, runtime_dir=runtime_dir)
    page = _page(found, 0, wait_s=0)
    shown = _chosen(page, service, oldest_s)
    if not follow:
        if as_json:
            body = msgspec.json.encode(msgspec.structs.replace(page, events=tuple(shown)))
            click.echo(msgspec.json.format(body, indent=2).decode())
        else:
            _print(shown)
        return
    while True:
        if page.missed and page.events and shown:
            click.echo("events before these are forgotten", err=True)
        if as_json:
            for event in shown:
                click.echo(msgspec.json.encode(event).decode())
        else:
            _print(shown)
        page = _next_page(found, page.newest)
        shown = _chosen(page, service, oldest_s)


def _page(found: Found, after: int, *, wait_s: int) -> EventPage:
    body = found.fetch(f"/api/events?after={after}&wait={wait_s}s", timeout_s=ANSWER_S)
    return msgspec.json.decode(body, type=EventPage)


def _next_page(found: Found, after: int) -> EventPage:
    """A reload ends the process that is asked; its successor is there soon."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return _page(found, after, wait_s=WAIT_S)
        except NotRunning:
            if time.monotonic() >= until_s:
                raise
            time.sleep(TRY_AGAIN_S)


def _since_s(text: str) -> float:
    try:
        seconds = duration_s(text)
    except ValueError as error:
        raise ConfigError(f"--since {error}") from error
    if seconds <= 0:
        raise ConfigError(f"--since {text} is not a time that has passed; write for example 10m")
    return seconds


def _chosen(page: EventPage, service: str, oldest_s: float) -> list[Event]:
    return [event for event in page.events if event.time_s >= oldest_s and (not service or service in event.services)]


def _print(events: list[Event]) -> None:
    if not events:
        return
    table = Table.grid(Column(no_wrap=True), Column(no_wrap=True), Column(no_wrap=True), Column(), padding=(0, 2))
    for event in events:
        colour = _COLOURS.get(event.level, "default")
        lines = list(_lines(event))
        for number, (index, text) in enumerate(lines):
            first = number == 0
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event.time_s)) if first else ""
            name = f"[{colour}]{event.event}[/]" if first else ""
            table.add_row(when, name, f"index {index}" if index else "", escape(text))
    console().print(table)


def _lines(event: Event) -> Iterator[tuple[int, str]]:
    """With the index that each comes from."""
    if not event.changes:
        yield event.index, event.message
    for change in event.changes:
        yield change.index, f"{change.service}: {change.what}" if change.service else change.what
