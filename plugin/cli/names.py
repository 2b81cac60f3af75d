"""Completes names from the running gateway. What is not there in a moment is not completed: a shell must not hang."""

from __future__ import annotations

import click
import msgspec
from click.shell_completion import CompletionItem

from plugin.answers.status import Status
from plugin.answers.traffic import Traffic
from plugin.cli.admin_client import find
from plugin.errors import GatewayError

_PATIENCE_S = 1.0


def services(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Linked external services."""
    body = _ask(context, "/api/status")
    names = [one.name for one in msgspec.json.decode(body, type=Status).services] if body else []
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def sources(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Callers that were there since the gateway started."""
    body = _ask(context, "/api/traffic")
    rows = msgspec.json.decode(body, type=Traffic).rows if body else ()
    return [CompletionItem(name) for name in sorted({one.source for one in rows}) if name and name.startswith(begun)]


def _ask(context: click.Context, path: str) -> bytes:
    given = context.params
    try:
        found = find(
            service=given.get("gateway") or "",
            admin_address=given.get("admin_address") or "",
            runtime_dir=given.get("runtime_dir"),
            timeout_s=_PATIENCE_S,
        )
        return found.fetch(path, timeout_s=_PATIENCE_S)
    except GatewayError:
        return b""
