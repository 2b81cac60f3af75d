"""A running gateway's part in a reload: hear it, try the next generation, make room for it in this very process.

The process id stays, so that service managers, containers and shells see one program. Which processes the next
generation consists of, and whether it is any good, ``rehearsal.py`` finds out before anything here is given up.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable

import msgspec

from plugin.admin.app import AdminServer
from plugin.audit.journal import Journal
from plugin.errors import GatewayError
from plugin.process.life import Life, Phase
from plugin.process.notify import ServiceManager
from plugin.process.runtime_dir import RuntimeDirectory
from plugin.registration import Registration
from plugin.reload import inheritance, program
from plugin.reload.door import Door, NotReloaded
from plugin.reload.messages import Answer, Briefing, Inheritance, Rehearsed, Request
from plugin.reload.rehearsal import Rehearsal
from plugin.settings import GatewaySettings
from plugin.workers.pool import Workers
from proxy.logs import emit

logger = logging.getLogger(__name__)


class Turnover:
    def __init__(
        self,
        settings: GatewaySettings,
        life: Life,
        directory: RuntimeDirectory,
        workers: Workers,
        admin: AdminServer,
        registration: Registration,
        manager: ServiceManager,
        inherited: Inheritance | None,
        *,
        consul_away: Callable[[], bool],
        save: Callable[[], Awaitable[None]],
        audit: Journal,
        sockets_each: int,
    ) -> None:
        """``save`` makes the saved state the newest one, if it is kept. ``sockets_each`` is for how many workers the
        service manager has given sockets."""
        self._settings = settings
        self._life = life
        self._directory = directory
        self._workers = workers
        self._admin = admin
        self._registration = registration
        self._manager = manager
        self._inherited = inherited
        self._consul_away = consul_away
        self._save = save
        self._audit = audit
        self._sockets_each = sockets_each
        self._reloads = inherited.reloads if inherited is not None else 0
        self.door = Door(directory.path, self._reload)
        self.due = asyncio.Event()
        """The next generation is ready: everything has to end, and :meth:`become_successor` to be called."""
        self._rehearsal: Rehearsal | None = None
        self._next: tuple[Request, tuple[str, ...], Rehearsed, int] | None = None

    async def _reload(self, request: Request, writer: asyncio.StreamWriter) -> Answer:
        if self._life.phase is not Phase.SERVING:
            raise NotReloaded(f"the gateway is {self._life.phase}; only one that serves can be reloaded")
        self._life.enter(Phase.RELOADING)
        self._manager.reloading()
        emit(logger, logging.INFO, "gateway.reloading", f"trying a new generation: {request.executable}")
        self._audit.note("gateway.reloading", executable=str(request.executable))
        arguments = request.arguments or tuple(sys.argv[1:])
        if self._consul_away():
            await self._save()
        rehearsal = self._rehearsal = Rehearsal(request, arguments, self._briefing(request))
        try:
            rehearsed = await rehearsal.run()
        except GatewayError as error:
            await rehearsal.end()
            emit(logger, logging.ERROR, "gateway.not_reloaded", str(error))
            self._audit.note("gateway.not_reloaded", detail=str(error))
            self._life.enter(Phase.SERVING)
            self._manager.ready("serving")
            raise
        self._next = request, arguments, rehearsed, os.dup(writer.get_extra_info("socket").fileno())
        self.due.set()
        # The next generation answers, on the same connection.
        await asyncio.Event().wait()
        raise AssertionError("this process is another program by now")

    def _briefing(self, request: Request) -> Briefing:
        return Briefing(
            service_id=self._settings.id,
            directory=str(self._directory.path),
            addresses=tuple(map(str, self._workers.addresses())),
            timeout_s=request.timeout_s,
            consul_away=self._consul_away(),
            sockets_each=self._sockets_each,
        )

    async def become_successor(self) -> None:
        """Never returns, unless the program cannot be executed: then the workers serve on, as after a crash."""
        assert self._rehearsal is not None
        assert self._next is not None
        request, arguments, rehearsed, answer_fd = self._next
        left = self._left(rehearsed, answer_fd)
        self._workers.let_go()
        await self._rehearsal.release()
        emit(logger, logging.INFO, "gateway.handover", "the new generation is ready; this process becomes it")
        self._audit.close()
        inheritance.become(program.command(request.executable, arguments), request.source, left)

    def _left(self, rehearsed: Rehearsed, answer_fd: int) -> Inheritance:
        workers = self._workers
        return Inheritance(
            service_id=self._settings.id,
            directory=str(self._directory.path),
            lock_fd=self._directory.lock_fd,
            sockets=tuple(one.fileno() for one in workers.listening_sockets()),
            admin_fd=self._admin.descriptor(),
            answer_fd=answer_fd,
            pids=rehearsed.pids,
            registered=self._registration.registered,
            reloads=self._reloads + 1,
            restarts=workers.restarts,
            ended=workers.ended,
            counters=workers.counters(),
            restored=rehearsed.restored,
            sockets_each=self._sockets_each,
        )

    async def call_off(self) -> None:
        """The gateway stops: no new generation any more."""
        if self._rehearsal is not None:
            await self._rehearsal.end()

    def succeeded(self) -> None:
        """Every worker of this generation serves: tell who has asked for it."""
        inherited, self._inherited = self._inherited, None
        if inherited is None:
            return
        serving = [worker for worker in self._workers.all if worker.pid in inherited.pids]
        former = [worker for worker in self._workers.all if worker.index < 0]
        live = sum(worker.counters.open_connections for worker in former if worker.counters is not None)
        text = (
            f"{self._settings.id} is reloaded: {len(serving)} new workers serve; {len(former)} former workers keep"
            f" {live} live connections for up to {self._settings.handover_timeout_s:g} s"
        )
        emit(logger, logging.INFO, "gateway.reloaded", text)
        self._audit.note("gateway.reloaded", detail=text)
        if inherited.answer_fd >= 0:
            with os.fdopen(inherited.answer_fd, "wb", buffering=0) as waiting:
                try:
                    waiting.write(msgspec.json.encode(Answer(reloaded=True, text=text)) + b"\n")
                except OSError as error:
                    logger.info("who asked for the reload has gone: %s", error)
