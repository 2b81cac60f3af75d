"""The audit log of one gateway: its file, the lines of this process, and the workers that write to the same file."""

from __future__ import annotations

from collections.abc import Callable

from plugin.access_log_sink import AUDIT, NOWHERE, AccessLogSink
from plugin.audit.journal import Journal
from plugin.settings import GatewaySettings


class AuditDesk:
    def __init__(self, settings: GatewaySettings) -> None:
        """:raises StartError: when the file cannot be opened."""
        # Absolute: no name of a file is taken for one of the words that --access-log has.
        chosen = str(settings.audit_log.absolute()) if settings.audit_log is not None else NOWHERE
        self._sink = AccessLogSink(chosen, AUDIT)
        self.journal = Journal(self._sink.descriptor, settings.id)
        self.redirect_workers: Callable[[int], None] = lambda descriptor: None
        self._sink.redirect = self._redirect

    @property
    def descriptor(self) -> int:
        """For workers; -1 without an audit log."""
        return self._sink.descriptor

    @property
    def problem(self) -> str:
        """Why the file opened again is not in use."""
        return self._sink.problem

    def moved(self) -> bool:
        """See :meth:`plugin.access_log_sink.AccessLogSink.moved`."""
        return self._sink.moved()

    def reopen(self) -> None:
        """The file may have been moved away (log rotation)."""
        self._sink.reopen()

    def _redirect(self, descriptor: int) -> None:
        self.journal.redirect(descriptor)
        self.redirect_workers(descriptor)
