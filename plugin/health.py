"""Whether the gateway should get connections, and if not, why.

Gathers from workers, facts and its own listening sockets; whoever reports it (the registration, ``/ready``) asks here.
"""

from __future__ import annotations

import time

from plugin.gateway import Gateway
from plugin.process.life import Life
from plugin.workers.pool import Workers
from plugin.workers.probe import silence
from plugin.workers.published import Published

GRACE_S = 5.0
"""A worker that is being replaced, or an update on its way, is no reason to turn sidecars away."""
PROBE_TIMEOUT_S = 2.0


class Health:
    def __init__(self, workers: Workers, published: Published, gateway: Gateway, life: Life) -> None:
        self._workers = workers
        self._published = published
        self._gateway = gateway
        self._life = life
        self._well_at_s = 0.0
        """Monotonic time at which everything was up to date last."""

    def shortcomings(self) -> tuple[str, ...]:
        """At this very moment, without asking anybody."""
        if self._life.stopping:
            return ("the gateway is stopping",)
        found: list[str] = []
        if self._published.mesh is None:
            found += self._gateway.mesh_problems or ("the mesh is not known yet",)
        elif not self._published.complete:
            found.append("the first answers about linked services are still awaited")
        elif not self._workers.ready:
            late = f"not every worker has state {self._published.generation} in force"
            found.append(self._workers.complaint or late)
        return tuple(found)

    def lasting(self) -> tuple[str, ...]:
        """Shortcomings that have lasted for longer than the grace, or since the start; asked about once a second."""
        found = self.shortcomings()
        if not found:
            self._well_at_s = time.monotonic()
        elif self._well_at_s and time.monotonic() - self._well_at_s <= GRACE_S:
            return ()
        return found

    async def unwell(self) -> str:
        """For the agent's check: lasting shortcomings, or silent listening sockets; empty when all is well."""
        if found := self.lasting():
            return "; ".join(found)
        for address in self._workers.addresses():
            if problem := await silence(address, PROBE_TIMEOUT_S):
                return problem
        return ""
