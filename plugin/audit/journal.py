"""Lines of the control process for the audit log, written by a thread of its own.

Whoever has something to say is never held up: when too many lines wait, or the file does not take them, they are lost
and counted, and a line says how many as soon as the file takes lines again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
from datetime import UTC, datetime

import msgspec

from proxy.logs import emit

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000
_FLUSH_S = 2.0


class Journal:
    """Appends to a file descriptor; -1 writes nowhere, and costs nothing."""

    def __init__(self, descriptor: int, gateway: str) -> None:
        """``gateway``: its service ID."""
        self.dropped = 0
        """Lines that were lost so far."""
        self._gateway = gateway
        self._waiting: queue.Queue[bytes | int | None] = queue.Queue(MOST_WAITING)
        """Lines; a number is the descriptor from then on, ``None`` the end."""
        self._thread: threading.Thread | None = None
        if descriptor >= 0:
            self._thread = threading.Thread(target=self._run, args=(os.dup(descriptor),), name="audit-log", daemon=True)
            self._thread.start()

    @property
    def wanted(self) -> bool:
        return self._thread is not None

    def note(self, event: str, **fields: object) -> None:
        """Write a line. Values are what JSON has; see docs/audit-log.md."""
        if self._thread is None:
            return
        moment = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        line = {"time": moment, "event": event, "gateway": self._gateway, "pid": os.getpid(), **fields}
        self._put(msgspec.json.encode(line, enc_hook=str) + b"\n")

    def redirect(self, descriptor: int) -> None:
        """Later lines go to ``descriptor``, which stays the caller's."""
        if self._thread is not None:
            self._put(os.dup(descriptor))

    def close(self, timeout_s: float = _FLUSH_S) -> None:
        """Write what waits, but no longer than this."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._waiting.put_nowait(None)
            self._thread.join(timeout_s)

    def _put(self, item: bytes | int) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            if isinstance(item, int):
                os.close(item)
            self.dropped += 1

    # --- in the thread ----------------------------------------------------------------------------------------

    def _run(self, descriptor: int) -> None:
        file = _File(descriptor)
        told, trouble = 0, False
        while (item := self._waiting.get()) is not None:
            if isinstance(item, int):
                file.close()
                file = _File(item)
                continue
            missing = self.dropped - told
            if missing and not file.lost(b'{"event":"audit_log.lines_dropped","count":%d}\n' % missing):
                told, trouble = told + missing, False
                message = f"{missing} audit log lines were lost; they are written again"
                emit(logger, logging.WARNING, "audit_log.lines_dropped", message, count=missing)
            if problem := file.lost(item):
                self.dropped += 1
                if not trouble:
                    trouble = True
                    emit(logger, logging.WARNING, "audit_log.problem", f"audit log lines are lost: {problem}")
        file.close()


class _File:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._cut = False
        """The last line that was written is not whole."""

    def lost(self, line: bytes) -> str:
        """Write it; why it was not written, empty when it was."""
        rest = b"\n" + line if self._cut else line
        while rest:
            try:
                taken = os.write(self._descriptor, rest)
            except OSError as error:
                return error.strerror or str(error)
            self._cut = not rest[:taken].endswith(b"\n")
            rest = rest[taken:]
        return ""

    def close(self) -> None:
        os.close(self._descriptor)
