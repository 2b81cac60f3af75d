"""An external service for browsers and command lines: pages, bodies both ways, a websocket that echoes. aiohttp."""

from __future__ import annotations

import hashlib

from aiohttp import WSMsgType, web

from plugin.dev.processes import Launcher, free_ports

_CHUNK = 65_536
_PAGE = "<!doctype html><title>outside the mesh</title><p id=greeting>Hello"


class Pages(Launcher):
    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.versions: list[str] = []
        """Of HTTP, of each request."""
        self.sending = 0
        """Responses of ``/bytes`` that are under way."""
        self.sockets_ended: list[int] = []
        """The code with which each websocket has ended for the server."""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(client_max_size=0)
        application.add_routes(
            [
                web.get("/", self._page),
                web.get("/bytes/{size}", self._bytes),
                web.post("/digest", self._digest),
                web.put("/digest", self._digest),
                web.get("/socket", self._socket),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _note(self, request: web.Request) -> None:
        self.versions.append(f"{request.version.major}.{request.version.minor}")

    async def _page(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        return web.Response(text=_PAGE, content_type="text/html")

    async def _bytes(self, request: web.Request) -> web.StreamResponse:
        """So many zeros, with or without (``?chunked``) their number said beforehand."""
        self._note(request)
        left = int(request.match_info["size"])
        response = web.StreamResponse()
        if "chunked" not in request.query:
            response.content_length = left
        self.sending += 1
        try:
            await response.prepare(request)
            while left > 0:
                await response.write(bytes(min(left, _CHUNK)))
                left -= _CHUNK
            await response.write_eof()
        finally:
            self.sending -= 1
        return response

    async def _digest(self, request: web.Request) -> web.StreamResponse:
        """SHA-256 of what was sent."""
        self._note(request)
        digest = hashlib.sha256()
        async for part in request.content.iter_any():
            digest.update(part)
        return web.Response(text=digest.hexdigest())

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"echo of {message.data}")
            elif message.type is WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        self.sockets_ended.append(socket.close_code or 0)
        return socket
