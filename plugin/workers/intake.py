"""How a worker comes to be driven by this control process: started as its child, or adopted from an earlier one.

Owns what a worker is told at that moment, the descriptors of the logs among it. Where it stands, and what becomes of it
later, is ``pool.py``'s.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection

from plugin.errors import StartError
from plugin.process.runtime_dir import RuntimeDirectory
from plugin.workers import process
from plugin.workers.handover import Orphan, adopt, find_orphans
from plugin.workers.places import Place
from plugin.workers.published import Published
from plugin.workers.settings import WorkerSettings
from plugin.workers.sockets import bound_address
from plugin.workers.worker import Worker
from proxy.messages import Counters, Listener, Start

ADOPT_DEADLINE_S = 5.0


class Intake:
    def __init__(
        self,
        settings: WorkerSettings,
        directory: RuntimeDirectory,
        published: Published,
        *,
        on_progress: Callable[[Worker], None],
        on_disconnect: Callable[[Worker, str], None],
        on_exit: Callable[[Worker, int | None], None],
        on_keys_wanted: Callable[[Collection[str]], None],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._published = published
        self._on_progress = on_progress
        self._on_disconnect = on_disconnect
        self._on_exit = on_exit
        self._on_keys_wanted = on_keys_wanted
        self.access_log_fd = settings.access_log_fd
        """-1: no log."""
        self.audit_log_fd = settings.audit_log_fd

    async def start(self, place: Place) -> Worker:
        """It has its place at once, for it may end before it is connected.

        :raises StartError: when it cannot be executed.
        """
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError as error:
            raise StartError(f"cannot start a worker: {error.strerror}; raise the limit of open files") from error
        with theirs:
            inherited = [listener.fileno() for listener in place.all_sockets]
            inherited += [one for one in (self.access_log_fd, self.audit_log_fd) if one >= 0]
            try:
                child = process.start(self._settings.command, theirs.fileno(), inherited)
            except StartError:
                ours.close()
                raise
        worker = place.worker = Worker(
            place.index,
            child.pid,
            self._published,
            on_progress=self._on_progress,
            on_disconnect=self._on_disconnect,
            on_exit=self._on_exit,
            on_keys_wanted=self._on_keys_wanted,
            child=child,
        )
        await worker.start(ours, self._start_frame(place, child.pid))
        return worker

    def _start_frame(self, place: Place, pid: int) -> Start:
        settings = self._settings
        return Start(
            gateway=settings.gateway,
            worker=place.index,
            listeners=tuple(Listener(one.fileno(), str(bound_address(one))) for one in place.all_sockets),
            limits=settings.limits,
            access_log_fd=self.access_log_fd,
            audit_log_fd=self.audit_log_fd,
            audit_allowed=settings.audit_allowed,
            handover_path=str(self._directory.socket_path(pid)),
            log_level=settings.log_level,
            log_format=settings.log_format,
        )

    async def orphans(self, known: frozenset[int]) -> list[Orphan]:
        """Workers of an earlier control process, but for those of the process ids ``known``."""
        return await find_orphans(self._directory, known=known, deadline_s=ADOPT_DEADLINE_S)

    async def adopt(self, index: int, orphan: Orphan, counters: Counters | None) -> Worker:
        """``counters`` are the last ones that are known of it."""
        worker = Worker(
            index,
            orphan.pid,
            self._published,
            on_progress=self._on_progress,
            on_disconnect=self._on_disconnect,
            on_exit=self._on_exit,
            on_keys_wanted=self._on_keys_wanted,
        )
        worker.counters = counters
        await worker.adopt(orphan.connection, orphan.hello, orphan.frames)
        for frame in orphan.early:
            worker.receive(frame)
        self._redirect_logs(worker)
        return worker

    async def adopt_again(self, worker: Worker) -> bool:
        """One whose control connection broke while its process lives on, and waits where any orphan waits."""
        orphan = await asyncio.to_thread(adopt, self._directory.socket_path(worker.pid), ADOPT_DEADLINE_S)
        if orphan is None:
            return False
        for listener in orphan.listeners:
            listener.close()
        await worker.adopt(orphan.connection, orphan.hello, orphan.frames)
        self._redirect_logs(worker)
        return True

    def _redirect_logs(self, worker: Worker) -> None:
        worker.redirect_access_log(self.access_log_fd)
        worker.redirect_audit_log(self.audit_log_fd)
