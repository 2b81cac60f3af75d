"""What operators ask beyond the state, answered from the parts of the control process."""

from __future__ import annotations

from dataclasses import dataclass

from plugin.admin.operations_view import KillReport, KillRequest
from plugin.killing import kill
from plugin.workers.pool import Workers


@dataclass(slots=True, kw_only=True)
class Operations:
    workers: Workers

    async def kill(self, wanted: KillRequest) -> KillReport:
        """:raises ConfigError: when it names nothing, or more than one connection by one ID."""
        return await kill(self.workers.all, wanted)
