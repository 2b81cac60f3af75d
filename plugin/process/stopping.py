"""Leaving gracefully: Consul first, then the listening sockets, then the live connections.

Sidecars turn away when Consul calls the gateway critical, which reaches them a moment later. Until then new connections
are served; only then are the sockets closed. Whoever is in a hurry cancels :meth:`Farewell.run`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from plugin.errors import GatewayError
from plugin.process.life import Life, Phase
from plugin.process.tasks import spawn
from plugin.registration import Registration
from plugin.settings import GatewaySettings
from plugin.workers.pool import Workers
from proxy.logs import emit

logger = logging.getLogger(__name__)

FAREWELL_S = 5.0
"""For the last words to Consul."""


class Farewell:
    def __init__(self, settings: GatewaySettings, life: Life, workers: Workers, registration: Registration) -> None:
        self._settings = settings
        self._life = life
        self._workers = workers
        self._registration = registration

    @property
    def longest_s(self) -> float:
        settings = self._settings
        return settings.drain_delay_s + settings.drain_timeout_s + settings.drain_window_s + 3 * FAREWELL_S

    async def run(self) -> None:
        """Returns when no worker is left."""
        settings = self._settings
        was_ready = self._life.phase in (Phase.SERVING, Phase.RELOADING)
        self._life.enter(Phase.LEAVING)
        if self._registration.registered:
            await last_words(self._registration.fail("the gateway is stopping"))
        if was_ready and (self._registration.registered or not settings.register):
            await asyncio.sleep(settings.drain_delay_s)
        self._life.enter(Phase.DRAINING)
        closing = spawn(self._closing(), name="closing")
        await self._workers.drain(settings.drain_timeout_s, settings.drain_window_s)
        closing.cancel()

    async def _closing(self) -> None:
        await asyncio.sleep(self._settings.drain_timeout_s)
        self._life.enter(Phase.CLOSING)


async def last_words(request: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.timeout(FAREWELL_S):
            await request
    except (GatewayError, TimeoutError) as error:
        emit(logger, logging.WARNING, "registration.problem", f"Consul was not told: {error or 'it did not answer'}")
