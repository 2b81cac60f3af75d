"""The routes of the dashboard."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from plugin.admin.dashboard.files import Files
from plugin.admin.dashboard.stream import Stream
from plugin.admin.view import GatewayView


def add_dashboard(app: web.Application, view: GatewayView, stays: Callable[[web.Request], None]) -> Stream:
    """``stays`` is told of a request that may take as long as it wants."""
    files, stream = Files(), Stream(view, stays=stays)
    app.router.add_get("/", files.page)
    app.router.add_get("/ui/{name}", files.file)
    app.router.add_get("/api/stream", stream.listen, allow_head=False)
    app.on_shutdown.append(stream.close)
    return stream
