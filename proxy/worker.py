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
from proxy.access_log import AccessLog
from proxy.control import ControlLink, HandoverDoor
from proxy.dataplane import DataPlane
from proxy.listener import Listener
from proxy.model import (
    PROTOCOL_VERSION,
    AccessLogTarget,
    CloseReason,
    Counters,
    Drain,
    Hello,
    Query,
    Start,
    ToWorker,
    Update,
)
from proxy.poller import Poller

logger = logging.getLogger(__name__)

_REPORT_INTERVAL_S = 1.0
_LOG_CLOSE_TIMEOUT_S = 2.0


class Worker:
    """``run`` returns when the worker has nothing left to do."""

    def __init__(self, poller: Poller, control: socket.socket) -> None:
        self._poller = poller
        self._loop = loop = poller.loop
        self._link: ControlLink | None = ControlLink(loop, control, self._on_frame, self._on_lost)
        self._start: Start | None = None
        self._plane: DataPlane | None = None
        self._access_log: AccessLog | None = None
        self._door: HandoverDoor | None = None
        self._listeners: list[Listener] = []
        self._accepting = False
        self._reported: Counters | None = None
        self._drain_until_s: float | None = None
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
            case Drain():
                self._begin_drain(frame.timeout_s)
            case Query():
                if self._plane is not None and self._link is not None:
                    self._link.send(self._plane.page(frame))

    def _begin(self, start: Start) -> None:
        if self._start is not None:
            return
        self._start = start
        logs.configure(start.log_level, start.log_format)
        self._access_log = AccessLog(start.access_log_fd)
        self._plane = plane = DataPlane(
            self._poller, worker=start.worker, limits=start.limits, access_log=self._access_log
        )
        for inherited in start.listeners:
            listening = socket.socket(fileno=inherited.fd)
            self._listeners.append(Listener(self._loop, listening, inherited.address, plane.admit))
        if start.handover_path:
            self._open_door(Path(start.handover_path))
        if self._link is not None:
            self._link.send(self._hello()[0])

    def _redirect(self, target: AccessLogTarget) -> None:
        if self._access_log is not None and self._link is not None:
            self._access_log.redirect(self._link.take_descriptor() if target.descriptor else -1)

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
        )
        return hello, [listener.socket.fileno() for listener in self._listeners]

    # --- the control process comes and goes -------------------------------------------------------------------

    def _on_lost(self) -> None:
        self._link = None
        if self._start is None:
            self._stopped = True
            self._wake.set()
        elif self._drain_until_s is None:
            logger.warning("the control process is gone; serving on with the state of its last update")

    def _adopted(self, successor: socket.socket) -> None:
        logger.info("a new control process has taken over")
        self._reported = None
        self._link = ControlLink(self._loop, successor, self._on_frame, self._on_lost)

    # --- reporting and ending ---------------------------------------------------------------------------------

    def _report(self) -> None:
        if self._plane is None or self._link is None:
            return
        counters = self._plane.counters()
        if counters != self._reported:
            self._reported = counters
            self._link.send(counters)

    def _on_terminate(self) -> None:
        self._begin_drain(self._start.limits.drain_timeout_s if self._start else 0.0)

    def _begin_drain(self, timeout_s: float) -> None:
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        self._drain_until_s = time.monotonic() + timeout_s
        self._wake.set()

    async def _drain(self) -> None:
        assert self._drain_until_s is not None
        if self._plane is None:
            self._stopped = True
            return
        left_s = self._drain_until_s - time.monotonic()
        try:
            async with asyncio.timeout(min(_REPORT_INTERVAL_S, max(left_s, 0))):
                await self._plane.drained()
        except TimeoutError:
            if left_s > _REPORT_INTERVAL_S:
                self._wake.set()  # report, then wait again; a new Drain may have moved the end
                return
            self._plane.end_all(CloseReason.DRAIN, "the gateway is stopping")
        self._report()
        self._stopped = True

    def _tidy_up(self) -> None:
        for listener in self._listeners:
            listener.stop()
        if self._door is not None:
            self._door.close()
        if self._access_log is not None:
            self._access_log.close(_LOG_CLOSE_TIMEOUT_S)
        if self._link is not None:
            self._link.close()


def _ignore() -> None:
    """A signal that is meant for the control process."""


def run(control: socket.socket) -> None:
    """Be a worker until told to stop. ``control`` is this end of the link."""
    _tune_memory()
    poller = Poller()
    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(Worker(poller, control).run())


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
