"""Log lines of both kinds of process: a sentence for people, a stable event name and fields for machines.

Owns the format and nothing else. Every line goes to standard error; access logs do not pass through here. Event names
are part of the interface: dashboards and alerts match on them.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

import msgspec

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "event"}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
LEVELS = tuple(_LEVELS)
FORMATS = ("text", "json")


def emit(logger: logging.Logger, level: int, event: str, message: str, **fields: object) -> None:
    """Log ``message`` with the stable name ``event`` (``worker.started``) and ``fields``."""
    logger.log(level, "%s", message, extra={"event": event, **fields})


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


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Send this process's log to ``stream`` (standard error). ``style`` is one of :data:`FORMATS`."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JSONFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, _LEVELS[level]))
