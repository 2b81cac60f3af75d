"""Puts the parts of one running gateway together, starts them in order, ends them in order.

Owns the life of the control process; :mod:`plugin.launch` starts it. A part that fails by a mistake of ours ends the
control process but not the workers: they serve on, and the next control process takes them over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, Sequence

from plugin.addresses import HostPort
from plugin.answers.control_view import ControlView
from plugin.consul.client import ConsulClient
from plugin.definition import Definition
from plugin.errors import GatewayError, StartError
from plugin.events.keeper import EventKeeper
from plugin.events.ring import EventRing
from plugin.health import Health
from plugin.process import privileges
from plugin.process.life import Life, Phase
from plugin.process.notify import ServiceManager
from plugin.process.parts import Parts, first
from plugin.process.runtime_dir import RuntimeDirectory
from plugin.process.signals import Signals
from plugin.process.stopping import Farewell, last_words
from plugin.process.tasks import spawn
from plugin.registration import Registration
from plugin.reload.messages import Briefing, Inheritance
from plugin.reload.turnover import Turnover
from plugin.running.data_plane import DataPlane
from plugin.running.knowledge import Knowledge
from plugin.running.reception import admin_server, open_reception
from plugin.running.upkeep import Upkeep
from plugin.saved_state.keeper import owner_of
from plugin.settings import GatewaySettings
from plugin.version import version_text
from plugin.workers.sockets import check_can_listen
from proxy.logs import emit

logger = logging.getLogger(__name__)

EXIT_FAULT = 70
"""``EX_SOFTWARE`` of sysexits.h: a mistake of ours; start us again."""


class Supervisor:
    def __init__(
        self,
        settings: GatewaySettings,
        directory: RuntimeDirectory,
        client: ConsulClient,
        proxy_config: Mapping[str, object],
        bound: tuple[HostPort, ...],
        definition: Definition | None,
        inherited: Inheritance | None = None,
        *,
        ring: EventRing,
        given: Sequence[socket.socket] = (),
        sockets_each: int = 0,
    ) -> None:
        """``definition`` is where somebody else registers the gateway, and then ``proxy_config`` is only ours.

        ``given`` are listening sockets of the service manager; they do for ``sockets_each`` workers, 0: none given.

        :raises StartError: when more workers are wanted.
        """
        if sockets_each and settings.workers > sockets_each:
            raise StartError(
                f"--workers {settings.workers}: systemd has {sockets_each} socket(s) for each address; repeat"
                " ListenStream= in the .socket unit, and restart it and the gateway"
            )
        self._settings = settings
        self._directory = directory
        self._bound = bound
        self._definition = definition
        self._inherited = inherited
        self._given = given
        self._life = Life()
        self._parts = Parts()
        self._manager = ServiceManager()
        self._ready = asyncio.Event()
        """Set once nothing has been lacking: it is time to register."""
        self._plane = DataPlane(settings, directory, bound, self._progress, sockets_each=sockets_each)
        self._workers = self._plane.workers
        self._audit = self._plane.audit.journal
        self._knowledge = Knowledge(settings, client, self._plane, proxy_config, definition)
        self._events = EventKeeper(settings.state_dir, owner_of(settings), ring)
        self._health = Health(self._workers, self._plane.published, self._knowledge.gateway, self._life)
        self._registration = Registration(
            client,
            service=settings.service,
            service_id=settings.id,
            address=settings.host_port,
            meta=settings.meta,
            proxy_config=proxy_config,
            tagged_addresses=settings.tagged_addresses(),
            bound=bound,
            unwell=self._health.unwell,
            on_change=self._progress,
        )
        self._admin = admin_server(settings, directory, client, self._view(), ring, self._audit)
        self._upkeep = Upkeep(
            self._plane,
            self._knowledge.needs,
            self._life,
            self._health,
            self._registration,
            self._manager,
            self._ready,
        )
        self._farewell = Farewell(settings, self._life, self._workers, self._registration)
        self._turnover = Turnover(
            settings,
            self._life,
            directory,
            self._workers,
            self._admin,
            self._registration,
            self._manager,
            inherited,
            consul_away=lambda: client.presence.problem is not None,
            save=self._knowledge.saved_state.save_if_due,
            audit=self._audit,
            sockets_each=sockets_each,
        )
        if inherited is not None:
            self._registration.registered = inherited.registered
            self._plane.inherit(inherited)

    def _view(self) -> ControlView:
        plane, knowledge = self._plane, self._knowledge
        return ControlView(
            settings=self._settings,
            published=plane.published,
            gateway=knowledge.gateway,
            store=knowledge.store,
            observer=knowledge.observer,
            workers=plane.workers,
            registration=self._registration,
            definition=self._definition,
            health=self._health,
            access_log=plane.access_log,
            audit=plane.audit,
            life=self._life,
            freshness=knowledge.freshness,
            saved_state=knowledge.saved_state,
            events=self._events,
            reloads=self._inherited.reloads if self._inherited is not None else 0,
        )

    async def run(self, signals: Signals) -> int:
        """:raises GatewayError: when a socket or a worker cannot be started."""
        try:
            await self._start()
        except GatewayError:
            self._workers.give_up()
            await self._admin.stop()
            raise
        self._run_parts(signals)
        await first(signals.stop, self._parts.failed, self._turnover.due)
        if self._turnover.due.is_set() and not signals.stop.is_set():
            await self._parts.end()
            await self._turnover.become_successor()
        if self._parts.failed.is_set():
            await self._parts.end()
            self._workers.release()
            await self._admin.stop()
            return EXIT_FAULT
        await self._end(signals)
        return 0

    async def get_ready(self, briefing: Briefing) -> tuple[int, ...]:
        """Do everything that a start does, except to listen, to register and to open admin pages.

        :raises GatewayError: when an address cannot be bound, a worker cannot be started, or the time is over.
        """
        check_can_listen(address for address in self._bound if str(address) not in briefing.addresses)
        await self._workers.start_without_sockets()
        if briefing.consul_away:
            self._restore()
        self._knowledge.follow(self._parts)
        self._progress()
        try:
            async with asyncio.timeout(briefing.timeout_s):
                await first(self._ready, self._parts.failed)
        except TimeoutError:
            raise StartError("; ".join(self._health.shortcomings())) from None
        if self._parts.failed.is_set():
            raise StartError("a part of it failed by a mistake of this program; see the log")
        return tuple(worker.pid for worker in self._workers.all)

    @property
    def restored(self) -> bool:
        return self._knowledge.saved_state.restored is not None

    async def leave(self, *, workers_go_on: bool) -> None:
        """End what :meth:`get_ready` has started."""
        await self._parts.end()
        if not workers_go_on:
            self._workers.kill()
        self._workers.release()

    async def _start(self) -> None:
        settings = self._settings
        inherited = self._inherited
        self._events.recall()
        admin = await open_reception(self._admin, settings, inherited)
        if inherited is None:
            await self._workers.start(self._given)
        else:
            sockets = [socket.socket(fileno=descriptor) for descriptor in inherited.sockets]
            await self._workers.start(sockets, frozenset(inherited.pids))
        self._knowledge.witness.active = True
        self._restore()
        if settings.user:
            privileges.no_more_ports()
        self._directory.write_admin_address(admin)
        addresses = ", ".join(map(str, self._workers.addresses()))
        message = f"{settings.service} listens on {addresses} with {len(self._workers.all)} workers"
        emit(logger, logging.INFO, "gateway.started", message, pid=os.getpid())
        self._audit.note("gateway.started", detail=message, version=version_text())

    def _restore(self) -> None:
        self._knowledge.restore(in_force=self._inherited is not None and self._inherited.restored)

    def _run_parts(self, signals: Signals) -> None:
        self._knowledge.follow(self._parts)
        self._knowledge.keep(self._parts)
        self._upkeep.run(self._parts, signals.read_again)
        self._parts.run("events", self._events.run())
        self._parts.run("door", self._turnover.door.run())
        if self._settings.register:
            self._parts.run("registration", self._register())
        if self._definition is not None:
            self._parts.run("definition", self._definition.run())
        self._progress()

    def _progress(self) -> None:
        """A worker or the registration has changed: the gateway may be ready for the first time."""
        if not self._ready.is_set() and not self._health.shortcomings():
            self._ready.set()
            self._life.enter(Phase.SERVING)
            emit(logger, logging.INFO, "gateway.ready", "every worker has the newest state in force")
            self._manager.ready("serving")
            self._turnover.succeeded()

    async def _register(self) -> None:
        await self._ready.wait()
        await self._registration.run()

    async def _end(self, signals: Signals) -> None:
        """Leave Consul, drain, stop; at once when asked a second time. Policy reaches live connections to the end."""
        settings = self._settings
        self._manager.stopping(self._farewell.longest_s)
        message = (
            f"leaving for {settings.drain_delay_s:g} s, then draining for up to {settings.drain_timeout_s:g} s;"
            " signal again to stop at once"
        )
        emit(logger, logging.INFO, "gateway.stopping", message)
        self._audit.note("gateway.stopping")
        await self._parts.end("registration", "health", "stragglers", "door")
        await self._turnover.call_off()
        farewell = spawn(self._farewell.run(), name="farewell")
        await first(signals.stop_now, farewell)
        if not farewell.done():
            farewell.cancel()
        await self._parts.end()
        self._workers.kill()
        await last_words(self._registration.withdraw())
        await self._admin.stop()
        emit(logger, logging.INFO, "gateway.stopped", "stopped")
        self._audit.note("gateway.stopped")
        self._audit.close()
