"""An agent for the faults that a real one does not produce on demand: refusals, lies about the index, torn answers.

It answers blocking queries as Consul does: one index for everything, a reply when it moves or the wait is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web

from plugin.settings import ConsulSettings

Answer = Callable[[web.Request], Any]
_SAME = {"/v1/connect/ca/roots": "/v1/agent/connect/ca/roots"}
"""What the servers say is what the agent says, unless a test makes one of them fail."""


class FakeConsul:
    """An asynchronous context manager; ``values`` are JSON by path, or functions of the request."""

    def __init__(self) -> None:
        self.index = 10
        self.values: dict[str, Any | Answer] = {}
        self.requests: list[web.Request] = []
        self.indexed = True
        """Whether answers carry X-Consul-Index."""
        self.headers: dict[str, str] = {}
        self.open = 0
        """Requests under way."""
        self.most_open = 0
        self._faults: dict[str, deque[Answer]] = {}
        self._moved = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self.address = ""

    async def __aenter__(self) -> FakeConsul:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.address = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def settings(self) -> ConsulSettings:
        return ConsulSettings(address=self.address, token="a-token")

    async def put(self, path: str, value: Any) -> None:
        """Change ``path``, move the index and wake every blocking query."""
        self.values[path] = value
        await self.move(self.index + 1)

    async def move(self, index: int) -> None:
        async with self._moved:
            self.index = index
            self._moved.notify_all()

    def fail(self, path: str, *faults: Answer) -> None:
        """The next answers to ``path``; then it is well again."""
        self._faults.setdefault(path, deque()).extend(faults)

    def asked(self, path: str) -> list[web.Request]:
        return [request for request in self.requests if request.path == path]

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        # Kept by the request, so that tests can look at it later.
        await request.read()
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            return await self._response(request)
        finally:
            self.open -= 1

    async def _response(self, request: web.Request) -> web.StreamResponse:
        if faults := self._faults.get(request.path):
            return await faults.popleft()(request)  # type: ignore[no-any-return]
        await self._block(request)
        headers = {"X-Consul-Index": str(self.index), **self.headers} if self.indexed else self.headers
        path = _SAME.get(request.path, request.path)
        if path not in self.values:
            return web.Response(status=404, text="not found", headers=headers)
        value = self.values[path]
        value = value(request) if callable(value) else value
        if isinstance(value, web.Response):
            return value
        return web.Response(text=json.dumps(value), content_type="application/json", headers=headers)

    async def _block(self, request: web.Request) -> None:
        index = int(request.query.get("index", "0"))
        if not index or not self.indexed:
            return
        wait_s = float(request.query["wait"].removesuffix("ms")) / 1000
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s), self._moved:
                await self._moved.wait_for(lambda: self.index != index)


def status(code: int, text: str = "", **headers: str) -> Answer:
    """A refusal."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=code, text=text, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def body(content: bytes, index: int | str | None = None) -> Answer:
    """An answer of status 200 with any bytes."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content, headers={} if index is None else {"X-Consul-Index": str(index)})

    return answer


def torn(content: bytes, promised: int) -> Answer:
    """An answer whose connection ends before all of it came."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(promised), "X-Consul-Index": "11"})
        await response.prepare(request)
        await response.write(content)
        assert request.transport is not None
        request.transport.abort()
        return response

    return answer


def silent(seconds: float) -> Answer:
    """No answer for ``seconds``."""

    async def answer(_: web.Request) -> web.Response:
        await asyncio.sleep(seconds)
        return web.Response(text="null")

    return answer
