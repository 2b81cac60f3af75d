"""The set of workers: keeps the wanted number of them serving on sockets that outlive every one of them.

Says which worker stands where, replaces and drains them, and hands every change to all. What it works with:
``places.py`` (the sockets), ``intake.py`` (starting and adopting), ``pulse.py`` (who hangs). Knows nothing of Consul;
what is to be served is :class:`plugin.workers.published.Published`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from plugin.addresses import HostPort
from plugin.errors import StartError
from plugin.process.runtime_dir import RuntimeDirectory
from plugin.process.tasks import spawn
from plugin.workers import process
from plugin.workers.counters import Totals, totals
from plugin.workers.handover import Orphan
from plugin.workers.intake import Intake
from plugin.workers.places import LONGEST_BACKOFF_S, Place, Places, restart_delay_s
from plugin.workers.published import Published
from plugin.workers.pulse import Pulse
from plugin.workers.settings import WorkerSettings
from plugin.workers.sockets import distinct
from plugin.workers.worker import Worker
from proxy import frames
from proxy.logs import emit
from proxy.messages import PROTOCOL_VERSION, Counters
from proxy.model import CloseReason, ServiceName

logger = logging.getLogger(__name__)

UPGRADE_DRAIN_S = 600.0
"""How long a worker that we cannot drive (another protocol version) may keep its connections: their policy is stale."""
QUICK_DEATH_S = 30.0
EXIT_GRACE_S = 5.0


class Workers:
    def __init__(
        self,
        settings: WorkerSettings,
        directory: RuntimeDirectory,
        published: Published,
        on_progress: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_progress`` is called whenever a worker came, went, or applied a generation."""
        self.settings = settings
        self.restarts = 0
        self._directory = directory
        self._published = published
        self._on_progress = on_progress
        self._wanted_pids: frozenset[int] | None = None
        self._places = Places(settings.count, settings.addresses, settings.retire_after_s)
        self._intake = Intake(
            settings,
            directory,
            published,
            on_progress=self._progress,
            on_disconnect=self._disconnected,
            on_exit=self._exited,
            on_keys_wanted=self._keys_wanted,
        )
        self.on_keys_wanted: Callable[[Collection[str]], None] = lambda providers: None
        """Called with the names of token providers of which a worker has seen a key that is not known."""
        self._leaving: list[Worker] = []
        self._to_drain: list[Worker] = []
        self.pulse = Pulse(lambda: self.all, self._is_serving, self._replace_hung, self._recovered)
        self._ended = Totals()
        self._unmet: dict[int, Counters] = {}
        """Of workers that are still to be adopted, by process id."""
        self._stopping = False

    @property
    def all(self) -> list[Worker]:
        """Active workers by place, then those that are being drained."""
        return self._places.workers + self._leaving

    @property
    def ready(self) -> bool:
        """Every wanted worker runs and has the newest generation in force."""
        return all(place.worker is not None and place.worker.up_to_date for place in self._places)

    @property
    def complaint(self) -> str:
        """Why not all workers are there, for people; empty when they are."""
        return "; ".join(place.complaint for place in self._places if place.worker is None)

    def addresses(self) -> tuple[HostPort, ...]:
        """As bound."""
        return self._places.addresses

    def totals(self) -> Totals:
        known = (worker.counters for worker in self.all if worker.counters is not None)
        return totals(self._ended, (*known, *self._unmet.values()))

    async def start(self, inherited: Sequence[socket.socket] = (), wanted_pids: frozenset[int] | None = None) -> None:
        """Adopt what an earlier control process left, bind what is missing, start the rest.

        ``inherited`` are listening sockets of that control process, or of the service manager. With ``wanted_pids``,
        workers of other process ids are replaced, however well they would do.

        :raises StartError: when an address cannot be bound or a worker cannot be executed.
        """
        self._wanted_pids = wanted_pids
        orphans = await self._intake.orphans(frozenset())
        # Fresh ones first: an earlier control process may have died between starting them and using them.
        orphans.sort(key=lambda orphan: (len(orphan.listeners) > 0, orphan.pid))
        self._published.generation = max([self._published.generation, *(o.hello.generation for o in orphans)])
        replaced = [orphan for orphan in orphans if not await self._keep(orphan)]
        left = distinct((*inherited, *(listener for orphan in replaced for listener in orphan.listeners)))
        problems = self._places.take(left)
        if problems and not (inherited and self._places.addresses and wanted_pids is not None):
            raise problems[0]
        for problem in problems:
            emit(logger, logging.WARNING, "gateway.not_bound", f"{problem}; the other addresses are in force")
        for orphan in replaced:
            await self._replace(orphan)
        for pid in [pid for pid in self._unmet if process.is_gone(pid)]:
            self._ended.add_ended(self._unmet.pop(pid), reason=CloseReason.DRAIN)
        for place in self._places:
            if place.worker is None:
                await self._spawn(place)
            else:
                place.worker.listen(place.all_sockets)

    async def start_without_sockets(self) -> None:
        """Start workers that only get ready; whoever adopts them gives them sockets. :raises StartError: as above."""
        for place in self._places:
            await self._spawn(place)

    def inherit_counts(self, ended: Totals, counters: Mapping[int, Counters], restarts: int) -> None:
        """Go on counting where the former control process was; before :meth:`start`."""
        self._ended = ended
        self._unmet = dict(counters)
        self.restarts = restarts

    @property
    def ended(self) -> Totals:
        """Of all workers that have ended."""
        return self._ended

    def counters(self) -> dict[int, Counters]:
        """The last ones of each worker, by process id."""
        return {**self._unmet, **{one.pid: one.counters for one in self.all if one.counters is not None}}

    def listening_sockets(self) -> list[socket.socket]:
        return self._places.listening_sockets()

    def bind(self, addresses: Sequence[HostPort]) -> tuple[str, ...]:
        """Listen on these from now on, in all workers; live connections stay.

        Those no longer wanted are closed after ``retire_after_s``. Returns why some of them cannot be bound: the others
        are in force.
        """
        problems = self._places.allot(addresses)
        self._places.tell_workers()
        return tuple(map(str, problems))

    async def _keep(self, orphan: Orphan) -> bool:
        """Take the worker into a free place, if we can drive it."""
        free = self._places.free()
        if (
            free is None
            or orphan.hello.version != PROTOCOL_VERSION
            or orphan.hello.gateway != self.settings.gateway
            or (self._wanted_pids is not None and orphan.pid not in self._wanted_pids)
        ):
            return False
        free.sockets = orphan.listeners
        free.worker = await self._adopt(free.index, orphan)
        message = f"worker {free.index} goes on under this control process"
        emit(logger, logging.INFO, "worker.adopted", message, worker=free.index, pid=orphan.pid)
        return True

    async def _replace(self, orphan: Orphan) -> None:
        """Let it finish its connections while new workers serve on its sockets."""
        worker = await self._adopt(-1, orphan)
        self._leaving.append(worker)
        self._to_drain.append(worker)
        message = f"process {orphan.pid} of an earlier start is replaced; it keeps its live connections for now"
        emit(logger, logging.INFO, "worker.replaced", message, pid=orphan.pid, version=orphan.hello.version)

    async def _adopt(self, index: int, orphan: Orphan) -> Worker:
        return await self._intake.adopt(index, orphan, self._unmet.pop(orphan.pid, None))

    def _keys_wanted(self, providers: Collection[str]) -> None:
        self.on_keys_wanted(providers)

    async def _spawn(self, place: Place) -> None:
        worker = await self._intake.start(place)
        message = f"worker {place.index} was started"
        emit(logger, logging.INFO, "worker.started", message, worker=place.index, pid=worker.pid)

    def publish(self, names: Collection[ServiceName], *, mesh: bool) -> None:
        """Hand the newest state of ``names`` (and of the mesh settings) to every worker, encoding it once."""
        update = self._published.delta(names, mesh=mesh)
        frame = frames.encode(update)
        for worker in self.all:
            worker.push(update, frame, names)

    def redirect_access_log(self, descriptor: int) -> None:
        """Lines of all workers, later ones too, go to ``descriptor``, or nowhere (-1); it must stay open."""
        self._intake.access_log_fd = descriptor
        for worker in self.all:
            worker.redirect_access_log(descriptor)

    def redirect_audit_log(self, descriptor: int) -> None:
        """As :meth:`redirect_access_log`, for the audit log."""
        self._intake.audit_log_fd = descriptor
        for worker in self.all:
            worker.redirect_audit_log(descriptor)

    def _is_serving(self, worker: Worker) -> bool:
        return not self._stopping and self._places.of(worker) is not None

    def _replace_hung(self, worker: Worker) -> None:
        place = self._places.of(worker)
        assert place is not None
        place.worker, place.last_exit = None, "the one before it did not answer"
        self._leaving.append(worker)
        self.restarts += 1
        message = (
            f"worker {place.index} does not answer; another one takes its sockets, and it is killed unless it answers"
        )
        emit(logger, logging.ERROR, "worker.hung", message, worker=place.index, pid=worker.pid)
        spawn(self._restart_later(place, 0.0), name=f"replace worker {place.index}")

    def _recovered(self, worker: Worker) -> None:
        worker.drain(self.settings.handover_timeout_s, self.settings.limits.drain_window_s)

    async def take_in_stragglers(self) -> None:
        """Drive and drain workers of an earlier control process that were not waiting yet when we started."""
        known = frozenset(worker.pid for worker in self.all)
        for orphan in await self._intake.orphans(known):
            await self._replace(orphan)
            for listener in orphan.listeners:
                listener.close()
        self._drain_replaced()

    async def drain(self, timeout_s: float, window_s: float = 0.0) -> None:
        """Stop accepting, let live connections end for up to ``timeout_s``, end what is left one by one in the
        ``window_s`` after that, end every worker."""
        self._stopping = True
        self._places.close()
        for worker in self.all:
            worker.drain(timeout_s, window_s)
        await self._wait_until_gone(timeout_s + window_s + EXIT_GRACE_S)
        self.kill(signal.SIGTERM)
        await self._wait_until_gone(EXIT_GRACE_S)
        self.kill(signal.SIGKILL)
        await self._wait_until_gone(EXIT_GRACE_S)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal every worker; none is started again."""
        self._stopping = True
        for worker in self.all:
            worker.process.signal(number)

    def give_up(self) -> None:
        """After a start that has failed: end what it started, and let go of what it had adopted."""
        for worker in self.all:
            if not worker.adopted:
                worker.process.signal(signal.SIGKILL)
        self.release()

    def release(self) -> None:
        """Let go of the workers without ending them: they serve on and wait for another control process."""
        self.let_go()
        self._places.close()

    def let_go(self) -> None:
        """As :meth:`release`, but keep the listening sockets."""
        self._stopping = True
        for worker in self.all:
            worker.process.forget()
            worker.disconnect()

    async def _wait_until_gone(self, timeout_s: float) -> None:
        waiting = [worker.process.exited.wait() for worker in self.all]
        if waiting:
            await asyncio.wait([spawn(one, name="worker exit") for one in waiting], timeout=timeout_s)

    def _progress(self, worker: Worker) -> None:
        self._drain_replaced()
        self._on_progress()

    def _drain_replaced(self) -> None:
        """Only when every new worker serves: until then the old ones accept as well."""
        if not self._to_drain or not self.ready or self._stopping:
            return
        for old in self._to_drain:
            longest_s = self.settings.handover_timeout_s
            old.drain(longest_s if old.driven else min(longest_s, UPGRADE_DRAIN_S), self.settings.limits.drain_window_s)
        self._to_drain.clear()

    def _disconnected(self, worker: Worker, problem: str) -> None:
        if not self._stopping and not worker.process.exited.is_set():
            spawn(self._reconnect(worker, problem), name=f"reconnect worker {worker.index}")
        self._on_progress()

    async def _reconnect(self, worker: Worker, problem: str) -> None:
        """The process may live on without its control connection: it then waits where any orphan waits."""
        with_grace = spawn(worker.process.exited.wait(), name="worker exit")
        await asyncio.wait([with_grace], timeout=1.0)
        if with_grace.done() or self._stopping:
            return
        with_grace.cancel()
        emit(
            logger,
            logging.WARNING,
            "worker.disconnected",
            f"worker {worker.index} lost its control connection: {problem or 'closed'}",
            worker=worker.index,
            pid=worker.pid,
        )
        if not await self._intake.adopt_again(worker):
            worker.process.signal(signal.SIGKILL)
        elif (place := self._places.of(worker)) is not None:
            worker.listen(place.all_sockets)

    def _exited(self, worker: Worker, code: int | None) -> None:
        worker.disconnect()
        if worker.counters is not None:
            reason = CloseReason.DRAIN if worker.draining else CloseReason.INTERNAL
            self._ended.add_ended(worker.counters, reason=reason)
        how = "ended" if code is None else f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        level = logging.INFO if worker.draining else logging.ERROR
        message = f"worker {worker.index} {how}"
        how = worker.refused or how
        emit(logger, level, "worker.exited", message, worker=worker.index, pid=worker.pid)
        self._directory.socket_path(worker.pid).unlink(missing_ok=True)
        if worker in self._leaving:
            self._leaving.remove(worker)
        if (place := self._places.of(worker)) is not None:
            place.worker, place.last_exit = None, how
            self._restart(place, time.monotonic() - worker.begun_s)
        self._on_progress()

    def _restart(self, place: Place, lived_s: float) -> None:
        if self._stopping:
            return
        self.restarts += 1
        place.quick_deaths = place.quick_deaths + 1 if lived_s < QUICK_DEATH_S else 0
        spawn(self._restart_later(place, restart_delay_s(place.quick_deaths)), name=f"restart worker {place.index}")

    async def _restart_later(self, place: Place, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        while place.worker is None and not self._stopping:
            try:
                await self._spawn(place)
            except StartError as error:
                place.last_exit = str(error)
                emit(logger, logging.ERROR, "worker.start_failed", str(error), worker=place.index)
                await asyncio.sleep(LONGEST_BACKOFF_S)
