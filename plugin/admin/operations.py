"""The pages with which operators act on what runs, and look at it more closely than ``/api/status`` does."""

from __future__ import annotations

import msgspec
from aiohttp import web

from plugin.admin.operations_view import KillRequest, OperationsView
from plugin.assemble.durations import duration_s
from plugin.errors import ConfigError

LONGEST_WAIT_S = 20.0
"""Shorter than what the doorkeeper allows for an answer."""


def add_operations(app: web.Application, view: OperationsView) -> None:
    pages = _Pages(view)
    app.router.add_get("/api/events", pages.events)
    app.router.add_get("/api/config", pages.config)
    app.router.add_get("/api/traffic", pages.traffic)
    app.router.add_get("/api/certificates", pages.certificates)
    app.on_shutdown.append(pages.release)
    app.router.add_post("/api/connections/kill", pages.kill)


class _Pages:
    def __init__(self, view: OperationsView) -> None:
        self._view = view

    async def events(self, request: web.Request) -> web.Response:
        """``?after=`` (0), a number of an event, and ``?wait=`` (``0s``): how long to wait for the next one."""
        try:
            after = int(request.query.get("after", "0"))
            wait_s = duration_s(request.query.get("wait", "0s"))
        except ValueError:
            text = "after must be the number of an event, and wait a duration such as 20s\n"
            raise web.HTTPBadRequest(text=text) from None
        return _json(await self._view.events(max(0, after), min(max(0.0, wait_s), LONGEST_WAIT_S)))

    async def release(self, _: web.Application) -> None:
        self._view.stop_waiting()

    async def config(self, _: web.Request) -> web.Response:
        """Settings, and where each came from; secrets only say that they are set."""
        return _json(self._view.config())

    async def traffic(self, _: web.Request) -> web.Response:
        """Totals by service and caller: two answers make rates."""
        return _json(self._view.traffic())

    async def certificates(self, _: web.Request) -> web.Response:
        """Every certificate that the gateway depends on, and what renews it."""
        return _json(await self._view.certificates())

    async def kill(self, request: web.Request) -> web.Response:
        """A :class:`KillRequest`; answered with what was ended."""
        try:
            wanted = msgspec.json.decode(await request.read(), type=KillRequest)
            return _json(await self._view.kill(wanted))
        except (ConfigError, msgspec.MsgspecError) as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
