"""Where lines of the access log go: what the command line says, else what ``AccessLogs`` of proxy-defaults say. The
file of the audit log is kept in the same way, and is what the command line says.

Opens the file here, once, so that workers need no path and no right to create files; they get its descriptor. A target
that cannot be opened is reported, and the lines go on to where they went.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from plugin.consul.api import AccessLogs
from plugin.errors import StartError
from proxy.logs import emit

logger = logging.getLogger(__name__)

STDOUT, STDERR, NOWHERE = "-", "stderr", "off"
_STANDARD = {STDOUT: 1, STDERR: 2, NOWHERE: -1}


@dataclass(frozen=True, slots=True)
class SinkKind:
    name: str
    flag: str
    mode: int
    """Of a file that is made."""
    problem_event: str
    target_event: str


ACCESS = SinkKind("access log", "--access-log", 0o640, "access_log.problem", "access_log.target")
AUDIT = SinkKind("audit log", "--audit-log", 0o600, "audit_log.problem", "audit_log.target")


class AccessLogSink:
    def __init__(self, chosen: str | None, kind: SinkKind = ACCESS) -> None:
        """``chosen`` is ``--access-log``; ``None`` leaves the choice to proxy-defaults.

        :raises StartError: when the chosen file cannot be opened.
        """
        self._kind = kind
        self._chosen = chosen
        self._target: tuple[str, str] = _of_flag(chosen or STDOUT)
        self._missing = False
        self.problem = ""
        """Why proxy-defaults' target, or the file opened again, is not in use."""
        self.redirect: Callable[[int], None] = lambda descriptor: None
        """Called with the descriptor that takes the place of the former one; -1 is nowhere."""
        try:
            self.descriptor = _open(self._target, kind.mode)
        except OSError as error:
            raise StartError(f"cannot open the {kind.name} {chosen}: {error.strerror}; see {kind.flag}") from error

    def take(self, settings: AccessLogs | None) -> None:
        """Follow proxy-defaults, unless the command line has chosen."""
        if self._chosen is not None:
            return
        wanted = _of_entry(settings)
        if wanted != self._target or self.problem:
            self._switch(wanted)

    def reopen(self) -> None:
        """The file may have been moved away (log rotation)."""
        if self._target[0] == "file":
            self._switch(self._target)

    def moved(self) -> bool:
        """Whether the file is no longer at its path: deleted, or moved away without a word to us.

        True only when it was so at the last look too: between the two halves of a rotation there is no file. Takes as
        long as its file system does.
        """
        missing = self._target[0] == "file" and not _is_at(self._target[1], self.descriptor)
        before, self._missing = self._missing, missing
        return missing and before

    def _switch(self, target: tuple[str, str]) -> None:
        try:
            opened = _open(target, self._kind.mode)
        except OSError as error:
            what = f"the {self._kind.name} {target[1]} cannot be opened"
            problem = f"{what}: {error.strerror}; lines go on to where they went"
            if problem != self.problem:
                emit(logger, logging.WARNING, self._kind.problem_event, problem)
            self.problem = problem
            return
        former, self.descriptor = self.descriptor, opened
        self._target, self.problem = target, ""
        self.redirect(opened)
        emit(logger, logging.INFO, self._kind.target_event, f"the {self._kind.name} goes to {target[1]}")
        if former > 2:
            os.close(former)


def _of_flag(chosen: str) -> tuple[str, str]:
    return ("standard", chosen) if chosen in (STDOUT, NOWHERE) else ("file", chosen)


def _of_entry(settings: AccessLogs | None) -> tuple[str, str]:
    if settings is None or not settings.enabled or settings.type in ("", "stdout"):
        return "standard", STDOUT
    return ("standard", STDERR) if settings.type == "stderr" else ("file", settings.path)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
    except OSError:
        return True  # it cannot be told, and could not be opened either


def _open(target: tuple[str, str], mode: int) -> int:
    """:raises OSError: when the file cannot be opened for appending."""
    kind, where = target
    if kind == "standard":
        return _STANDARD[where]
    # A pipe that nobody reads would hold us here for ever; a file does not mind.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(where, flags, mode)
