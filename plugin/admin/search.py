"""Finds live connections by what is in them, page by page, without keeping any."""

from __future__ import annotations

from plugin.admin.view import ConnectionList, GatewayView, WorkerConnection
from proxy.messages import Connection

PAGE = 1_000
MOST_SCANNED = 20_000
"""Connections that one answer looks at; ``next`` goes on from there."""


async def search_connections(view: GatewayView, text: str, after: str, limit: int) -> ConnectionList:
    """Those of which ``text`` is a part of the caller's name or address, the service, the endpoint or the ID.

    :raises ConfigError: when ``after`` is not one of our own.
    """
    wanted = text.lower()
    found: list[WorkerConnection] = []
    problems: list[str] = []
    for _ in range(MOST_SCANNED // PAGE):
        page = await view.connections(after, PAGE)
        problems += page.problems
        for one in page.connections:
            if not _has(one.connection, one.id, wanted):
                continue
            found.append(one)
            if len(found) >= limit:
                # A cursor of our own form: as if the page had ended here.
                return ConnectionList(
                    tuple(found), f"{one.pid}:{one.connection.number}", tuple(dict.fromkeys(problems))
                )
        after = page.next
        if not after:
            break
    return ConnectionList(tuple(found), after, tuple(dict.fromkeys(problems)))


def _has(one: Connection, identity: str, wanted: str) -> bool:
    callers = (one.source, one.caller, *(request.caller for request in one.live_requests))
    return any(wanted in text.lower() for text in (*callers, one.service, one.client, one.endpoint, identity))
