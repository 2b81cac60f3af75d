"""One line for each connection that has ended: the built-in JSON, or as proxy-defaults say.

Lines are written by a thread of their own: a full pipe or a slow disk delays the log, never a connection. When more
than ``_MOST_WAITING`` lines wait, new ones are dropped and counted, and the count is written as soon as there is room.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time

import msgspec

from proxy.access_format import render
from proxy.access_heads import Heads
from proxy.access_record import AccessRecord
from proxy.logs import emit
from proxy.model import AccessLogFormat

logger = logging.getLogger(__name__)

_MOST_WAITING = 10_000
_BYTES_PER_WRITE = 4_096  # PIPE_BUF: what the workers write to one pipe never mixes within a line
_TRY_AGAIN_S = 0.05
_GATHER_S = 0.05
"""Lines are gathered this long: a thread that wakes for each one would take the interpreter from the connections."""


class AccessLog:
    """Writes records to a file descriptor; -1 writes nowhere."""

    def __init__(self, descriptor: int) -> None:
        self.layout: AccessLogFormat | None = None
        """``None``: the built-in line, for every connection."""
        self._encoder = msgspec.json.Encoder()
        self._outlet: _Outlet | None = None if descriptor < 0 else _Outlet(descriptor)
        self._former: list[_Outlet] = []
        self._lost_before = 0

    @property
    def dropped(self) -> int:
        """Lines that were lost because what they go to did not take them."""
        outlets = [*self._former, self._outlet] if self._outlet is not None else self._former
        return self._lost_before + sum(outlet.dropped for outlet in outlets)

    @property
    def wanted(self) -> bool:
        """False: lines go nowhere, and need not be made."""
        return self._outlet is not None

    @property
    def wants_local_address(self) -> bool:
        """The lines tell which address the client connected to."""
        return self.layout is not None and self.layout.uses("DOWNSTREAM_LOCAL_")

    def redirect(self, descriptor: int) -> None:
        """Lines of connections that end from now on go to ``descriptor``, which is ours then, or nowhere (-1).

        Each has a thread of its own: one whose pipe is full keeps nothing from going elsewhere.
        """
        if self._outlet is not None:
            self._outlet.retire()
            self._former.append(self._outlet)
        self._lost_before += sum(outlet.dropped for outlet in self._former if outlet.ended)
        self._former = [outlet for outlet in self._former if not outlet.ended]
        self._outlet = None if descriptor < 0 else _Outlet(descriptor)

    def write(self, record: AccessRecord, opened_at_s: float, heads: Heads | None = None) -> None:
        """``opened_at_s`` is when the connection was accepted, or the request came, Unix time."""
        outlet, layout = self._outlet, self.layout
        if outlet is None or (layout is not None and not layout.listener and not record.service):
            return
        if not outlet.has_room():
            return
        if layout is not None and layout.parts:
            outlet.put(render(layout, record, opened_at_s, heads))
        else:
            outlet.put(self._encoder.encode(record) + b"\n")

    def close(self, timeout_s: float) -> None:
        """Write what waits, but no longer than this."""
        until_s = time.monotonic() + timeout_s
        outlets = [*self._former, self._outlet] if self._outlet is not None else self._former
        for outlet in outlets:
            outlet.stop()
        for outlet in outlets:
            outlet.join(max(0.0, until_s - time.monotonic()))


class _Outlet:
    """One descriptor, the lines that wait for it, and the thread that writes them."""

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._waiting: collections.deque[bytes] = collections.deque()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._retired = False
        self._told = 0
        self._trouble = ""
        """Why lines are being lost at the moment."""
        self._cut = False
        """The last line that was written is not whole."""
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Everything is written, or lost, and a descriptor that was retired is closed."""
        return not self._thread.is_alive()

    def has_room(self) -> bool:
        """False when too much waits already; the line that was to come counts as lost then."""
        if len(self._waiting) < _MOST_WAITING:
            return True
        self.dropped += 1
        self._in_trouble(f"{_MOST_WAITING} wait already: the reader of the pipe, or the disk, does not keep up")
        return False

    def put(self, line: bytes) -> None:
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
        self._thread.join(timeout_s)

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
            emit(logger, logging.WARNING, "access_log.problem", f"access log lines are lost: {why}")

    def _tell_losses(self) -> None:
        missing = self.dropped - self._told
        if not missing or self._lost_of(b'{"event":"access_log_lines_dropped","count":%d}\n' % missing):
            return
        self._told += missing
        self._trouble = ""
        message = f"{missing} access log lines were lost; they are written again"
        emit(logger, logging.WARNING, "access_log.lines_dropped", message, count=missing)
