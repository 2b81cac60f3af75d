"""``GET /api/stream``: server-sent events (WHATWG HTML, section 9.2) for as long as somebody looks.

One picture for all listeners, made about once a second and never when there is none. When making it takes more than a
fiftieth of the control process's time it is made more rarely, down to once in three seconds. Nobody waits for a
listener: one that is behind by more than a few events is let go, and may come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import msgspec
from aiohttp import web

from plugin.admin.dashboard.model import Tick
from plugin.admin.dashboard.picture import Picture
from plugin.admin.view import GatewayView
from plugin.process.tasks import spawn
from proxy.logs import emit

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
LONGEST_INTERVAL_S = 3.0
"""The page calls its data stale after 5 s."""
LARGEST_SHARE = 0.02
"""Of the time of the control process."""
MOST_LISTENERS = 16
MOST_WAITING = 8
"""Events that a listener may be behind."""
_encoder = msgspec.json.Encoder()


class _Listener:
    def __init__(self, transport: asyncio.BaseTransport | None) -> None:
        self.events: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self._transport = transport

    def take(self, event: bytes) -> bool:
        """Whether it keeps up; one that does not is cut off, whatever its socket holds."""
        try:
            self.events.put_nowait(event)
        except asyncio.QueueFull:
            if isinstance(self._transport, asyncio.WriteTransport):
                self._transport.abort()
            return False
        return True


class Stream:
    def __init__(
        self,
        view: GatewayView,
        *,
        stays: Callable[[web.Request], None] = lambda _: None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """``stays`` is told of a request that may take as long as it wants."""
        self._view = view
        self._stays = stays
        self._interval_s = interval_s
        self._listeners: dict[_Listener, asyncio.Task[None] | None] = {}
        self._ticking: asyncio.Task[None] | None = None
        self._picture: Picture | None = None
        self.ticks = 0
        """How often a picture was made."""
        self.cost_s = 0.0
        """Of the last one."""

    @property
    def listening(self) -> int:
        return len(self._listeners)

    async def listen(self, request: web.Request) -> web.StreamResponse:
        """Events ``snapshot`` (once, first) and ``tick``, both with a :class:`Tick`."""
        if len(self._listeners) >= MOST_LISTENERS:
            raise web.HTTPServiceUnavailable(
                text=f"{MOST_LISTENERS} dashboards are open already; close one\n", headers={"Retry-After": "5"}
            )
        self._stays(request)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        listener = _Listener(request.transport)
        self._listeners[listener] = asyncio.current_task()
        try:
            await response.prepare(request)
            self._begin()
            assert self._picture is not None
            # From here to its first event nothing is awaited: no tick is lost between them.
            listener.take(_event("snapshot", self._picture.whole()))
            with contextlib.suppress(ConnectionError):
                while True:
                    await response.write(await listener.events.get())
        finally:
            self._listeners.pop(listener, None)
            if not self._listeners:
                self._rest()
        return response

    async def close(self, _: web.Application | None = None) -> None:
        """Let everybody go: the server stops."""
        self._rest()
        for task in list(self._listeners.values()):
            if task is not None:
                task.cancel()

    def _begin(self) -> None:
        if self._picture is None:
            self._picture = Picture()
            self._look(self._picture)
            self._ticking = spawn(self._tick(self._picture), name="dashboard stream")

    def _rest(self) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
        self._ticking = self._picture = None

    def _look(self, picture: Picture) -> Tick:
        began_s = time.perf_counter()
        tick = picture.update(self._view.status(), self._view.totals(), time.time())
        self.ticks += 1
        self.cost_s = time.perf_counter() - began_s
        return tick

    def pause_s(self) -> float:
        """Until the next picture."""
        return max(self._interval_s, min(LONGEST_INTERVAL_S, self.cost_s / LARGEST_SHARE))

    async def _tick(self, picture: Picture) -> None:
        while True:
            await asyncio.sleep(self.pause_s())
            event = _event("tick", self._look(picture))
            for listener in list(self._listeners):
                if not listener.take(event):
                    task = self._listeners.pop(listener, None)
                    if task is not None:
                        task.cancel()
                    emit(logger, logging.INFO, "dashboard.dropped", "a dashboard that did not keep up was let go")


def _event(kind: str, tick: Tick) -> bytes:
    """JSON has no line breaks of its own, so one line of data is enough."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _encoder.encode(tick))
