"""The workers, what is published to them, and the logs that they write: all that serves connections.

It goes on without the rest of the control process, and is handed over to the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from plugin.access_log_sink import AccessLogSink
from plugin.addresses import HostPort
from plugin.audit.desk import AuditDesk
from plugin.process import privileges
from plugin.process.runtime_dir import RuntimeDirectory
from plugin.reload.messages import Inheritance
from plugin.settings import GatewaySettings
from plugin.workers.pool import Workers
from plugin.workers.process import worker_command
from plugin.workers.published import Published
from plugin.workers.settings import WorkerSettings, usable_cores


class DataPlane:
    def __init__(
        self,
        settings: GatewaySettings,
        directory: RuntimeDirectory,
        bound: tuple[HostPort, ...],
        on_progress: Callable[[], None],
        *,
        sockets_each: int,
    ) -> None:
        """``bound`` is where it is to listen. ``sockets_each``: for how many workers the service manager gave sockets,
        0 for none. ``on_progress`` is called whenever a worker came, went, or applied a generation."""
        self.published = Published()
        self.access_log = AccessLogSink(settings.access_log)
        self.audit = AuditDesk(settings)
        count = settings.workers or sockets_each or usable_cores()
        self.workers = Workers(
            WorkerSettings(
                gateway=settings.id,
                addresses=bound,
                count=count,
                limits=settings.limits(count),
                access_log_fd=self.access_log.descriptor,
                audit_log_fd=self.audit.descriptor,
                audit_allowed=settings.audit_allowed,
                log_level=settings.log_level,
                log_format=settings.log_format,
                handover_timeout_s=settings.handover_timeout_s,
                retire_after_s=settings.drain_delay_s,
                command=worker_command(
                    privileges.worker_identity(settings.worker_user), debuggable=settings.allow_debugging
                ),
            ),
            directory,
            self.published,
            on_progress,
        )
        self.access_log.redirect = self.workers.redirect_access_log
        self.audit.redirect_workers = self.workers.redirect_audit_log

    def inherit(self, inherited: Inheritance) -> None:
        """Go on counting where the former control process was."""
        self.workers.inherit_counts(inherited.ended, inherited.counters, inherited.restarts)

    def reopen_logs(self) -> None:
        self.access_log.reopen()
        self.audit.reopen()

    async def reopen_moved_logs(self) -> None:
        """Begin a new file where the old one was deleted or moved; a file system that hangs holds up a thread alone."""
        for log in (self.access_log, self.audit):
            if await asyncio.to_thread(log.moved):
                log.reopen()
