"""``consul-tgw dev``: the whole picture on one machine, with real parts and real traffic."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live

from plugin.errors import GatewayError, StartError

if TYPE_CHECKING:
    from plugin.dev.stage import Stage
    from plugin.dev.story import LiveSession

_ROUND_EVERY_S = 3.0
_REFRESH_EVERY_S = 0.5
_LOG_WIDTH = 150


@click.command()
@click.option("--once", is_flag=True, help="Prove the round trip, then end. The default without a terminal.")
def dev(once: bool) -> int:
    """Show a gateway at work: Consul, Envoy sidecars, external services and traffic, all on this machine.

    Starts a Consul dev agent (or uses the one at CONSUL_HTTP_ADDR), three external services outside the mesh (HTTP,
    TLS, PostgreSQL), two client services in it, and the gateway between them. Exit code 0: all went as it should.
    """
    folder = Path(tempfile.mkdtemp(prefix="consul-tgw-dev-"))
    result = asyncio.run(_interruptible(folder, once or not sys.stdout.isatty()))
    # After a failure an exception has passed: the logs stay.
    shutil.rmtree(folder, ignore_errors=True)
    return result


async def _interruptible(folder: Path, once: bool) -> int:
    """Ctrl-C and SIGTERM end it in order, whatever it is doing; nothing that it started is left."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await _perform(folder, once)
    except asyncio.CancelledError:
        return 0 if not once else 130


async def _perform(folder: Path, once: bool) -> int:
    from plugin.dev.stage import Stage
    from plugin.dev.summary import Steps

    # Without a terminal nobody wraps lines, and a log may be wider than 80 columns.
    console = Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH)
    steps = Steps(console)
    try:
        async with Stage(folder, steps) as stage:
            good = await _prove(console, stage)
            if once or not good:
                return 0 if good else 1
            await _stay(console, stage)
        return 0
    except GatewayError as error:
        raise StartError(f"the demonstration failed: {error}\nIts logs are in {folder}.") from error
    finally:
        steps.done()


async def _prove(console: Console, stage: Stage) -> bool:
    """One round and one change of an intention; true when all of it was as it should be."""
    from plugin.dev import story, summary

    outcomes = await story.everybody_asks(stage)
    console.print(summary.outcomes_table(outcomes))
    ended_after_ms = await story.flip(stage)
    console.print(
        f"web was denied billing-db while it had a session there: [green]the session ended {ended_after_ms:.0f} ms"
        " after the change was sent to Consul[/green], and web is allowed again.",
        highlight=False,
    )
    records = await story.records_of_round(stage.gateway, len(outcomes))
    console.print(summary.connections_table(records))
    console.print(summary.services_table(await stage.gateway.status()))
    wrong = [f"{one.source} -> {one.destination}: {one.text}" for one in outcomes if not one.as_expected]
    for line in wrong:
        console.print(f"[bold red]Not as expected:[/bold red] {line}", highlight=False)
    if not wrong:
        console.print("[bold green]The round trip works.[/bold green]")
    return not wrong


async def _stay(console: Console, stage: Stage) -> None:
    """Traffic and a live summary until interrupted."""
    from plugin.dev import story, summary

    shown: dict[str, Any] = {"outcomes": [], "status": None}

    def render() -> Any:
        records = story.connection_records(stage.gateway)
        return summary.screen(stage, shown["outcomes"], records, shown["status"])

    async def traffic() -> None:
        while True:
            shown["outcomes"] = await story.everybody_asks(stage)
            with contextlib.suppress(GatewayError):
                shown["status"] = await stage.gateway.status()
            await asyncio.sleep(_ROUND_EVERY_S)

    with Live(render(), console=console, screen=False, auto_refresh=False) as live:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic())
            tasks.create_task(_keep_session(stage))
            while True:
                await asyncio.sleep(_REFRESH_EVERY_S)
                live.update(render(), refresh=True)


async def _keep_session(stage: Stage) -> None:
    """A session with the database that stays open as long as the policy lets it: the one to be revoked."""
    from plugin.dev import story

    while True:
        session: LiveSession = story.LiveSession(stage)
        with contextlib.suppress(GatewayError):
            await session.open()
            await session.ended(3_600)
        await session.close()
        await asyncio.sleep(_ROUND_EVERY_S)
