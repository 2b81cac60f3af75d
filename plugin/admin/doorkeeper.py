"""Keeps the admin server's connections few and short, so that one who sends slowly takes nothing from others.

aiohttp reads the head of a request without a deadline. Each connection here carries one request, has to bring it soon
and to take its answer soon; when there are too many, the one that has kept us waiting longest goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOST_CONNECTIONS = 128
REQUEST_WITHIN_S = 5.0
ANSWER_WITHIN_S = 30.0


class Doorkeeper:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}
        """Those whose request has not come yet, the oldest first."""
        self._served: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def opened(self, transport: asyncio.Transport) -> None:
        if len(self._waiting) + len(self._served) >= MOST_CONNECTIONS:
            oldest = next(iter(self._waiting), transport)
            self.closed(oldest)
            _abort(oldest)
            if oldest is transport:
                return
        self._waiting[transport] = self._loop.call_later(REQUEST_WITHIN_S, transport.abort)

    def request_came(self, transport: asyncio.BaseTransport | None) -> None:
        timer = self._waiting.pop(transport, None) if transport is not None else None
        if timer is not None and transport is not None:
            timer.cancel()
            self._served[transport] = self._loop.call_later(ANSWER_WITHIN_S, _abort, transport)

    def stays(self, transport: asyncio.BaseTransport | None) -> None:
        """Its answer may take as long as it wants; whoever gives it sees to it that such answers are few."""
        timer = self._served.get(transport) if transport is not None else None
        if timer is not None:
            timer.cancel()

    def closed(self, transport: asyncio.BaseTransport) -> None:
        for kept in (self._waiting, self._served):
            timer = kept.pop(transport, None)
            if timer is not None:
                timer.cancel()

    def watch(self, make: Callable[[], asyncio.Protocol]) -> asyncio.Protocol:
        """The protocol that ``make`` makes, watched: a factory for ``create_server``."""
        return _Watched(self, make())


class _Watched(asyncio.Protocol):
    def __init__(self, keeper: Doorkeeper, inner: asyncio.Protocol) -> None:
        self._keeper = keeper
        self._inner = inner
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(transport)
        self._keeper.opened(transport)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._keeper.closed(self._transport)
        self._inner.connection_lost(error)


def _abort(transport: asyncio.BaseTransport) -> None:
    assert isinstance(transport, asyncio.Transport)
    transport.abort()
