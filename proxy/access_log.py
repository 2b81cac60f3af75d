"""One JSON line for each connection that has ended.

Lines are written by a thread of their own: a full pipe or a slow disk delays the log, never a connection. When more
than ``_MOST_WAITING`` lines wait, new ones are dropped and counted, and the count is written as soon as there is room.
"""

from __future__ import annotations

import collections
import functools
import os
import threading
import time

import msgspec

_MOST_WAITING = 10_000
_BYTES_PER_WRITE = 4_096  # PIPE_BUF: what the workers write to one pipe never mixes within a line
_GATHER_S = 0.05
"""Lines are gathered this long: a thread that wakes for each one would take the interpreter from the connections."""


class AccessRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the access log."""

    time: str
    """When the connection was accepted; RFC 3339, UTC, microseconds."""
    event: str = "connection"
    worker: int
    number: int
    """Of the connection, within its worker."""
    client: str
    """``ip:port``"""
    verdict: str
    """``allowed``, ``denied`` (by policy) or ``refused`` (before policy was asked)."""
    reason: str
    """A :class:`proxy.model.CloseReason`."""
    service: str = ""
    server_name: str = ""
    source: str = ""
    """The caller's SPIFFE ID."""
    intention: str = ""
    """What decided: the intention with its precedence, or the default."""
    precedence: int = 0
    endpoint: str = ""
    tls: str = ""
    bytes_received: int = msgspec.UNSET  # type: ignore[assignment]
    """From the client."""
    bytes_sent: int = msgspec.UNSET  # type: ignore[assignment]
    duration_ms: float = msgspec.UNSET  # type: ignore[assignment]
    detail: str = ""


def timestamp(wall_s: float) -> str:
    """Unix seconds as RFC 3339 text in UTC, microseconds."""
    microseconds = round(wall_s * 1_000_000)
    return f"{_whole_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06d}Z"


@functools.lru_cache(maxsize=16)
def _whole_second(wall_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall_s))


class AccessLog:
    """Writes records to a file descriptor; -1 writes nowhere."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._encoder = msgspec.json.Encoder()
        self._waiting: collections.deque[bytes] = collections.deque()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self.dropped = 0
        """Lines that were lost because the writer could not keep up."""
        self._reported = 0
        self._thread: threading.Thread | None = None
        if descriptor >= 0:
            self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
            self._thread.start()

    @property
    def wanted(self) -> bool:
        """False: lines go nowhere, and need not be made."""
        return self._thread is not None

    def write(self, record: AccessRecord) -> None:
        if self._thread is None:
            return
        if len(self._waiting) >= _MOST_WAITING:
            self.dropped += 1
            return
        self._waiting.append(self._encoder.encode(record))
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
                self._write(self._gather())
            if self.dropped > self._reported and not self._stop.is_set():
                missing, self._reported = self.dropped - self._reported, self.dropped
                self._write(b'{"event":"access_log_lines_dropped","count":%d}\n' % missing)
            if self._stop.is_set():
                return

    def _gather(self) -> bytes:
        """As many whole lines as one write takes, at least one."""
        lines = bytearray(self._waiting.popleft() + b"\n")
        while self._waiting and len(lines) + len(self._waiting[0]) < _BYTES_PER_WRITE:
            lines += self._waiting.popleft() + b"\n"
        return bytes(lines)

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # The descriptor was handed to us non-blocking; wait here, in this thread, as a blocking one would.
                threading.Event().wait(0.05)
            except OSError:
                self.dropped += data.count(b"\n")
                return
