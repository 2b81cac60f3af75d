"""The pages with which operators act on what runs, and look at it more closely than ``/api/status`` does."""

from __future__ import annotations

import msgspec
from aiohttp import web

from plugin.admin.operations_view import KillRequest, OperationsView
from plugin.errors import ConfigError


def add_operations(app: web.Application, view: OperationsView) -> None:
    pages = _Pages(view)
    app.router.add_post("/api/connections/kill", pages.kill)


class _Pages:
    def __init__(self, view: OperationsView) -> None:
        self._view = view

    async def kill(self, request: web.Request) -> web.Response:
        """A :class:`KillRequest`; answered with what was ended."""
        try:
            wanted = msgspec.json.decode(await request.read(), type=KillRequest)
            return _json(await self._view.kill(wanted))
        except (ConfigError, msgspec.MsgspecError) as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
