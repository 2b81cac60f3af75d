"""What is done now and then, or when asked, while the gateway runs: each a coroutine that never ends by itself."""

from __future__ import annotations

import asyncio
import logging

from plugin.health import Health
from plugin.observe.needs import Needs
from plugin.process.life import Life, Phase
from plugin.process.notify import ServiceManager
from plugin.process.parts import Parts
from plugin.registration import Registration
from plugin.running.data_plane import DataPlane
from proxy.logs import emit

logger = logging.getLogger(__name__)

STRAGGLERS_INTERVAL_S = 5.0
HEALTH_INTERVAL_S = 1.0
ACCESS_LOG_INTERVAL_S = 5.0


class Upkeep:
    def __init__(
        self,
        plane: DataPlane,
        needs: Needs,
        life: Life,
        health: Health,
        registration: Registration,
        manager: ServiceManager,
        ready: asyncio.Event,
    ) -> None:
        """``ready`` is set once nothing has been lacking."""
        self._plane = plane
        self._needs = needs
        self._life = life
        self._health = health
        self._registration = registration
        self._manager = manager
        self._ready = ready

    def run(self, parts: Parts, read_again: asyncio.Event) -> None:
        parts.run("hung workers", self._plane.workers.pulse.run())
        parts.run("stragglers", self._take_in_stragglers())
        parts.run("read again", self._read_again(read_again))
        parts.run("health", self._watch_health())
        parts.run("access log", self._watch_logs())
        if self._manager.watchdog_interval_s:
            parts.run("watchdog", self._feed_watchdog())

    async def _watch_health(self) -> None:
        """Tell the agent soon when the gateway has become unwell for more than a moment, or well again."""
        await self._ready.wait()
        told: tuple[str, ...] = ()
        while True:
            lasting = self._health.lasting()
            if bool(lasting) != bool(told):
                self._registration.report_soon()
                message = "; ".join(lasting) or "well again"
                level = logging.WARNING if lasting else logging.INFO
                emit(logger, level, "gateway.unwell" if lasting else "gateway.well", message)
                self._manager.status(message if lasting else "serving")
            told = lasting
            await asyncio.sleep(HEALTH_INTERVAL_S)

    async def _take_in_stragglers(self) -> None:
        while True:
            await asyncio.sleep(STRAGGLERS_INTERVAL_S)
            # The workers of a generation that is being tried are not for us.
            if self._life.phase is not Phase.RELOADING:
                await self._plane.workers.take_in_stragglers()

    async def _read_again(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            emit(logger, logging.INFO, "gateway.reload", "reading the files of all links, opening the logs again")
            self._needs.read_again()
            self._plane.reopen_logs()
            self._plane.audit.journal.note("gateway.refreshed")

    async def _watch_logs(self) -> None:
        while True:
            await asyncio.sleep(ACCESS_LOG_INTERVAL_S)
            await self._plane.reopen_moved_logs()

    async def _feed_watchdog(self) -> None:
        while True:
            self._manager.alive()
            await asyncio.sleep(self._manager.watchdog_interval_s)
