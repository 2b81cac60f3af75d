"""One running gateway: puts the parts together, starts them in order, ends them in order.

Owns the life of the control process; :mod:`plugin.launch` starts it. A part that fails by a mistake of ours ends the
control process but not the workers: they serve on, and the next control process takes them over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Mapping, Sequence

from plugin.access_log_sink import AccessLogSink
from plugin.addresses import HostPort
from plugin.admin.app import AdminServer, build_app
from plugin.admin.explain_pages import add_explaining
from plugin.admin.guard import Access
from plugin.admin.simulate_pages import add_simulating
from plugin.admin.token import AdminToken, new_secret
from plugin.answers.control_view import ControlView
from plugin.answers.explaining import Explainer
from plugin.answers.operations import Operations
from plugin.answers.simulating import Simulator
from plugin.audit.desk import AuditDesk
from plugin.audit.policy import PolicyWitness
from plugin.consul.client import ConsulClient
from plugin.definition import Definition
from plugin.errors import GatewayError, StartError
from plugin.events.ring import EventRing
from plugin.gateway import PATIENCE_AFTER_RESTORE_S, Gateway
from plugin.health import Health
from plugin.observe.freshness import Freshness, wait_s
from plugin.observe.needs import Needs
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
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
from plugin.saved_state.keeper import StateKeeper, owner_of
from plugin.settings import GatewaySettings
from plugin.version import version_text
from plugin.workers.pool import Workers, WorkerSettings, usable_cores
from plugin.workers.process import worker_command
from plugin.workers.published import Published
from plugin.workers.sockets import check_can_listen
from proxy.logs import emit

logger = logging.getLogger(__name__)

EXIT_FAULT = 70
"""``EX_SOFTWARE`` of sysexits.h: a mistake of ours; start us again."""
STRAGGLERS_INTERVAL_S = 5.0
HEALTH_INTERVAL_S = 1.0
ACCESS_LOG_INTERVAL_S = 5.0


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
        self._given = given
        self._settings = settings
        self._inherited = inherited
        self._bound = bound
        self._directory = directory
        self._manager = ServiceManager()
        service_id = settings.id
        published = Published()
        self._access_log = AccessLogSink(settings.access_log)
        self._audit = AuditDesk(settings)
        workers = settings.workers or sockets_each or usable_cores()
        self._workers = Workers(
            WorkerSettings(
                gateway=service_id,
                addresses=bound,
                count=workers,
                limits=settings.limits(workers),
                access_log_fd=self._access_log.descriptor,
                audit_log_fd=self._audit.descriptor,
                audit_allowed=settings.audit_allowed,
                log_level=settings.log_level,
                log_format=settings.log_format,
                handover_timeout_s=settings.handover_timeout_s,
                retire_after_s=settings.drain_delay_s,
                command=worker_command(
                    privileges.worker_identity(settings.worker_user), debuggable=settings.allow_debugging
                ),
            ),
            directory,
            published,
            self._progress,
        )
        self._access_log.redirect = self._workers.redirect_access_log
        self._audit.redirect_workers = self._workers.redirect_audit_log
        self._store = FactStore()
        self._witness = PolicyWitness(
            self._audit.journal, published, self._workers.publish, self._store.index_of_intentions
        )
        self._definition = definition
        if definition is not None:
            definition.learned = self._store.set_proxy_config
            definition.bind_now = self._workers.bind
        self._store.set_proxy_config(proxy_config if definition is None else definition.proxy_config)
        self._needs = Needs(self._store, settings.dns_servers)
        self._gateway = Gateway(
            self._store,
            published,
            self._witness.publish,
            needs=self._needs.changed,
            access_logs=self._access_log.take,
            max_state_age_s=settings.max_state_age_s,
        )
        client.wait_s = wait_s(settings.max_state_age_s)
        self._observer = Observer(client, self._store, settings.service)
        self._life = Life()
        self._health = Health(self._workers, published, self._gateway, self._life)
        self._freshness = Freshness(
            self._observer.watch_states, max_age_s=settings.max_state_age_s, stale=self._gateway.set_stale
        )
        self._saved_state = StateKeeper(
            settings.state_dir,
            owner_of(settings),
            self._store,
            self._freshness,
            worth_saving=lambda: published.complete,
            generation=lambda: published.generation,
            bound=self._workers.addresses if definition is not None else lambda: (),
        )
        self._published = published
        self._presence = client.presence
        self._registration = Registration(
            client,
            service=settings.service,
            service_id=service_id,
            address=settings.host_port,
            meta=settings.meta,
            proxy_config=proxy_config,
            tagged_addresses=settings.tagged_addresses(),
            bound=bound,
            unwell=self._health.unwell,
            on_change=self._progress,
        )
        self._ready = asyncio.Event()
        """Set once nothing has been lacking: it is time to register."""
        view = ControlView(
            settings=settings,
            published=published,
            gateway=self._gateway,
            store=self._store,
            observer=self._observer,
            workers=self._workers,
            registration=self._registration,
            definition=definition,
            health=self._health,
            access_log=self._access_log,
            audit=self._audit,
            life=self._life,
            freshness=self._freshness,
            saved_state=self._saved_state,
            reloads=inherited.reloads if inherited is not None else 0,
        )
        self._view = view
        self._farewell = Farewell(settings, self._life, self._workers, self._registration)
        self._parts = Parts()
        app = build_app(
            view,
            Access(token=AdminToken(self._admin_secret()), remote=settings.admin_is_remote),
            refresh=lambda: os.kill(os.getpid(), signal.SIGHUP),
            journal=self._audit.journal,
            operations=Operations(
                settings=settings,
                store=self._store,
                observer=self._observer,
                workers=self._workers,
                ring=ring,
            ),
        )
        explainer = Explainer(
            settings=settings,
            published=published,
            gateway=self._gateway,
            store=self._store,
            workers=self._workers,
            freshness=self._freshness,
        )
        add_explaining(app, explainer)
        add_simulating(app, Simulator(view=view, explainer=explainer, client=client))
        self._admin = AdminServer(app)
        self._turnover = Turnover(
            settings,
            self._life,
            directory,
            self._workers,
            self._admin,
            self._registration,
            self._manager,
            inherited,
            consul_away=lambda: self._presence.problem is not None,
            save=self._saved_state.save_if_due,
            audit=self._audit.journal,
            sockets_each=sockets_each,
        )
        if inherited is not None:
            self._registration.registered = inherited.registered
            self._workers.inherit_counts(inherited.ended, inherited.counters, inherited.restarts)

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

    def _admin_secret(self) -> str:
        secret = self._settings.admin_token
        if not secret:
            secret = new_secret()
            # A generation that is only tried has no admin pages: the file is that of the running one.
            if self._directory.held:
                self._directory.write_admin_token(secret)
        return secret

    async def _start_admin(self) -> str:
        settings = self._settings
        inherited = self._inherited.admin_fd if self._inherited is not None else -1
        if settings.admin_socket is not None:
            if inherited >= 0:
                os.close(inherited)
            await self._admin.start_unix(settings.admin_socket)
            return f"unix://{settings.admin_socket}"
        wanted = HostPort(settings.admin_address, settings.admin_port)
        return str(await self._admin.start(wanted, chosen=settings.admin_port_chosen, inherited=inherited))

    async def get_ready(self, briefing: Briefing) -> tuple[int, ...]:
        """Do everything that a start does, except to listen, to register and to open admin pages.

        :raises GatewayError: when an address cannot be bound, a worker cannot be started, or the time is over.
        """
        check_can_listen(address for address in self._bound if str(address) not in briefing.addresses)
        await self._workers.start_without_sockets()
        if briefing.consul_away:
            self._restore()
        for name, part in (("observer", self._observer), ("gateway", self._gateway), ("files", self._needs)):
            self._parts.run(name, part.run())
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
        return self._saved_state.restored is not None

    async def leave(self, *, workers_go_on: bool) -> None:
        """End what :meth:`get_ready` has started."""
        await self._parts.end()
        if not workers_go_on:
            self._workers.kill()
        self._workers.release()

    async def _start(self) -> None:
        settings = self._settings
        inherited = self._inherited
        admin = await self._start_admin()
        if inherited is None:
            await self._workers.start(self._given)
        else:
            sockets = [socket.socket(fileno=descriptor) for descriptor in inherited.sockets]
            await self._workers.start(sockets, frozenset(inherited.pids))
        self._witness.active = True
        self._restore()
        if settings.user:
            privileges.no_more_ports()
        self._directory.write_admin_address(admin)
        addresses = ", ".join(map(str, self._workers.addresses()))
        message = f"{settings.service} listens on {addresses} with {len(self._workers.all)} workers"
        emit(logger, logging.INFO, "gateway.started", message, pid=os.getpid())
        self._audit.journal.note("gateway.started", detail=message, version=version_text())

    def _restore(self) -> None:
        """Begin with the saved state, if there is one that can be used and no worker has a newer one."""
        in_force = self._inherited is not None and self._inherited.restored
        rest = self._saved_state.restore(in_force=in_force)
        self._needs.know(rest.addresses, rest.keys)
        state = self._saved_state.restored
        if state is not None and state.roots is not None and state.roots.value is not None:
            self._published.generation = max(self._published.generation, state.generation)
            self._presence.expect_restored(state.roots.value.trust_domain, state.datacenter)
            self._gateway.patience_s = PATIENCE_AFTER_RESTORE_S
            if self._definition is not None and not self._definition.known:
                self._store.set_proxy_config(state.proxy_config)

    def _run_parts(self, signals: Signals) -> None:
        run = self._parts.run
        run("observer", self._observer.run())
        run("gateway", self._gateway.run())
        run("files and names", self._needs.run())
        run("door", self._turnover.door.run())
        run("hung workers", self._workers.pulse.run())
        run("stragglers", self._take_in_stragglers())
        run("read again", self._read_again(signals.read_again))
        run("health", self._watch_health())
        run("age of the state", self._freshness.run())
        run("access log", self._watch_access_log())
        run("saved state", self._saved_state.run())
        if self._settings.register:
            run("registration", self._register())
        if self._definition is not None:
            run("definition", self._definition.run())
        if self._manager.watchdog_interval_s:
            run("watchdog", self._feed_watchdog())
        self._progress()

    def _progress(self) -> None:
        """A worker or the registration has changed: the gateway may be ready for the first time."""
        if not self._ready.is_set() and not self._health.shortcomings():
            self._ready.set()
            self._life.enter(Phase.SERVING)
            emit(logger, logging.INFO, "gateway.ready", "every worker has the newest state in force")
            self._manager.ready("serving")
            self._turnover.succeeded()

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

    async def _register(self) -> None:
        await self._ready.wait()
        await self._registration.run()

    async def _take_in_stragglers(self) -> None:
        while True:
            await asyncio.sleep(STRAGGLERS_INTERVAL_S)
            # The workers of a generation that is being tried are not for us.
            if self._life.phase is not Phase.RELOADING:
                await self._workers.take_in_stragglers()

    async def _read_again(self, asked: asyncio.Event) -> None:
        while True:
            await asked.wait()
            asked.clear()
            emit(logger, logging.INFO, "gateway.reload", "reading the files of all links, opening the logs again")
            self._needs.read_again()
            self._access_log.reopen()
            self._audit.reopen()
            self._audit.journal.note("gateway.refreshed")

    async def _watch_access_log(self) -> None:
        """Begin a new file when the old one was deleted or moved; a file system that hangs holds up a thread alone."""
        while True:
            await asyncio.sleep(ACCESS_LOG_INTERVAL_S)
            for log in (self._access_log, self._audit):
                if await asyncio.to_thread(log.moved):
                    log.reopen()

    async def _feed_watchdog(self) -> None:
        while True:
            self._manager.alive()
            await asyncio.sleep(self._manager.watchdog_interval_s)

    async def _end(self, signals: Signals) -> None:
        """Leave Consul, drain, stop; at once when asked a second time. Policy reaches live connections to the end."""
        settings = self._settings
        self._manager.stopping(self._farewell.longest_s)
        message = (
            f"leaving for {settings.drain_delay_s:g} s, then draining for up to {settings.drain_timeout_s:g} s;"
            " signal again to stop at once"
        )
        emit(logger, logging.INFO, "gateway.stopping", message)
        self._audit.journal.note("gateway.stopping")
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
        self._audit.journal.note("gateway.stopped")
        self._audit.journal.close()
