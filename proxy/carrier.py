"""Carrying one connection: handshake, identity, intention, dial, relay.

A carrier is a coroutine until both sides are connected, then only the relay's callbacks: an idle connection costs
no stack. However it ends, it ends in :meth:`Carrier._closed`, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from typing import TYPE_CHECKING

from proxy import handshake
from proxy.access_record import AccessRecord, timestamp
from proxy.channel import RESET_ON_CLOSE, TLSChannel
from proxy.connection import ConnectionLife
from proxy.dial import dial
from proxy.errors import PeerError, UpstreamError
from proxy.identity import IdentityError, cached_identity_of
from proxy.intentions import Permit, Refusal, describe
from proxy.live import Source, text_of
from proxy.messages import Connection
from proxy.model import CloseReason, ServiceName
from proxy.relay import Relay
from proxy.steps import Cancelled, Steps
from proxy.timers import Timer
from proxy.tls import ServerSession

if TYPE_CHECKING:
    from proxy.balance import EndpointSet
    from proxy.dataplane import DataPlane
    from proxy.routes import Route

logger = logging.getLogger(__name__)

_IDLE_CHECKS = 4
"""Idleness is looked at this often per idle timeout."""
_SHORTEST_LIFE = 0.9
"""Of the maximum lifetime: each connection is ended at a moment of its own between this part of it and all of it."""


class Carrier:
    """One accepted client connection."""

    __slots__ = (
        "_client",
        "_endpoints",
        "_idle_checks",
        "_lifetime",
        "_plane",
        "_reason",
        "_relay",
        "_route",
        "_session",
        "_steps",
        "_timer",
        "life",
        "service_name",
        "source",
    )

    def __init__(self, plane: DataPlane, client: socket.socket, life: ConnectionLife) -> None:
        self.life = life
        self.service_name: ServiceName | None = None
        self.source: Source | None = None
        self._plane = plane
        self._client = client
        self._session: ServerSession | None = None
        self._route: Route | None = None
        self._endpoints: EndpointSet | None = None
        self._relay: Relay | None = None
        self._reason: tuple[CloseReason, str] | None = None
        self._steps: Steps | None = None
        self._timer: Timer | asyncio.TimerHandle | None = None
        self._lifetime: Timer | asyncio.TimerHandle | None = None
        self._idle_checks = 0

    def start(self) -> None:
        self._steps = Steps(self._plane.poller, self._settled)
        self._steps.run(self._establish(self._steps))

    def refuse_at_once(self, detail: str) -> None:
        """There is no room for it: a reset, so that the client can go elsewhere at once."""
        self._reset_on_close()
        self._closed(CloseReason.OVER_LIMIT, detail)

    def give_way(self, detail: str) -> None:
        """End a handshake that somebody else needs the place of; a reset, which leaves nothing behind."""
        self._reset_on_close()
        self.close(CloseReason.OVER_LIMIT, detail)

    def _reset_on_close(self) -> None:
        with contextlib.suppress(OSError):
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)

    def close(self, reason: CloseReason, detail: str) -> None:
        """End it now, whatever it is doing. The first reason stands."""
        if self._relay is not None:
            self._relay.close(reason, detail)
        elif self._steps is not None and self._reason is None:
            self._reason = (reason, detail)
            self._steps.cancel()

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes from and to the client so far."""
        return (self._relay.bytes_received, self._relay.bytes_sent) if self._relay else (0, 0)

    @property
    def source_text(self) -> str:
        """``peer:name`` of the caller; empty while it is not authenticated."""
        return "" if self.source is None else text_of(self.source)

    def describe(self) -> Connection:
        received, sent = self.traffic
        life = self.life
        return Connection(
            number=life.number,
            client=life.client,
            source=life.spiffe_id,
            service=life.service,
            sni=life.server_name,
            endpoint=str(life.endpoint) if life.endpoint else "",
            opened_at_s=life.opened_at_s,
            bytes_received=received,
            bytes_sent=sent,
            intention=describe(life.permit) if life.permit else "",
        )

    async def _establish(self, steps: Steps) -> None:
        try:
            permit = await self._authenticate(steps)
            await self._connect(steps, permit)
        except Cancelled:
            reason, detail = self._reason or (CloseReason.DRAIN, "the worker stopped")
            self._closed(reason, detail)
        except (PeerError, UpstreamError) as error:
            self._refuse(error.reason, str(error))
        except OSError as error:
            self._closed(CloseReason.CLIENT_RESET, error.strerror or str(error))

    def _settled(self, error: BaseException | None) -> None:
        """The supervisor of one connection: a bug in its handling ends that connection and is reported."""
        self._steps = None
        if error is not None:
            detail = f"{type(error).__name__}: {error}"
            if self._relay is not None:
                self._relay.close(CloseReason.INTERNAL, detail)
            else:
                self._report(error)
            self._closed(CloseReason.INTERNAL, detail)

    def _report(self, error: BaseException | bool) -> None:
        logger.error("connection %d failed inside the gateway", self.life.number, exc_info=error)

    async def _authenticate(self, steps: Steps) -> Permit:
        plane, number = self._plane, self.life.number
        session = plane.routes.accept()
        if session is None:
            plane.pending.over(number)
            raise PeerError(CloseReason.POLICY_UNKNOWN, "the mesh's roots are not known yet")
        self._session = session
        try:
            await handshake.accept(steps, self._client, session, plane.buffers, plane.pending.heard, number)
        finally:
            plane.pending.over(number)
            self.life.server_name = session.server_name
            if (route := plane.routes.lookup(session.server_name)) is not None:
                self.life.service = str(route.state.service.name)
        self.life.tls_version = session.version()
        return self._authorise(session)

    def _authorise(self, session: ServerSession) -> Permit:
        route = self._plane.routes.lookup(session.server_name)
        if route is None:
            raise PeerError(CloseReason.UNLINKED, "the service was unlinked during the handshake")
        uris = session.peer_uris()
        self.life.spiffe_id = " ".join(uris)
        try:
            identity = cached_identity_of(uris)
        except IdentityError as error:
            raise PeerError(CloseReason.BAD_IDENTITY, str(error)) from error
        peer = route.server_name.peer
        decision = route.state.policy.authorize(identity, peer)
        if isinstance(decision, Refusal):
            if decision.reason is not CloseReason.BAD_IDENTITY:
                self.source = (identity, peer)
                self.life.refusal = decision
            raise PeerError(decision.reason, decision.sentence)
        if too_old := self._plane.too_old():
            self.source = (identity, peer)
            raise PeerError(CloseReason.STALE_STATE, too_old)
        if over := self._plane.over_limit_of(route.state.service):
            self.source = (identity, peer)
            raise PeerError(CloseReason.OVER_LIMIT, over)
        self._route = route
        self.source = (identity, peer)
        self.service_name = route.state.service.name
        self.life.permitted(decision)
        self._plane.live.permitted(self.service_name, self.source, self)
        return decision

    async def _connect(self, steps: Steps, permit: Permit) -> None:
        assert self._route is not None
        assert self._session is not None
        plane = self._plane
        target = self._route.target
        service = self.life.service
        upstream, endpoint = await dial(
            permit,
            target,
            self.life.client_ip,
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
        self.life.connected(endpoint)
        # Kept: an update may take the server name away, while the connection goes on.
        self._endpoints = target.endpoints
        self._endpoints.opened(endpoint)
        self._watch_idleness(self._route.state.service.idle_timeout_s)
        self._limit_life(self._route.state.service.max_lifetime_s)
        self._relay.start()

    def _limit_life(self, limit_s: float) -> None:
        if limit_s > 0:
            life_s = limit_s * random.uniform(_SHORTEST_LIFE, 1.0)
            self._lifetime = self._plane.poller.timers.call_later(life_s, self._outlived, limit_s)

    def _outlived(self, limit_s: float) -> None:
        self.close(CloseReason.LIFETIME, f"its lifetime, at most {limit_s:g} s, is over")

    def _watch_idleness(self, timeout_s: float) -> None:
        if timeout_s > 0:
            timers = self._plane.poller.timers
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
        if self._route is None:
            return
        service = self._route.state.service
        limits = [limit_s for limit_s in (service.idle_timeout_s, service.half_closed_timeout_s) if limit_s > 0]
        if self._timer is not None:
            self._timer.cancel()
        self._idle_checks = 0
        self._watch_idleness(min(limits, default=0.0))

    def _relayed(self, reason: CloseReason, detail: str) -> None:
        if self._endpoints is not None and self.life.endpoint is not None:
            self._endpoints.closed(self.life.endpoint)
        if reason is CloseReason.INTERNAL:
            self._report(True)  # the supervisor is handling it
        self._closed(reason, detail)

    def _refuse(self, reason: CloseReason, detail: str) -> None:
        """End a connection that never opened, so that the client can still read why (an alert, or an end)."""
        session, client = self._session, self._client
        if self.life.tls_version and session is not None:
            session.close_notify()
        if session is not None and (waiting := session.outgoing()) is not None:
            with contextlib.suppress(OSError):
                client.send(waiting)
        self._closed(reason, detail, close_socket=False)
        self._plane.lingering.add(client)

    def _closed(self, reason: CloseReason, detail: str, *, close_socket: bool = True) -> None:
        if not self.life.close(reason, detail):
            return
        self._stop_timers()
        received, sent = self.traffic
        if close_socket and self._relay is None:
            self._plane.poller.close_socket(self._client)
        self._plane.ended(self, received, sent)
        self._relay = self._session = self._route = self._endpoints = None

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._lifetime):
            if timer is not None:
                timer.cancel()
        self._timer = self._lifetime = None

    def record(self, worker: int, received: int, sent: int, now_s: float) -> AccessRecord:
        """The access log's line. ``now_s`` is of the monotonic clock."""
        life = self.life
        reason = life.reason or CloseReason.INTERNAL
        decision = life.permit or life.refusal
        return AccessRecord(
            time=timestamp(life.opened_at_s),
            worker=worker,
            number=life.number,
            client=life.client,
            local_address=life.local_address,
            verdict="allowed" if life.permit else "denied" if life.refusal else "refused",
            reason=str(reason),
            service=life.service,
            server_name=life.server_name,
            source=life.spiffe_id,
            intention=describe(decision) if decision else "",
            precedence=decision.intention.precedence if decision and decision.intention else 0,
            endpoint=str(life.endpoint) if life.endpoint else "",
            tls=life.tls_version,
            bytes_received=received,
            bytes_sent=sent,
            duration_ms=round((now_s - life.started_s) * 1_000, 3),
            detail=life.detail,
        )
