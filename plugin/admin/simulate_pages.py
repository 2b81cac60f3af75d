"""``POST /api/simulate``: what config entries would change that are not written yet. It writes nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from plugin.errors import ConfigError
from plugin.simulate.answer import Simulation
from plugin.simulate.hcl import read_entries


class Simulating(Protocol):
    async def simulate(self, raw: Iterable[Any]) -> Simulation:
        """:raises ConfigError: when an entry is not what Consul would take."""
        ...


def add_simulating(app: web.Application, simulating: Simulating) -> None:
    app.router.add_post("/api/simulate", _Page(simulating).simulate)


class _Page:
    def __init__(self, simulating: Simulating) -> None:
        self._simulating = simulating

    async def simulate(self, request: web.Request) -> web.Response:
        """The body is ``{"entries": [...]}``, each as ``consul config read`` prints it, or ``{"text": "..."}``, HCL or
        JSON as people write it."""
        try:
            answer = await self._simulating.simulate(await _entries(await request.read()))
        except ConfigError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


async def _entries(content: bytes) -> list[Any]:
    """:raises ConfigError: when there are none."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise ConfigError("the body is not JSON") from None
    match body:
        case {"entries": list(entries)}:
            return entries
        case {"text": str(text)}:
            # A parser of HCL takes its time.
            return await asyncio.to_thread(read_entries, text, "the text")
    raise ConfigError('the body is neither {"entries": [...]} nor {"text": "..."}')
