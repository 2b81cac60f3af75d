"""The admin server: health, readiness, metrics and the state as JSON.

Read-only, without authentication, meant for loopback. A request whose Host is a name other than ``localhost`` is
refused: a web page cannot reach us by letting its own name resolve to this machine (DNS rebinding).
"""

from __future__ import annotations

import errno
import ipaddress
import logging
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from plugin.addresses import HostPort
from plugin.admin.metrics import GatewayCollector, exposition
from plugin.admin.view import GatewayView
from plugin.errors import ConfigError, StartError
from proxy.logs import emit

logger = logging.getLogger(__name__)

PORTS_TO_TRY = 50
LARGEST_PAGE = 10_000
VIEW: web.AppKey[GatewayView] = web.AppKey("view", GatewayView)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_app(view: GatewayView) -> web.Application:
    """Every page of the admin server. Further pages (a dashboard) may be added to its router before it starts."""
    app = web.Application(middlewares=[_local_names_only, _harden])
    app[VIEW] = view
    pages = _Pages(view)
    app.router.add_get("/health", pages.health)
    app.router.add_get("/ready", pages.ready)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/api/status", pages.status)
    app.router.add_get("/api/connections", pages.connections)
    app.router.add_get("/api/snapshot", pages.snapshot)
    return app


class AdminServer:
    def __init__(self, app: web.Application) -> None:
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self.address: HostPort | None = None
        """As bound; ``None`` before :meth:`start`."""

    async def start(self, wanted: HostPort, *, chosen: bool) -> HostPort:
        """Listen on ``wanted``, or unless the operator has ``chosen`` it, on the next free port after it.

        :raises StartError: when no port can be bound.
        """
        await self._runner.setup()
        last = wanted.port if chosen or not wanted.port else min(65535, wanted.port + PORTS_TO_TRY)
        for port in range(wanted.port, last + 1):
            try:
                site = web.TCPSite(self._runner, wanted.host, port)
                await site.start()
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port < last:
                    continue
                raise StartError(
                    f"cannot open the admin address {HostPort(wanted.host, port)}: {error.strerror};"
                    " choose another with --admin-address"
                ) from error
            break
        bound_host, bound_port = self._runner.addresses[0][:2]
        self.address = HostPort(bound_host, bound_port)
        message = f"the admin pages are at http://{self.address}/"
        if wanted.port and bound_port != wanted.port:
            message += f" because port {wanted.port} is taken"
        emit(logger, logging.INFO, "admin.started", message, address=str(self.address))
        return self.address

    async def stop(self) -> None:
        await self._runner.cleanup()


class _Pages:
    def __init__(self, view: GatewayView) -> None:
        self._view = view
        self._collector = GatewayCollector(view)

    async def health(self, _: web.Request) -> web.Response:
        """200 while the control process runs its event loop."""
        return web.Response(text="alive\n")

    async def ready(self, _: web.Request) -> web.Response:
        """200 when new connections are served with the newest state, else 503 and why not."""
        status = self._view.status()
        if status.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="".join(f"{reason}\n" for reason in status.not_ready))

    async def metrics(self, _: web.Request) -> web.Response:
        body = exposition(self._collector)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def status(self, _: web.Request) -> web.Response:
        return _json(msgspec.json.encode(self._view.status()))

    async def connections(self, request: web.Request) -> web.Response:
        """``?limit=`` (1000) and ``?after=`` (``next`` of the page before)."""
        try:
            limit = int(request.query.get("limit", "1000"))
        except ValueError:
            raise web.HTTPBadRequest(text="limit must be a number\n") from None
        try:
            page = await self._view.connections(request.query.get("after", ""), max(1, min(limit, LARGEST_PAGE)))
        except ConfigError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return _json(msgspec.json.encode(page))

    async def snapshot(self, _: web.Request) -> web.Response:
        return _json(self._view.snapshot())


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


@web.middleware
async def _local_names_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not _is_local_name(request.host):
        raise web.HTTPForbidden(text="ask by IP address or as localhost: other names are refused\n")
    return await handler(request)


@web.middleware
async def _harden(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response


def _is_local_name(host: str) -> bool:
    """An address literal needs no DNS and so cannot be rebound."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
