"""Lines of a log on their way to a file descriptor, written by a thread of their own.

A full pipe or a slow disk delays the log, never a connection. When more than ``MOST_WAITING`` lines wait, new ones are
dropped and counted, and the count is written as soon as there is room.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from dataclasses import dataclass

from proxy.logs import emit

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
MOST_BYTES_WAITING = 32 * 1024 * 1024
"""Beside their number: a format may have lines as long as the heads that clients send."""
_BYTES_PER_WRITE = 4_096  # PIPE_BUF: what the workers write to one pipe never mixes within a line
_TRY_AGAIN_S = 0.05
_GATHER_S = 0.05
"""Lines are gathered this long: a thread that wakes for each one would take the interpreter from the connections."""


@dataclass(frozen=True, slots=True)
class LogKind:
    """What is said when lines are lost."""

    name: str
    problem_event: str
    dropped_event: str
    dropped_line: str
    """The ``event`` of the line that takes the place of lost ones."""


ACCESS = LogKind("access log", "access_log.problem", "access_log.lines_dropped", "access_log_lines_dropped")
AUDIT = LogKind("audit log", "audit_log.problem", "audit_log.lines_dropped", "audit_log.lines_dropped")


class Outlet:
    """One descriptor, the lines that wait for it, and the thread that writes them."""

    def __init__(self, descriptor: int, kind: LogKind = ACCESS) -> None:
        self.dropped = 0
        self._kind = kind
        self._descriptor = descriptor
        self._waiting: collections.deque[bytes] = collections.deque()
        self._put = 0
        """Bytes, counted by who brings lines; ``_taken`` by the thread that writes them."""
        self._taken = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._retired = False
        self._told = 0
        self._trouble = ""
        """Why lines are being lost at the moment."""
        self._cut = False
        """The last line that was written is not whole."""
        self._writing = threading.Thread(target=self._run, name=kind.name.replace(" ", "-"), daemon=True)
        self._writing.start()

    @property
    def ended(self) -> bool:
        """Everything is written, or lost, and a descriptor that was retired is closed."""
        return not self._writing.is_alive()

    def has_room(self) -> bool:
        """False when too much waits already; the line that was to come counts as lost then."""
        if len(self._waiting) < MOST_WAITING and self._put - self._taken < MOST_BYTES_WAITING:
            return True
        self.dropped += 1
        self._in_trouble(f"{len(self._waiting)} wait already: the reader of the pipe, or the disk, does not keep up")
        return False

    def put(self, line: bytes) -> None:
        self._put += len(line)
        self._waiting.append(line)
        if not self._wake.is_set():  # it is woken already, and looks at all lines after it has slept
            self._wake.set()

    def stop(self) -> None:
        """Write what waits, then end."""
        self._stop.set()
        self._wake.set()

    def retire(self) -> None:
        """As :meth:`stop`, and close the descriptor in the end."""
        self._retired = True
        self.stop()

    def join(self, timeout_s: float) -> None:
        self._writing.join(timeout_s)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            self._stop.wait(_GATHER_S)
            lost = 0
            while self._waiting:
                lost = self._lost_of(self._gathered())
                self.dropped += lost
            if not lost:
                self._tell_losses()
            if self._stop.is_set():
                break
        if self._retired and self._descriptor > 2:
            # The standard streams stay open: what else would take their numbers?
            os.close(self._descriptor)

    def _gathered(self) -> bytes:
        """As many whole lines as one write takes, at least one."""
        lines = bytearray(self._waiting.popleft())
        while self._waiting and len(lines) + len(self._waiting[0]) <= _BYTES_PER_WRITE:
            lines += self._waiting.popleft()
        self._taken += len(lines)
        return bytes(lines)

    def _lost_of(self, lines: bytes) -> int:
        """Write ``lines``; how many of them could not be."""
        rest = b"\n" + lines if self._cut else lines
        while rest:
            try:
                taken = os.write(self._descriptor, rest)
            except BlockingIOError:
                # The descriptor was handed to us non-blocking; wait here, in this thread, as a blocking one would.
                time.sleep(_TRY_AGAIN_S)
            except OSError as error:
                self._in_trouble(error.strerror or str(error))
                return min(rest.count(b"\n"), lines.count(b"\n"))
            else:
                self._cut = not rest[:taken].endswith(b"\n")
                rest = rest[taken:]
        return 0

    def _in_trouble(self, why: str) -> None:
        if not self._trouble:
            self._trouble = why
            emit(logger, logging.WARNING, self._kind.problem_event, f"{self._kind.name} lines are lost: {why}")

    def _tell_losses(self) -> None:
        missing, kind = self.dropped - self._told, self._kind
        if not missing or self._lost_of(b'{"event":"%s","count":%d}\n' % (kind.dropped_line.encode(), missing)):
            return
        self._told += missing
        self._trouble = ""
        message = f"{missing} {kind.name} lines were lost; they are written again"
        emit(logger, logging.WARNING, kind.dropped_event, message, count=missing)
