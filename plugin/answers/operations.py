"""What operators ask beyond the state, answered from the parts of the control process."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from plugin.admin.operations_view import KillReport, KillRequest
from plugin.answers.certificates import CertificateList, certificates
from plugin.answers.killing import kill
from plugin.answers.traffic import Traffic, traffic
from plugin.effective import Effective, effective
from plugin.events.ring import EventPage, EventRing
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.settings import GatewaySettings
from plugin.workers.pool import Workers


@dataclass(slots=True, kw_only=True)
class Operations:
    settings: GatewaySettings
    store: FactStore
    observer: Observer
    workers: Workers
    ring: EventRing

    async def events(self, after: int, wait_s: float) -> EventPage:
        """What came after event ``after``; waited for up to ``wait_s`` while there is none."""
        return await self.ring.wait_after(after, wait_s)

    def stop_waiting(self) -> None:
        self.ring.stop_waiting()

    def traffic(self) -> Traffic:
        return traffic(self.workers.totals())

    def config(self) -> Effective:
        mesh = self.store.mesh_facts()
        shared = mesh.proxy_defaults.value
        return effective(
            self.settings,
            registered=mesh.proxy_config,
            shared=shared.config if shared is not None else None,
            access_logs=shared.access_logs if shared is not None else None,
        )

    async def certificates(self) -> CertificateList:
        """Facts are immutable: those of this moment can be read in a thread."""
        facts = [self.store.service_facts(name) for name in self.store.linked()]
        due_s = {one.name: self.observer.leaf_renewal_due_s(one.name) for one in facts}
        return await asyncio.to_thread(
            certificates, self.store.mesh_facts(), facts, lambda name: due_s[name], self.settings.consul
        )

    async def kill(self, wanted: KillRequest) -> KillReport:
        """:raises ConfigError: when it names nothing, or more than one connection by one ID."""
        return await kill(self.workers.all, wanted)
