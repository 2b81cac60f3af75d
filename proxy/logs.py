"""Log lines of both kinds of process: a sentence for people, a stable event name and fields for machines.

Every line goes to standard error; access logs do not pass through here. A thread writes them: a pipe that nobody reads
and a disk that is full cost lines, which are counted, and never delay whoever logs. Event names are part of the
interface: dashboards and alerts match on them.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import logging.handlers
import queue
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

logger = logging.getLogger(__name__)

_MOST_WAITING = 10_000
"""Lines. What is logged while so many are not written yet is dropped."""
_TRY_AGAIN_S = 0.05
_FLUSH_S = 2.0
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
LEVELS = tuple(_LEVELS)
FORMATS = ("text", "json")


def emit(logger: logging.Logger, level: int, event: str, message: str, **fields: object) -> None:
    """Log ``message`` with the stable name ``event`` (``worker.started``) and ``fields``."""
    logger.log(level, "%s", message, extra={"event": event, **fields})
    for hear in _listeners:
        hear(level, event, message, fields)


Listener = Callable[[int, str, str, Mapping[str, object]], None]
_listeners: list[Listener] = []


@contextlib.contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """``listener`` is told of every event of this process, whatever the level of the log is. It must not raise."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _PLAIN}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """``2026-01-31T12:00:00.000Z INFO worker.started: worker 0 was started pid=17``, one line for each record."""

    def format(self, record: logging.LogRecord) -> str:
        event = getattr(record, "event", record.name)
        message = record.getMessage().replace("\n", "\\n")
        line = f"{_time(record)} {record.levelname} {event}: {message}"
        line += "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and not any(character in text for character in ' "=')
    return text if text and plain else msgspec.json.encode(text).decode()


class JSONFormatter(logging.Formatter):
    """One JSON object for each record: ``time``, ``level``, ``event``, ``logger``, ``message`` and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class _NeverWaits(logging.handlers.QueueHandler):
    """Hands lines to a thread that writes them. When nobody reads the other end, or the disk is full, lines are
    dropped and counted; whoever logs is never held up."""

    queue: queue.Queue[bytes]

    def __init__(self, descriptor: int) -> None:
        """:raises OSError: when ``descriptor`` is not open."""
        super().__init__(queue.Queue(_MOST_WAITING))
        self.dropped = 0
        self._told = 0
        self._cut = False
        """The last line that was written is not whole."""
        # Not sys.stderr itself: the interpreter cannot end while a thread is held up in its buffer.
        self._output = io.FileIO(descriptor, "wb", closefd=False)
        self._pause: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Nothing is ever put into it: to wait for it is to pause."""
        _Writer(self.queue, self).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(f"{self.format(record)}\n".encode(errors="backslashreplace"))
        except queue.Full:
            self.dropped += 1
        except Exception:  # noqa: BLE001 - a record that cannot be shown must not end whoever logs it
            self.dropped += 1

    def write(self, line: bytes) -> None:
        """In the thread."""
        if not self._written(line):
            self.dropped += 1
            return
        missing = self.dropped - self._told
        if missing and self.queue.empty():
            told = f"{missing} log lines were dropped: standard error did not take them"
            record = logger.makeRecord(logger.name, logging.WARNING, "", 0, told, (), None, None, _lost(missing))
            if self._written(f"{self.format(record)}\n".encode()):
                self._told += missing

    def _written(self, line: bytes) -> bool:
        rest = b"\n" + line if self._cut else line
        while rest:
            try:
                taken = self._output.write(rest)
            except OSError:
                self._cut = self._cut or len(rest) < len(line)
                return False
            if taken is None:  # somebody made it non-blocking
                with contextlib.suppress(queue.Empty):
                    self._pause.get(timeout=_TRY_AGAIN_S)
            else:
                rest = rest[taken:]
        self._cut = False
        return True

    def flush_within(self, timeout_s: float) -> None:
        with self.queue.all_tasks_done:
            self.queue.all_tasks_done.wait_for(lambda: not self.queue.unfinished_tasks, timeout_s)


class _Writer(logging.handlers.QueueListener):
    """The thread; it does not keep the process alive."""

    def __init__(self, lines: queue.Queue[bytes], target: _NeverWaits) -> None:
        super().__init__(lines)
        self._target = target

    def handle(self, record: Any) -> None:
        self._target.write(record)


def _lost(count: int) -> dict[str, object]:
    return {"event": "log.lines_dropped", "count": count}


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send this process's log to ``stream`` (standard error). ``style`` is one of :data:`FORMATS`."""
    root = logging.getLogger()
    handler = logging.StreamHandler(stream) if stream is not None else _standard_error()
    handler.setFormatter(JSONFormatter() if style == "json" else TextFormatter())
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    logging.captureWarnings(True)  # they would go past the thread, straight to standard error
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, _LEVELS[level]))


def dropped() -> int:
    """Lines of this process's log that were lost so far because standard error did not take them."""
    return sum(handler.dropped for handler in _unblocked())


def flush(timeout_s: float = _FLUSH_S) -> None:
    """Wait until what was logged is written, but no longer than this."""
    for handler in _unblocked():
        handler.flush_within(timeout_s)


def _unblocked() -> list[_NeverWaits]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, _NeverWaits)]


def _standard_error() -> logging.Handler:
    if present := _unblocked():
        return present[0]
    try:
        handler = _NeverWaits(sys.stderr.fileno())
    except (OSError, AttributeError):  # closed, or replaced by something in memory
        return logging.StreamHandler(sys.stderr)
    atexit.register(flush)
    return handler
