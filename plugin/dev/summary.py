"""How the demonstration shows what happens: lines for a log, a live screen for a terminal."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from plugin.dev import locate
from plugin.dev.stage import Stage, entries_folder
from plugin.dev.story import Outcome

_RECORDS_SHOWN = 12
_VERDICT_STYLES = {"allowed": "green", "denied": "red", "refused": "yellow"}


class Steps:
    """Tells each step of the start once it is done, and what is being waited for meanwhile."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._number = 0
        self._status = console.status("") if console.is_terminal else None

    def __call__(self, name: str, outcome: str) -> None:
        if not outcome:
            if self._status is not None:
                self._status.update(f"{name} ...")
                self._status.start()
            return
        self.done()
        self._number += 1
        self._console.print(f"[bold]{self._number:2d}[/bold]  {name:<38} [dim]{outcome}[/dim]", highlight=False)

    def done(self) -> None:
        if self._status is not None:
            self._status.stop()


def outcomes_table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="Requests through sidecar, gateway and external service", title_justify="left")
    for heading in ("from", "to", "expected", "result", "answer", "ms"):
        table.add_column(heading, justify="right" if heading == "ms" else "left", overflow="fold")
    for outcome in outcomes:
        result = "answered" if outcome.answered else "refused"
        style = "green" if outcome.as_expected else "bold red"
        table.add_row(
            outcome.source,
            outcome.destination,
            "answered" if outcome.expected else "refused",
            Text(result + ("" if outcome.as_expected else "  <- not as expected"), style),
            outcome.text if outcome.answered else Text(outcome.text, "dim"),
            f"{outcome.elapsed_ms:.0f}",
        )
    return table


def connections_table(records: Sequence[dict[str, Any]]) -> Table:
    """The newest lines of the gateway's access log."""
    table = Table(title="What the gateway saw (its access log)", title_justify="left")
    for heading in ("time", "caller", "service", "verdict", "decided by", "endpoint", "in", "out", "ended"):
        table.add_column(heading, justify="right" if heading in ("in", "out") else "left", overflow="fold")
    for record in records[-_RECORDS_SHOWN:]:
        verdict = record["verdict"]
        table.add_row(
            record["time"][11:23],
            record.get("source", "").rpartition("/svc/")[2] or record["client"],
            record.get("service", ""),
            Text(verdict, _VERDICT_STYLES.get(verdict, "")),
            _decided_by(record),
            record.get("endpoint", ""),
            str(record.get("bytes_received", 0)),
            str(record.get("bytes_sent", 0)),
            record["reason"],
        )
    return table


def _decided_by(record: dict[str, Any]) -> str:
    """The intention, and of an HTTP service what was asked."""
    decided: str = record.get("intention", "") or record.get("detail", "")
    return f"{record['method']} {record['path']}: {decided}" if "method" in record else decided


def services_table(status: dict[str, Any]) -> Table:
    """The linked services, from the gateway's own status."""
    table = Table(title="Linked services", title_justify="left")
    for heading in ("service", "served", "endpoints", "to it", "leaf expires in", "live connections"):
        table.add_column(heading, overflow="fold")
    for service in status["services"]:
        endpoints = ", ".join(endpoint["address"] for endpoint in service["endpoints"])
        table.add_row(
            service["name"],
            Text("yes", "green") if service["served"] else Text("; ".join(service["reasons"]), "red"),
            endpoints,
            "TLS" if service["upstream_tls"] else "plain TCP",
            _left(service["leaf_expires_at_s"]),
            str(service["open_connections"]),
        )
    return table


def _left(expires_at_s: float) -> str:
    left_s = expires_at_s - time.time()
    return str(datetime.timedelta(seconds=round(left_s))) if left_s > 0 else "expired"


def try_next(stage: Stage) -> Panel:
    """What to type in a second terminal, and what will be seen."""
    consul = f"CONSUL_HTTP_ADDR={stage.agent.http_address} {locate.consul()}"
    gateway = Path(sys.executable).with_name("consul-tgw")
    intentions = entries_folder() / "service-intentions-billing-db.hcl"
    text = Text()
    for command, seen in (
        (
            f"{consul} intention delete web billing-db",
            "the open session of web ends at once (revoked), its next query is refused, nobody else notices",
        ),
        (f"{consul} config write {intentions}", "web is let in again"),
        (
            f"sed 's/deny/allow/' {intentions} | {consul} config write -",
            "batch gets its first answer",
        ),
        (
            f"psql -h 127.0.0.1 -p {stage.web_ports['billing-db']} -U {stage.postgres.user} postgres",
            "you are web: a session through sidecar and gateway",
        ),
        (f"{gateway} status --admin-address 127.0.0.1:{stage.gateway.admin_port}", "the state of the gateway"),
        (f"curl http://127.0.0.1:{stage.gateway.admin_port}/metrics", "its metrics"),
    ):
        text.append(f"  {command}\n", "bold")
        text.append(f"      {seen}\n", "dim")
    return Panel(text, title="Try in another terminal", title_align="left")


def screen(
    stage: Stage, outcomes: Sequence[Outcome], records: Sequence[dict[str, Any]], status: dict[str, Any] | None
) -> RenderableType:
    """The whole live summary."""
    parts: list[RenderableType] = [outcomes_table(outcomes), connections_table(records)]
    if status is not None:
        parts.append(services_table(status))
    parts += [try_next(stage), Text(f"Logs: {stage.work_dir}   Ctrl-C ends everything.", "dim")]
    return Group(*parts)
