"""``POST /api/simulate``: what config entries would change that are not written yet. It writes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
from aiohttp import web

from plugin.errors import ConfigError
from plugin.simulate.answer import Simulation


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
        """The body is ``{"entries": [...]}``, each as ``consul config read`` prints it."""
        try:
            body = json.loads(await request.read())
        except (ValueError, RecursionError):
            raise web.HTTPBadRequest(text="the body is not JSON\n") from None
        entries = body.get("entries") if isinstance(body, dict) else None
        if not isinstance(entries, list):
            raise web.HTTPBadRequest(text='the body is not {"entries": [...]}\n')
        try:
            answer = await self._simulating.simulate(entries)
        except ConfigError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
