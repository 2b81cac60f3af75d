"""One line for each connection that has ended: the built-in JSON, or as proxy-defaults say.

Lines are written by a thread of their own: a full pipe or a slow disk delays the log, never a connection. When more
than ``_MOST_WAITING`` lines wait, new ones are dropped and counted, and the count is written as soon as there is room.
"""

from __future__ import annotations

import collections
import os
import threading

import msgspec

from proxy.access_format import render
from proxy.access_record import AccessRecord
from proxy.model import AccessLogFormat

_MOST_WAITING = 10_000
_BYTES_PER_WRITE = 4_096  # PIPE_BUF: what the workers write to one pipe never mixes within a line
_GATHER_S = 0.05
"""Lines are gathered this long: a thread that wakes for each one would take the interpreter from the connections."""


class AccessLog:
    """Writes records to a file descriptor; -1 writes nowhere."""

    def __init__(self, descriptor: int) -> None:
        self.layout: AccessLogFormat | None = None
        """``None``: the built-in line, for every connection."""
        self._descriptor = descriptor
        self._nowhere = descriptor < 0
        self._encoder = msgspec.json.Encoder()
        self._waiting: collections.deque[bytes | int] = collections.deque()
        """Lines, and between them the descriptors that the following ones go to."""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self.dropped = 0
        """Lines that were lost because the writer could not keep up."""
        self._reported = 0
        self._thread: threading.Thread | None = None
        if descriptor >= 0:
            self._start()

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    @property
    def wanted(self) -> bool:
        """False: lines go nowhere, and need not be made."""
        return not self._nowhere

    @property
    def wants_local_address(self) -> bool:
        """The lines tell which address the client connected to."""
        return self.layout is not None and self.layout.uses("DOWNSTREAM_LOCAL_")

    def redirect(self, descriptor: int) -> None:
        """Lines of connections that end from now on go to ``descriptor``, which is ours then, or nowhere (-1)."""
        self._nowhere = descriptor < 0
        if self._thread is None:
            if self._nowhere:
                return
            self._start()
        self._waiting.append(descriptor)
        self._wake.set()

    def write(self, record: AccessRecord, opened_at_s: float) -> None:
        """``opened_at_s`` is when the connection was accepted, Unix time."""
        if self._nowhere:
            return
        layout = self.layout
        if layout is not None and not layout.listener and not record.service:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        if layout is not None and layout.parts:
            self._waiting.append(render(layout, record, opened_at_s))
        else:
            self._waiting.append(self._encoder.encode(record) + b"\n")
        self._wake.set()

    def close(self, timeout_s: float) -> None:
        """Write what waits, but no longer than this."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _write_all(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(_GATHER_S)
            while self._waiting:
                if isinstance(first := self._waiting.popleft(), int):
                    self._take_over(first)
                else:
                    self._write(self._gather(first))
            if self.dropped > self._reported and not self._stop.is_set():
                missing, self._reported = self.dropped - self._reported, self.dropped
                self._write(b'{"event":"access_log_lines_dropped","count":%d}\n' % missing)
            if self._stop.is_set():
                return

    def _gather(self, first: bytes) -> bytes:
        """As many whole lines as one write takes, at least one."""
        lines = bytearray(first)
        while self._waiting and not isinstance(following := self._waiting[0], int):
            if len(lines) + len(following) > _BYTES_PER_WRITE:
                break
            lines += following
            self._waiting.popleft()
        return bytes(lines)

    def _take_over(self, descriptor: int) -> None:
        former, self._descriptor = self._descriptor, descriptor
        if former > 2:  # the standard streams stay open: what else would take their numbers?
            os.close(former)

    def _write(self, data: bytes) -> None:
        while data and self._descriptor >= 0:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # The descriptor was handed to us non-blocking; wait here, in this thread, as a blocking one would.
                threading.Event().wait(0.05)
            except OSError:
                self.dropped += data.count(b"\n")
                return
