"""Carrying one connection: handshake, identity, and then what its service wants.

A carrier is a coroutine until the caller is known (and, of a service of layer 4, until the external service is
connected), then only callbacks: an idle connection costs no stack. What carries the bytes is a
:class:`proxy.tcp_carriage.TCPCarriage` or a :class:`proxy.http.session.HTTPSession`; how a connection is counted,
logged and ended is the same for both. However it ends, it ends in :meth:`Carrier._closed`, once.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Protocol

from proxy.connection import ConnectionLife
from proxy.errors import PeerError, UpstreamError
from proxy.http.caller import Caller
from proxy.http.session import HTTPSession
from proxy.live import Source, text_of
from proxy.messages import Connection
from proxy.model import CloseReason, ServiceName
from proxy.policy.identity import IdentityError, MeshGateway, cached_caller_of
from proxy.policy.intentions import Permit, Refusal, describe
from proxy.records.access_record import AccessRecord, timestamp
from proxy.sockets.channel import RESET_ON_CLOSE, TLSChannel
from proxy.sockets.steps import Cancelled, Steps
from proxy.tcp_carriage import TCPCarriage
from proxy.tls import handshake
from proxy.tls.session import ServerSession

if TYPE_CHECKING:
    from proxy.dataplane import DataPlane
    from proxy.routes import Route

logger = logging.getLogger(__name__)


_LOOK_EACH_S = 0.5
"""Or less often: see :meth:`Carrier.look`."""


class Carriage(Protocol):
    """What carries the bytes once the caller is known. It reports its end by :meth:`Carrier.carried`, once."""

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes from and to the client so far."""

    def close(self, reason: CloseReason, detail: str) -> None:
        """End it now."""


class Carrier:
    """One accepted client connection."""

    __slots__ = (
        "_carriage",
        "_client",
        "_looked_at_s",
        "_moved_at_s",
        "_rate",
        "_reason",
        "_seen",
        "_session",
        "_steps",
        "_traffic",
        "asked",
        "life",
        "plane",
        "service_name",
        "source",
    )

    def __init__(self, plane: DataPlane, client: socket.socket, life: ConnectionLife) -> None:
        self.life = life
        self.plane = plane
        self.asked = False
        """It carried requests, each with a line of its own in the access log."""
        self.service_name: ServiceName | None = None
        self.source: Source | None = None
        self._client = client
        self._session: ServerSession | None = None
        self._carriage: Carriage | None = None
        self._traffic = (0, 0)
        """Of the carriage, when it has ended."""
        self._seen = (0, 0)
        """The traffic at ``_looked_at_s``, with the bytes a second until then in ``_rate``."""
        self._looked_at_s = self._moved_at_s = life.started_s
        self._rate = 0.0
        self._reason: tuple[CloseReason, str] | None = None
        self._steps: Steps | None = None

    def start(self) -> None:
        self._steps = Steps(self.plane.poller, self._settled)
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
        if self._carriage is not None:
            self._carriage.close(reason, detail)
        elif self._steps is not None and self._reason is None:
            self._reason = (reason, detail)
            self._steps.cancel()

    @property
    def http(self) -> HTTPSession | None:
        """What carries its requests, if its service is of layer 7."""
        return self._carriage if isinstance(self._carriage, HTTPSession) else None

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes from and to the client so far."""
        return self._carriage.traffic if self._carriage is not None else self._traffic

    @property
    def source_text(self) -> str:
        """``peer:name`` of the caller; empty while it is not authenticated."""
        return "" if self.source is None else text_of(self.source)

    def look(self, now_s: float) -> tuple[int, int]:
        """The traffic, noted about once a second: whether something moves, and how fast."""
        traffic, seen = self.traffic, self._seen
        if traffic != seen:
            self._moved_at_s = now_s
        elif now_s - self._moved_at_s > _LOOK_EACH_S and not self._rate:
            return traffic
        if (passed_s := now_s - self._looked_at_s) >= _LOOK_EACH_S:
            self._rate = (sum(traffic) - sum(seen)) / passed_s
            self._seen, self._looked_at_s = traffic, now_s
        return traffic

    def describe(self, now_s: float) -> Connection:
        received, sent = self.look(now_s)
        life, session = self.life, self.http
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
            caller=self.source_text,
            state=life.state.value,
            quiet_s=round(max(0.0, now_s - self._moved_at_s), 3),
            bytes_per_s=round(self._rate, 1),
            requests=session.requests if session is not None else None,
            live_requests=session.live_requests() if session is not None else (),
        )

    async def _establish(self, steps: Steps) -> None:
        try:
            session = await self._authenticate(steps)
            route, permit = self._let_in(session)
            if permit is None:
                self._serve(session, route)
            else:
                carriage = TCPCarriage(self, route, session, self._client)
                await carriage.connect(steps, permit)
        except Cancelled:
            reason, detail = self._reason or (CloseReason.DRAIN, "the worker stopped")
            self._closed(reason, detail)
        except (PeerError, UpstreamError) as error:
            self._refuse(error.reason, str(error))
        except OSError as broken:
            self._closed(CloseReason.CLIENT_RESET, broken.strerror or str(broken))

    def _settled(self, error: BaseException | None) -> None:
        """The supervisor of one connection: a bug in its handling ends that connection and is reported."""
        self._steps = None
        if error is not None:
            detail = f"{type(error).__name__}: {error}"
            if self._carriage is not None:
                self._carriage.close(CloseReason.INTERNAL, detail)
            else:
                self.report(error)
            self._closed(CloseReason.INTERNAL, detail)

    def report(self, error: BaseException | bool) -> None:
        """A bug. ``True``: the one that is being handled."""
        logger.error("connection %d failed inside the gateway", self.life.number, exc_info=error)

    async def _authenticate(self, steps: Steps) -> ServerSession:
        plane, number = self.plane, self.life.number
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
        return session

    def _let_in(self, session: ServerSession) -> tuple[Route, Permit | None]:
        """Check who it is, and at layer 4 decide about it: without a permit each request is to be decided.

        :raises PeerError: when it is refused.
        """
        route = self.plane.routes.lookup(session.server_name)
        if route is None:
            raise PeerError(CloseReason.UNLINKED, "the service was unlinked during the handshake")
        uris = session.peer_uris()
        if not self.plane.routes.vouches(session, route):
            raise PeerError(CloseReason.UNTRUSTED_CERTIFICATE, "the roots changed during the handshake")
        self.life.spiffe_id = " ".join(uris)
        try:
            source = (cached_caller_of(uris), route.server_name.peer)
        except IdentityError as error:
            raise PeerError(CloseReason.BAD_IDENTITY, str(error)) from error
        permit = self._permit_for(route, source)
        if too_old := self.plane.too_old():
            self.source = source
            raise PeerError(CloseReason.STALE_STATE, too_old)
        if over := self.plane.over_limit_of(route.state.service):
            self.source = source
            raise PeerError(CloseReason.OVER_LIMIT, over)
        self.source = source
        self.service_name = route.state.service.name
        if permit is not None:
            self.life.permitted(permit)
            self.plane.audit.connection_allowed(self.life, permit)
        else:
            self.life.identified()
        self.plane.live.let_in(self.service_name, source, self)
        return route, permit

    def _permit_for(self, route: Route, source: Source) -> Permit | None:
        policy = route.state.policy
        identity, peer = source
        if isinstance(identity, MeshGateway):
            if objection := policy.objection_to(identity, peer):
                raise PeerError(CloseReason.BAD_IDENTITY, objection)
            return None
        if route.state.service.http is not None:
            if stranger := policy.stranger(identity, peer):
                raise PeerError(CloseReason.BAD_IDENTITY, stranger)
            return None
        decision = policy.authorize(identity, peer)
        if isinstance(decision, Refusal):
            if decision.reason is not CloseReason.BAD_IDENTITY:
                self.source = source
                self.life.refusal = decision
            raise PeerError(decision.reason, decision.sentence)
        return decision

    def _serve(self, session: ServerSession, route: Route) -> None:
        assert self.source is not None
        leaf = route.state.service.leaf
        caller = Caller(self.source, self.life.spiffe_id, leaf.spiffe_id, session.peer_certificates())
        serving = HTTPSession(self, caller, route, TLSChannel(self._client, session, self.plane.buffers))
        self._carriage = serving
        self.plane.serving(serving)
        serving.start()

    def relaying(self, carriage: TCPCarriage) -> None:
        """Both sides are connected, and their sockets are the carriage's now."""
        self._carriage = carriage

    def carried(self, reason: CloseReason, detail: str) -> None:
        """The carriage has ended, and closed the socket."""
        if reason is CloseReason.INTERNAL:
            self.report(True)  # the supervisor is handling it
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
        self.plane.lingering.add(client)

    def _closed(self, reason: CloseReason, detail: str, *, close_socket: bool = True) -> None:
        if not self.life.close(reason, detail):
            return
        received, sent = self._traffic = self.traffic
        if close_socket and self._carriage is None:
            self.plane.poller.close_socket(self._client)
        self.plane.ended(self, received, sent)
        self._carriage = self._session = None

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
            peer=self.source[1] if self.source is not None else "",
            intention=describe(decision) if decision else "",
            precedence=decision.intention.precedence if decision and decision.intention else 0,
            endpoint=str(life.endpoint) if life.endpoint else "",
            tls=life.tls_version,
            bytes_received=received,
            bytes_sent=sent,
            duration_ms=round((now_s - life.started_s) * 1_000, 3),
            detail=life.detail,
        )
