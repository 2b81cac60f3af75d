"""The admin server: health, readiness, metrics, the state as JSON, and what an operator may ask of the process.

Owns the pages and the listening socket. Who may ask what is ``guard.py``; how long and how many is ``doorkeeper.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware

from plugin.addresses import HostPort
from plugin.admin.audited import audited
from plugin.admin.dashboard.pages import add_dashboard
from plugin.admin.doorkeeper import Doorkeeper
from plugin.admin.guard import LARGEST_BODY, Access, Handler, guarded
from plugin.admin.metrics import GatewayCollector, exposition
from plugin.admin.operations import add_operations
from plugin.admin.operations_view import OperationsView
from plugin.admin.search import search_connections
from plugin.admin.view import GatewayView
from plugin.audit.journal import Journal
from plugin.errors import ConfigError, StartError
from proxy.logs import emit

logger = logging.getLogger(__name__)

PORTS_TO_TRY = 50
LARGEST_PAGE = 10_000
VIEW: web.AppKey[GatewayView] = web.AppKey("view", GatewayView)

DOORKEEPER: web.AppKey[Doorkeeper] = web.AppKey("doorkeeper", Doorkeeper)


def build_app(
    view: GatewayView,
    access: Access | None = None,
    *,
    refresh: Callable[[], None] = lambda: None,
    operations: OperationsView | None = None,
    journal: Journal | None = None,
) -> web.Application:
    """Every page of the admin server. Further pages may be added to its router before it starts: those
    that answer anything but GET and HEAD need the token without doing anything for it.

    ``refresh`` reads again what SIGHUP reads again. Without ``operations``, there are no pages of ``operations.py``.
    Calls that may change something are written to ``journal``.
    """
    middlewares: list[Middleware] = [_noticed] if journal is None else [_noticed, audited(journal)]
    app = web.Application(middlewares=middlewares, client_max_size=LARGEST_BODY)
    guarded(app, access or Access())
    app[VIEW] = view
    pages = _Pages(view, refresh)
    app.router.add_get("/health", pages.health)
    app.router.add_get("/ready", pages.ready)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/api/status", pages.status)
    app.router.add_get("/api/connections", pages.connections)
    app.router.add_get("/api/snapshot", pages.snapshot)
    app.router.add_post("/api/refresh", pages.refresh)
    add_dashboard(app, view, _stays)
    if operations is not None:
        add_operations(app, operations)
    return app


class AdminServer:
    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        self._server: asyncio.Server | None = None
        self._socket_path: Path | None = None
        self.address: HostPort | None = None
        """As bound; ``None`` before :meth:`start`, and on a Unix socket."""
        self._listening: socket.socket | None = None

    async def start(self, wanted: HostPort, *, chosen: bool, inherited: int = -1) -> HostPort:
        """Listen on ``wanted``, or unless the operator has ``chosen`` it, on the next free port after it.

        The descriptor ``inherited`` of a listening socket is used if that is what is wanted, else closed.

        :raises StartError: when no port can be bound.
        """
        if inherited >= 0 and (going_on := _suitable(socket.socket(fileno=inherited), wanted, chosen=chosen)):
            return await self._started(going_on)
        last = wanted.port if chosen or not wanted.port else min(65535, wanted.port + PORTS_TO_TRY)
        for port in range(wanted.port, last + 1):
            try:
                listening = _listening(wanted.host, port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port < last:
                    continue
                raise StartError(
                    f"cannot open the admin address {HostPort(wanted.host, port)}: {error.strerror};"
                    " choose another with --admin-address"
                ) from error
            break
        return await self._started(listening, wanted)

    def descriptor(self) -> int:
        """Of the listening socket, as long as the server runs; -1 before."""
        return self._listening.fileno() if self._listening is not None else -1

    async def _started(self, listening: socket.socket, wanted: HostPort | None = None) -> HostPort:
        await self._serve(listening)
        self._listening = listening
        bound_host, bound_port = listening.getsockname()[:2]
        self.address = HostPort(bound_host, bound_port)
        message = f"the admin pages are at http://{self.address}/"
        if wanted is not None and wanted.port and bound_port != wanted.port:
            message += f" because port {wanted.port} is taken"
        emit(logger, logging.INFO, "admin.started", message, address=str(self.address))
        return self.address

    async def start_unix(self, path: Path) -> None:
        """Listen on a Unix socket that only this user can connect to. :raises StartError: when it cannot be bound."""
        try:
            listening = await asyncio.to_thread(_listening_at, path)
        except OSError as error:
            why = "another process listens there" if error.errno == errno.EADDRINUSE else error.strerror
            raise StartError(f"cannot open --admin-address unix://{path}: {why}; choose another") from error
        self._socket_path = path
        await self._serve(listening)
        emit(logger, logging.INFO, "admin.started", f"the admin pages are at unix://{path}", address=f"unix://{path}")

    async def _serve(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._app[DOORKEEPER] = keeper = Doorkeeper(loop)
        await self._runner.setup()
        make = self._runner.server
        assert make is not None
        listening.setblocking(False)
        if listening.family == socket.AF_UNIX:
            self._server = await loop.create_unix_server(lambda: keeper.watch(make), sock=listening)
        else:
            self._server = await loop.create_server(lambda: keeper.watch(make), sock=listening)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        if self._socket_path is not None:
            with contextlib.suppress(OSError):
                self._socket_path.unlink()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def _listening_at(path: Path) -> socket.socket:
    """Replaces a socket that a crash has left, never one that answers. Nobody else may connect, not even at first."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(os.fsencode(path)) == 0:
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            path.unlink()
        # Linux takes the mode of the descriptor for that of the file, so that there is no moment of another one.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(os.fsencode(path))
        listening.listen(128)
    except BaseException:
        listening.close()
        raise
    return listening


@web.middleware
async def _noticed(request: web.Request, handler: Handler) -> web.StreamResponse:
    if (keeper := request.app.get(DOORKEEPER)) is not None:
        keeper.request_came(request.transport)
    return await handler(request)


def _stays(request: web.Request) -> None:
    if (keeper := request.app.get(DOORKEEPER)) is not None:
        keeper.stays(request.transport)


def _suitable(listening: socket.socket, wanted: HostPort, *, chosen: bool) -> socket.socket | None:
    """``listening`` if it is what is wanted; else it is closed."""
    if listening.family != socket.AF_UNIX:
        host, port = listening.getsockname()[:2]
        if host == wanted.host and (not chosen or wanted.port in (0, port)):
            return listening
    listening.close()
    return None


class _Pages:
    def __init__(self, view: GatewayView, refresh: Callable[[], None]) -> None:
        self._view = view
        self._refresh = refresh
        self._collector = GatewayCollector(view)

    async def health(self, _: web.Request) -> web.Response:
        """200 while the control process runs its event loop."""
        return web.Response(text="alive\n")

    async def ready(self, _: web.Request) -> web.Response:
        """200 when new connections are served with the newest state, else 503 and why not."""
        reasons = self._view.not_ready()
        if not reasons:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="".join(f"{reason}\n" for reason in reasons))

    async def metrics(self, request: web.Request) -> web.Response:
        """In the text format, or as OpenMetrics where ``Accept`` names it."""
        body, content_type = exposition(self._collector, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(self, _: web.Request) -> web.Response:
        """Everything that ``consul-tgw status`` shows."""
        return _json(msgspec.json.encode(self._view.status()))

    async def connections(self, request: web.Request) -> web.Response:
        """``?limit=`` (1000), ``?after=`` (``next`` of the page before), ``?search=`` part of a name or an address."""
        try:
            limit = int(request.query.get("limit", "1000"))
        except ValueError:
            raise web.HTTPBadRequest(text="limit must be a number\n") from None
        after, limit = request.query.get("after", ""), max(1, min(limit, LARGEST_PAGE))
        try:
            if text := request.query.get("search", ""):
                page = await search_connections(self._view, text, after, limit)
            else:
                page = await self._view.connections(after, limit)
        except ConfigError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return _json(msgspec.json.encode(page))

    async def snapshot(self, _: web.Request) -> web.Response:
        """What the workers should have, without private keys; its form follows the program and is not stable."""
        return _json(self._view.snapshot())

    async def refresh(self, _: web.Request) -> web.Response:
        """As SIGHUP; 202, since it is done after the answer."""
        self._refresh()
        return web.Response(status=202, body=b"{}", content_type="application/json")


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
