"""One worker's data plane: takes connections in, keeps track of the live ones, applies updates to both.

A change of policy costs one decision for each distinct source of the services it touches, and ends only the
connections that are newly denied.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import socket
import time
from collections.abc import Collection

from proxy import logs
from proxy.access_log import AccessLog
from proxy.carrier import Carrier
from proxy.channel import Buffers
from proxy.connection import ConnectionLife
from proxy.errors import UpstreamError
from proxy.intentions import Refusal
from proxy.listener import printed
from proxy.live import LiveConnections
from proxy.model import (
    Applied,
    CloseReason,
    ConnectionPage,
    Counters,
    Limits,
    Query,
    ServiceName,
    Update,
)
from proxy.poller import Poller
from proxy.routes import RouteTable
from proxy.shortage import ShortageError, ShortageLog
from proxy.streams import Streams
from proxy.telemetry import Telemetry

logger = logging.getLogger(__name__)


class DataPlane:
    """Everything the connections of one worker share."""

    def __init__(self, poller: Poller, *, worker: int, limits: Limits, access_log: AccessLog) -> None:
        self.loop = poller.loop
        self.limits = limits
        self.buffers = Buffers()
        self.streams = Streams(self.loop)
        self.poller = poller
        self.routes = RouteTable()
        self.live = LiveConnections()
        self.telemetry = Telemetry()
        self._shortages = ShortageLog(self.loop.time)
        self.pending_handshakes = 0
        self.alone_since_s: float | None = None
        """Monotonic time since which no control process has said what is in force."""
        self._worker = worker
        self._access_log = access_log
        self._numbers = itertools.count(1)
        self._idle = asyncio.Event()
        self._idle.set()

    def admit(self, client: socket.socket, address: str) -> None:
        """Take over an accepted socket. ``address`` is ``ip:port``."""
        self.telemetry.accepted += 1
        life = ConnectionLife(next(self._numbers), address, wall_s=time.time(), monotonic_s=self.loop.time())
        if self._access_log.wants_local_address:
            life.local_address = _local_address(client)
        carrier = Carrier(self, client, life)
        if over := self._over_limit():
            carrier.refuse_at_once(over)
            return
        self.live.add(carrier)
        self._idle.clear()
        self.pending_handshakes += 1
        carrier.start()

    def _over_limit(self) -> str:
        limits = self.limits
        if limits.connections and len(self.live) >= limits.connections:
            return f"the worker has {limits.connections} connections, its limit"
        if limits.pending_handshakes and self.pending_handshakes >= limits.pending_handshakes:
            return f"{limits.pending_handshakes} handshakes are pending, the limit"
        return ""

    def too_old(self) -> str:
        """Why nobody new may be let in although the policy would; empty when the state is young enough."""
        mesh = self.routes.mesh
        if mesh is None or not mesh.max_state_age_s:
            return ""
        if mesh.stale:
            return f"Consul has confirmed nothing for {mesh.max_state_age_s:g} s, the maximum"
        if self.alone_since_s is not None and self.loop.time() - self.alone_since_s > mesh.max_state_age_s:
            return f"there is no control process for {mesh.max_state_age_s:g} s, the maximum"
        return ""

    def handshake_over(self) -> None:
        self.pending_handshakes -= 1

    def dials_failed(self, service: str, failures: Collection[UpstreamError], ejected: int) -> None:
        """Attempts of one connection of ``service`` have failed, and ``ejected`` endpoints are left out from now on."""
        shortages = [failure for failure in failures if isinstance(failure, ShortageError)]
        self.telemetry.dialled(service, len(failures) - len(shortages), ejected, len(shortages))
        for shortage in shortages:
            self._shortages.note(service, shortage)

    def ended(self, carrier: Carrier, received: int, sent: int) -> None:
        """A carrier has closed; count it, log it, forget it."""
        self.live.remove(carrier)
        if not self.live:
            self._idle.set()
        life = carrier.life
        assert life.reason is not None
        self.telemetry.closed(life.service, carrier.source_text, str(life.reason), received, sent)
        if self._access_log.wanted and life.reason is not CloseReason.NO_BYTES:
            self._access_log.write(carrier.record(self._worker, received, sent, self.loop.time()), life.opened_at_s)

    def apply(self, update: Update) -> Applied:
        """Put ``update`` in force for new and for live connections."""
        changed, removed, problems = self.routes.apply(update)
        if update.mesh is not None:
            self.alone_since_s = None
            self._access_log.layout = update.mesh.access_log
        revoked = sum(self._re_authorise(name) for name in changed)
        for name in removed:
            self._end_service(name)
        self.telemetry.policy_closed += revoked
        for problem in problems:
            logger.error("update %d: %s: %s", update.generation, problem.service or "mesh", problem.message)
        return Applied(update.generation, tuple(problems), revoked)

    def _re_authorise(self, name: ServiceName) -> int:
        state = self.routes.state(name)
        if state is None:
            return 0
        revoked = 0
        for source in self.live.sources(name):
            decision = state.policy.authorize(*source)
            if isinstance(decision, Refusal):
                for carrier in self.live.of(name, source):
                    carrier.close(CloseReason.REVOKED, decision.sentence)
                    revoked += 1
        return revoked

    def _end_service(self, name: ServiceName) -> None:
        for source in self.live.sources(name):
            for carrier in self.live.of(name, source):
                carrier.close(CloseReason.UNLINKED, f"{name} is no longer linked to this gateway")

    def counters(self) -> Counters:
        return self.telemetry.counters(
            ((carrier.life.service, carrier.source_text, *carrier.traffic) for carrier in self.live),
            self.pending_handshakes,
            access_log_lines_dropped=self._access_log.dropped,
            log_lines_dropped=logs.dropped(),
        )

    def page(self, query: Query) -> ConnectionPage:
        carriers, more = self.live.after(query.after, query.limit)
        return ConnectionPage(query.id, tuple(carrier.describe() for carrier in carriers), more)

    async def drained(self) -> None:
        """Return when no connection is left."""
        await self._idle.wait()

    def end_all(self, reason: CloseReason, detail: str) -> None:
        for carrier in self.live:
            carrier.close(reason, detail)

    def end_spread(self, window_s: float, reason: CloseReason, detail: str) -> None:
        """End what is live now one by one, evenly over ``window_s`` and in random order: clients that come back do
        not come back together."""
        carriers = list(self.live)
        random.shuffle(carriers)
        for number, carrier in enumerate(carriers, 1):
            self.loop.call_later(window_s * number / len(carriers), carrier.close, reason, detail)


def _local_address(client: socket.socket) -> str:
    try:
        return printed(client.getsockname())
    except OSError:
        return ""
