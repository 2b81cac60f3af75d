"""One worker process: wires the data plane, the listening sockets and the link with the control process.

It exits when it is told to drain and the last connection has gone (or the time is over), never because the control
process is gone.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from pathlib import Path

from proxy import logs
from proxy.confinement import Confinement, ConfinementError, confine
from proxy.control import ControlLink, HandoverDoor
from proxy.dataplane import DataPlane
from proxy.logs import emit
from proxy.messages import (
    PROTOCOL_VERSION,
    AccessLogTarget,
    AuditLogTarget,
    Counters,
    Drain,
    Hello,
    KeysWanted,
    Kill,
    Limits,
    Listen,
    Listening,
    Ping,
    Pong,
    Query,
    Recall,
    Start,
    ToWorker,
    Update,
)
from proxy.model import CloseReason
from proxy.overload import raise_descriptor_limit
from proxy.records.access_log import AccessLog
from proxy.records.audit_log import AuditLog
from proxy.sockets.descriptors import OpenFiles
from proxy.sockets.listener import Listener
from proxy.sockets.poller import Poller

logger = logging.getLogger(__name__)

_REPORT_INTERVAL_S = 1.0
_LOG_CLOSE_TIMEOUT_S = 2.0
_STOPPING = "the gateway is stopping, or this worker was replaced, and the time for draining is over"
_EXIT_NOT_CONFINED = 77
"""``EX_NOPERM`` of sysexits.h."""


class Worker:
    """``run`` returns when the worker has nothing left to do."""

    def __init__(self, poller: Poller, control: socket.socket, confinement: Confinement, code: str) -> None:
        self._poller = poller
        self._code = code
        self._confinement = confinement
        self._loop = loop = poller.loop
        self._link: ControlLink | None = ControlLink(loop, control, self._on_frame, self._on_lost)
        self._start: Start | None = None
        self._plane: DataPlane | None = None
        self._access_log: AccessLog | None = None
        self._audit_log: AuditLog | None = None
        self._door: HandoverDoor | None = None
        self._listeners: list[Listener] = []
        self._accepting = False
        self._reported: Counters | None = None
        self._drain_until_s: float | None = None
        self._drain_window_s = 0.0
        self._over_at_s: float | None = None
        """When the last connection is ended; known once the ending has begun."""
        self._wake = asyncio.Event()
        self._stopped = False

    async def run(self) -> None:
        self._loop.add_signal_handler(signal.SIGTERM, self._on_terminate)
        # Ctrl-C reaches the whole process group; the control process decides what it means.
        self._loop.add_signal_handler(signal.SIGINT, _ignore)
        self._loop.add_signal_handler(signal.SIGHUP, _ignore)
        try:
            while not self._stopped:
                await self._pause()
                self._report()
                if self._drain_until_s is not None:
                    await self._drain()
        finally:
            self._tidy_up()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(_REPORT_INTERVAL_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    # --- frames -----------------------------------------------------------------------------------------------

    def _on_frame(self, frame: ToWorker) -> None:
        match frame:
            case Start():
                self._begin(frame)
            case Update():
                self._update(frame)
            case AccessLogTarget():
                self._redirect(frame)
            case AuditLogTarget():
                self._redirect_audit(frame)
            case Listen():
                self._listen(frame)
            case Drain():
                self._begin_drain(frame.timeout_s, frame.window_s)
            case Query():
                if self._plane is not None and self._link is not None:
                    self._link.send(self._plane.page(frame))
            case Kill():
                if self._plane is not None and self._link is not None:
                    self._link.send(self._plane.kill(frame))
            case Recall():
                if self._plane is not None and self._link is not None:
                    self._link.send(self._plane.recall(frame))
            case Ping():
                if self._link is not None:
                    self._link.send(Pong(frame.id))

    def _begin(self, start: Start) -> None:
        if self._start is not None:
            return
        self._start = start
        if start.handover_path:
            self._open_door(Path(start.handover_path))
        open_files = OpenFiles()
        # After the last file was opened; before the first thread, which is the log's, and the first client.
        problem = self._confined()
        logs.configure(start.log_level, start.log_format)
        emit(logger, logging.INFO, "worker.code", f"worker {start.worker} runs {self._code}", worker=start.worker)
        if problem:
            emit(logger, logging.WARNING, "worker.files_open", f"files stay readable for this worker: {problem}")
        self._access_log = AccessLog(start.access_log_fd)
        self._audit_log = AuditLog(
            start.audit_log_fd, gateway=start.gateway, worker=start.worker, every_allowed=start.audit_allowed
        )
        self._plane = plane = DataPlane(
            self._poller,
            worker=start.worker,
            limits=start.limits,
            access_log=self._access_log,
            descriptors=raise_descriptor_limit(),
            open_files=open_files,
            audit_log=self._audit_log,
        )
        for inherited in start.listeners:
            listening = socket.socket(fileno=inherited.fd)
            self._listeners.append(Listener(self._loop, listening, inherited.address, plane.admit))
        if self._link is not None:
            self._link.send(self._hello()[0])

    def _listen(self, frame: Listen) -> None:
        if self._plane is None or self._link is None:
            return
        descriptors = [self._link.take_descriptor() for _ in frame.addresses]
        if -1 in descriptors:
            # The kernel drops them when this process may open no more files (unix(7)); the sender asks again.
            logger.error("listening sockets did not arrive, those from before stay; raise the limit of open files")
            for descriptor in filter(lambda one: one >= 0, descriptors):
                os.close(descriptor)
        else:
            self._listen_on(self._plane, dict(zip(descriptors, frame.addresses, strict=True)))
        self._link.send(Listening(tuple(one.address for one in self._listeners)))

    def _listen_on(self, plane: DataPlane, addresses: dict[int, str]) -> None:
        """``addresses`` by descriptor. A socket that is here already may come again as another descriptor."""
        known = {_inode(one.socket.fileno()): one for one in self._listeners}
        kept: list[Listener] = []
        for descriptor, address in addresses.items():
            listener = known.pop(_inode(descriptor), None)
            if listener is not None:
                os.close(descriptor)
            else:
                listener = Listener(self._loop, socket.socket(fileno=descriptor), address, plane.admit)
                if self._accepting:
                    listener.start()
            kept.append(listener)
        for unwanted in known.values():
            unwanted.stop()
        self._listeners = kept
        if self._drain_until_s is not None:
            self._stop_listening()

    def _confined(self) -> str:
        try:
            return confine(self._confinement)
        except ConfinementError as error:
            emit(logger, logging.ERROR, "worker.not_confined", str(error))
            raise SystemExit(_EXIT_NOT_CONFINED) from error

    def _redirect(self, target: AccessLogTarget) -> None:
        if self._access_log is None or self._link is None:
            return
        descriptor = self._link.take_descriptor() if target.descriptor else -1
        if target.descriptor and descriptor < 0:
            # The kernel drops what we have no free number for.
            logger.error("the new access log did not arrive: too many open files; lines go on to where they went")
            return
        self._access_log.redirect(descriptor)

    def _redirect_audit(self, target: AuditLogTarget) -> None:
        if self._audit_log is None or self._link is None:
            return
        descriptor = self._link.take_descriptor() if target.descriptor else -1
        if target.descriptor and descriptor < 0:
            logger.error("the new audit log did not arrive: too many open files; lines go on to where they went")
            return
        self._audit_log.redirect(descriptor)

    def _open_door(self, path: Path) -> None:
        try:
            self._door = HandoverDoor(
                self._loop,
                path,
                wanted=self._is_orphan,
                hello=self._hello,
                adopted=self._adopted,
            )
        except OSError as error:
            logger.error("no successor of the control process will find this worker: %s: %s", path, error.strerror)

    def _is_orphan(self) -> bool:
        if self._link is not None:
            self._link.check()  # the successor may be quicker than the news of the loss
        return self._link is None

    def _update(self, update: Update) -> None:
        if self._plane is None or self._link is None:
            return
        applied = self._plane.apply(update)
        if not self._accepting and self._drain_until_s is None:
            # Not before the first state is in force: until then the queue of the socket holds the clients.
            self._accepting = True
            for listener in self._listeners:
                listener.start()
        self._link.send(applied)

    def _hello(self) -> tuple[Hello, list[int]]:
        assert self._start is not None
        assert self._plane is not None
        hello = Hello(
            version=PROTOCOL_VERSION,
            pid=os.getpid(),
            worker=self._start.worker,
            gateway=self._start.gateway,
            generation=self._plane.routes.generation,
            listeners=tuple(listener.address for listener in self._listeners),
            code=self._code,
        )
        return hello, [listener.socket.fileno() for listener in self._listeners]

    # --- the control process comes and goes -------------------------------------------------------------------

    def _on_lost(self) -> None:
        self._link = None
        if self._plane is not None and self._plane.alone_since_s is None:
            self._plane.alone_since_s = self._loop.time()
        if self._start is None:
            self._stopped = True
            self._wake.set()
        elif self._drain_until_s is None:
            logger.warning("the control process is gone; serving on with the state of its last update")

    def _adopted(self, successor: socket.socket) -> None:
        logger.info("a new control process has taken over")
        self._reported = None
        self._link = ControlLink(self._loop, successor, self._on_frame, self._on_lost)
        self._report()

    # --- reporting and ending ---------------------------------------------------------------------------------

    def _report(self) -> None:
        if self._plane is None or self._link is None:
            return
        if wanted := self._plane.keys_wanted:
            self._link.send(KeysWanted(tuple(sorted(wanted))))
            wanted.clear()
        counters = self._plane.counters()
        if counters != self._reported:
            self._reported = counters
            self._link.send(counters)

    def _on_terminate(self) -> None:
        limits = self._start.limits if self._start else Limits(drain_timeout_s=0.0)
        self._begin_drain(limits.drain_timeout_s, limits.drain_window_s)

    def _begin_drain(self, timeout_s: float, window_s: float) -> None:
        """A later call moves the end, until it has begun."""
        self._stop_listening()
        self._drain_until_s = time.monotonic() + timeout_s
        self._drain_window_s = window_s
        if self._plane is not None:
            self._plane.drain()
        self._wake.set()

    def _stop_listening(self) -> None:
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()

    async def _drain(self) -> None:
        """One step of it: returns at the latest when the next report is due."""
        if self._plane is None:
            self._stopped = True
            return
        try:
            async with asyncio.timeout(min(_REPORT_INTERVAL_S, self._drain_left_s(self._plane))):
                await self._plane.drained()
        except TimeoutError:
            if self._over_at_s is None or time.monotonic() < self._over_at_s:
                self._wake.set()
                return
            self._plane.end_all(CloseReason.DRAIN, _STOPPING)
        self._report()
        self._stopped = True

    def _drain_left_s(self, plane: DataPlane) -> float:
        """Seconds until the ending begins, or once it has begun, until it is over."""
        assert self._drain_until_s is not None
        now_s = time.monotonic()
        if self._over_at_s is None and now_s >= self._drain_until_s:
            self._over_at_s = now_s + self._drain_window_s
            plane.end_spread(self._drain_window_s, CloseReason.DRAIN, _STOPPING)
        return max(0.0, (self._over_at_s or self._drain_until_s) - now_s)

    def _tidy_up(self) -> None:
        for listener in self._listeners:
            listener.stop()
        if self._door is not None:
            self._door.close()
        if self._access_log is not None:
            self._access_log.close(_LOG_CLOSE_TIMEOUT_S)
        if self._audit_log is not None:
            self._audit_log.close(_LOG_CLOSE_TIMEOUT_S)
        if self._link is not None:
            self._link.close()


def _inode(descriptor: int) -> int:
    """The same for every descriptor of one socket, in whatever process."""
    return os.fstat(descriptor).st_ino


def _ignore() -> None:
    """A signal that is meant for the control process."""


def run(control: socket.socket, confinement: Confinement, *, code: str = "") -> None:
    """Be a worker until told to stop. ``control`` is this end of the link; ``code`` what our modules run as."""
    _tune_memory()
    poller = Poller()
    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(Worker(poller, control, confinement, code).run())


def _tune_memory() -> None:
    """Keep the large buffers of TLS on the heap, and the collector away from what lives long.

    glibc gives blocks above its threshold back to the kernel at once, and each new one costs page faults: in the
    encrypting direction that is half the throughput.
    """
    import ctypes

    m_mmap_threshold, m_trim_threshold = -3, -1  # malloc.h
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(m_mmap_threshold, 4 * 1024 * 1024)
        libc.mallopt(m_trim_threshold, 16 * 1024 * 1024)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
