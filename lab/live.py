"""A connection that stays: a query of minutes, from web's host to the database, and the gateway that carries it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from lab.actors import DATABASE, Actors, Gateway
from lab.namespaces import together
from plugin.dev.processes import wait_until


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveQuery:
    gateway: Gateway
    connection: dict[str, Any]
    """As the gateway shows it."""
    query: asyncio.Task[None]
    """Done with an error when the connection has ended."""


@contextlib.asynccontextmanager
async def live_query(actors: Actors, gateways: Sequence[Gateway] = ()) -> AsyncIterator[LiveQuery]:
    """``gateways`` are those that may carry it: all, unless they are given.

    :raises StartError: when the database is not reached, or none of them carries it.
    """
    asked = gateways or actors.gateways
    before = {(gateway, row["id"]) for gateway, row in await _connections(asked)}
    query = asyncio.get_running_loop().create_task(actors.application.query_that_stays())
    carried: list[tuple[Gateway, dict[str, Any]]] = []

    async def is_carried() -> bool:
        if query.done():
            query.result()
        rows = await _connections(asked)
        carried[:] = [(gateway, row) for gateway, row in rows if (gateway, row["id"]) not in before]
        return bool(carried)

    try:
        await wait_until(is_carried, 30.0, what="a gateway carries the query", every_s=0.2)
        gateway, connection = carried[0]
        yield LiveQuery(gateway=gateway, connection=connection["connection"], query=query)
    finally:
        query.cancel()
        await asyncio.wait({query})


async def _connections(gateways: Sequence[Gateway]) -> list[tuple[Gateway, dict[str, Any]]]:
    of_each = await together(*(gateway.connections(DATABASE) for gateway in gateways))
    return [(gateway, row) for gateway, rows in zip(gateways, of_each, strict=True) for row in rows]
