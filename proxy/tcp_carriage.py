"""A connection that is carried whole: dialled once, with a permit, and relayed until both sides have ended."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import TYPE_CHECKING

from proxy.model import CloseReason
from proxy.policy.intentions import Permit
from proxy.sockets.channel import TLSChannel
from proxy.sockets.relay import Relay
from proxy.sockets.steps import Steps
from proxy.sockets.timers import Timer
from proxy.tls.session import ServerSession
from proxy.upstream.dial import dial

if TYPE_CHECKING:
    from proxy.carrier import Carrier
    from proxy.routes import Route
    from proxy.upstream.balance import EndpointSet

_IDLE_CHECKS = 4
"""Idleness is looked at this often per idle timeout."""
_SHORTEST_LIFE = 0.9
"""Of the maximum lifetime: each connection is ended at a moment of its own between this part of it and all of it."""


class TCPCarriage:
    """Between a carrier and its relay."""

    __slots__ = (
        "_carrier",
        "_client",
        "_endpoints",
        "_idle_checks",
        "_lifetime",
        "_relay",
        "_route",
        "_session",
        "_timer",
    )

    def __init__(self, carrier: Carrier, route: Route, session: ServerSession, client: socket.socket) -> None:
        self._carrier = carrier
        self._route = route
        self._session = session
        self._client = client
        self._endpoints: EndpointSet | None = None
        self._relay: Relay | None = None
        self._timer: Timer | asyncio.TimerHandle | None = None
        self._lifetime: Timer | asyncio.TimerHandle | None = None
        self._idle_checks = 0

    async def connect(self, steps: Steps, permit: Permit) -> None:
        """Reach the external service, then relay.

        :raises UpstreamError: when it cannot be reached.
        """
        carrier, plane, target = self._carrier, self._carrier.plane, self._route.target
        service = carrier.life.service
        upstream, endpoint = await dial(
            permit,
            target,
            carrier.life.client_ip,
            steps,
            plane.buffers,
            lambda failures, ejected: plane.dials_failed(service, failures.values(), ejected),
        )
        try:
            client = TLSChannel(self._client, self._session, plane.buffers)
            relay = Relay(plane.loop, plane.poller, client, upstream, self._relayed, plane.streams, self._half_closed)
        except BaseException:
            # Nobody else knows of this socket yet.
            plane.poller.forget(upstream.fd)
            upstream.close(reset=True)
            raise
        self._relay = relay
        carrier.relaying(self)
        carrier.life.connected(endpoint)
        # Kept: an update may take the server name away, while the connection goes on.
        self._endpoints = target.endpoints
        self._endpoints.opened(endpoint)
        self._watch_idleness(self._route.state.service.idle_timeout_s)
        self._limit_life(self._route.state.service.max_lifetime_s)
        relay.start()

    @property
    def traffic(self) -> tuple[int, int]:
        return (self._relay.bytes_received, self._relay.bytes_sent) if self._relay else (0, 0)

    def close(self, reason: CloseReason, detail: str) -> None:
        if self._relay is not None:
            self._relay.close(reason, detail)

    def _limit_life(self, limit_s: float) -> None:
        if limit_s > 0:
            life_s = limit_s * random.uniform(_SHORTEST_LIFE, 1.0)
            self._lifetime = self._carrier.plane.poller.timers.call_later(life_s, self._outlived, limit_s)

    def _outlived(self, limit_s: float) -> None:
        self.close(CloseReason.LIFETIME, f"its lifetime, at most {limit_s:g} s, is over")

    def _watch_idleness(self, timeout_s: float) -> None:
        if timeout_s > 0:
            timers = self._carrier.plane.poller.timers
            self._timer = timers.call_later(timeout_s / _IDLE_CHECKS, self._check_idleness, timeout_s)

    def _check_idleness(self, timeout_s: float) -> None:
        if self._relay is None:
            return
        self._idle_checks = 0 if self._relay.moved else self._idle_checks + 1
        self._relay.moved = False
        if self._idle_checks >= _IDLE_CHECKS:
            told = "one side has ended, and no byte moved" if self._relay.half_closed else "no byte in either direction"
            self.close(CloseReason.IDLE, f"{told} for {timeout_s:g} s")
        else:
            self._watch_idleness(timeout_s)

    def _half_closed(self) -> None:
        """One side has said its last word; the other one may never do so."""
        service = self._route.state.service
        limits = [limit_s for limit_s in (service.idle_timeout_s, service.half_closed_timeout_s) if limit_s > 0]
        if self._timer is not None:
            self._timer.cancel()
        self._idle_checks = 0
        self._watch_idleness(min(limits, default=0.0))

    def _relayed(self, reason: CloseReason, detail: str) -> None:
        endpoint = self._carrier.life.endpoint
        if self._endpoints is not None and endpoint is not None:
            self._endpoints.closed(endpoint)
        for timer in (self._timer, self._lifetime):
            if timer is not None:
                timer.cancel()
        self._timer = self._lifetime = None
        self._carrier.carried(reason, detail)
        # They point at each other: without this the cycle collector would have to find every connection.
        self._relay = None
