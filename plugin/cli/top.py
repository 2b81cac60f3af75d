"""``consul-tgw top``."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import click
import msgspec
from rich.markup import escape
from rich.table import Column, Table

from plugin.answers.traffic import Rates, Traffic, rates
from plugin.cli import names
from plugin.cli.admin_client import Found, find
from plugin.cli.gateway_options import gateway_options
from plugin.cli.screen import can_be_live, console, live, size
from plugin.cli.seconds_option import seconds_option


@click.command()
@seconds_option("--interval", default=2.0, minimum=0.2, help="Between two readings: rates are over this time.")
@click.option("--once", is_flag=True, help="Print it once, after one interval.")
@click.option(
    "--service", default="", metavar="NAME", shell_complete=names.services, help="Only this external service."
)
@click.option("--by", type=click.Choice(["source", "service"]), default="source", show_default=True, help="Detail.")
@click.option("--limit", type=click.IntRange(0), default=40, show_default=True, metavar="N", help="Rows; 0 shows all.")
@click.option("--json", "as_json", is_flag=True, help="Print it once, as JSON.")
@gateway_options
def top(
    interval: float,
    once: bool,
    service: str,
    by: str,
    limit: int,
    as_json: bool,
    gateway: str,
    admin_address: str,
    runtime_dir: Path | None,
) -> None:
    """Show rates by service and caller, drawn anew until q is pressed; without a terminal, once.

    Connections, requests, bytes of both directions, what was denied and what went wrong, a second; of services of HTTP
    also how long half of the requests and 99 of 100 took at most.
    """
    found = find(service=gateway, admin_address=admin_address, runtime_dir=runtime_dir)
    before = reading(found)
    if as_json or once or not can_be_live():
        time.sleep(interval)
        shown = _chosen(rates(before, reading(found), by_source=by == "source"), service, limit)
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode({"rates": shown}), indent=2).decode())
        else:
            console().print(_table(shown))
        return

    def draw() -> Table:
        nonlocal before
        earlier, before = before, reading(found)
        return _table(_chosen(rates(earlier, before, by_source=by == "source"), service, limit))

    live(draw, every_s=interval)


def reading(found: Found) -> Traffic:
    return msgspec.json.decode(found.fetch("/api/traffic"), type=Traffic)


def _chosen(every: list[Rates], service: str, limit: int) -> list[Rates]:
    shown = [one for one in every if service in ("", one.service)]
    return shown[:limit] if limit else shown


def _table(shown: list[Rates]) -> Table:
    table = Table(Column("service", no_wrap=True), Column("caller", no_wrap=True))
    a_second = ("connections/s", "requests/s", "received/s", "sent/s", "denied/s", "errors/s")
    for heading in ("open", *a_second, "p50", "p99"):
        table.add_column(heading, justify="right")
    for one in shown:
        whole = not one.source
        numbers = dataclasses.asdict(one)
        table.add_row(
            escape(one.service or "(none)") if whole else "",
            "all" if whole else escape(one.source),
            str(one.open),
            *(f"{numbers[name]:.1f}" for name in ("connections", "requests")),
            size(one.received),
            size(one.sent),
            *(f"[red]{numbers[name]:.1f}[/]" if numbers[name] else "0.0" for name in ("denied", "errors")),
            _milliseconds(one.p50_s),
            _milliseconds(one.p99_s),
            style="bold" if whole else "",
        )
    return table


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
