"""The audit log of one worker: who was denied, who was let in for the first time, and whose connection policy ended.

A line is made when the decision is made (or the connection ended), and leaves through an
:class:`proxy.records.outlet.Outlet`: nobody waits for it. Lines of the control process (policy, reloads, admin calls)
go to the same file, see
:mod:`plugin.audit`; docs/audit-log.md has the fields.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from proxy.model import CloseReason
from proxy.overload import LineBudget
from proxy.policy.intentions import Decision, Permit, describe
from proxy.records.access_record import timestamp
from proxy.records.outlet import AUDIT, Outlet

if TYPE_CHECKING:
    from proxy.carrier import Carrier
    from proxy.connection import ConnectionLife
    from proxy.http.exchange import Exchange
    from proxy.http.session import HTTPSession

MOST_REMEMBERED = 10_000
"""Callers that were let in. Beyond it the one remembered longest is forgotten, and told again when it comes back."""

DENIED = frozenset(
    {
        CloseReason.DENIED,
        CloseReason.POLICY_UNKNOWN,
        CloseReason.STALE_STATE,
        CloseReason.BAD_IDENTITY,
        CloseReason.NO_CERTIFICATE,
        CloseReason.UNTRUSTED_CERTIFICATE,
        CloseReason.UNKNOWN_SERVER_NAME,
        CloseReason.UNLINKED,
    }
)
"""Reasons that are decisions about a caller. Limits, timeouts and broken TLS are none: metrics count them."""
REVOKED = frozenset({CloseReason.REVOKED, CloseReason.UNLINKED, CloseReason.KILLED})
"""Reasons for which what was let in is ended."""
_ENDED = (CloseReason.REVOKED, CloseReason.TOKEN_EXPIRED)
"""Of a request whose connection stays."""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line."""

    time: str
    """Of the decision; RFC 3339, UTC, microseconds."""
    event: str
    """``connection.denied``, ``connection.allowed``, ``connection.revoked``, and the same of ``request``."""
    gateway: str
    """The gateway's service ID."""
    worker: int
    generation: int
    """Of the state that was in force."""
    number: int
    """Of the connection, within its worker: as in the access log."""
    client: str
    service: str = ""
    server_name: str = ""
    source: str = ""
    """The caller's SPIFFE ID."""
    peer: str = ""
    """The peer that it lives in, by the name that this cluster gave it."""
    via: str = ""
    """The SPIFFE ID of the mesh gateway that asks for it."""
    reason: str = ""
    """A :class:`proxy.model.CloseReason`; empty for who was let in."""
    intention: str = ""
    precedence: int = 0
    permission: int = 0
    detail: str = ""
    method: str = ""
    path: str = ""
    """Without the query."""
    authority: str = ""


class AuditLog:
    """Writes to a file descriptor; -1 writes nowhere."""

    def __init__(self, descriptor: int, *, gateway: str = "", worker: int = 0, every_allowed: bool = False) -> None:
        """``every_allowed``: tell everybody who is let in, not only the first of each caller."""
        self._outlet = None if descriptor < 0 else Outlet(descriptor, AUDIT)
        self._former: list[Outlet] = []
        self._lost_before = 0
        self._gateway = gateway
        self._worker = worker
        self._every_allowed = every_allowed
        self._known: dict[tuple[str, str, str], None] = {}
        self._encoder = msgspec.json.Encoder()
        self._strangers = LineBudget("audit_log.left_out", "audit log")
        self.generation = 0
        """Of the state in force."""

    @property
    def wanted(self) -> bool:
        return self._outlet is not None

    @property
    def dropped(self) -> int:
        """Lines that were lost because the file did not take them."""
        outlets = [*self._former, self._outlet] if self._outlet is not None else self._former
        return self._lost_before + sum(outlet.dropped for outlet in outlets)

    def redirect(self, descriptor: int) -> None:
        """Lines go to ``descriptor`` from now on, which is ours then, or nowhere (-1)."""
        if self._outlet is not None:
            self._outlet.retire()
            self._former.append(self._outlet)
        self._lost_before += sum(outlet.dropped for outlet in self._former if outlet.ended)
        self._former = [outlet for outlet in self._former if not outlet.ended]
        self._outlet = None if descriptor < 0 else Outlet(descriptor, AUDIT)

    def close(self, timeout_s: float) -> None:
        """Write what waits, but no longer than this."""
        if self._outlet is not None:
            self._outlet.stop()
            self._outlet.join(timeout_s)

    def connection_allowed(self, life: ConnectionLife, decision: Decision) -> None:
        if self._outlet is not None and self._tells_allowed(life, life.spiffe_id, decision):
            peer = decision.peer if isinstance(decision, Permit) else ""
            self._write("connection.allowed", life, decision, peer=peer)

    def connection_ended(self, carrier: Carrier, now_s: float) -> None:
        """``now_s`` is of the monotonic clock."""
        life = carrier.life
        reason = life.reason
        if self._outlet is None or reason is None:
            return
        let_in = carrier.service_name is not None
        peer = carrier.source[1] if carrier.source is not None else ""
        if let_in and reason in REVOKED:
            self._write("connection.revoked", life, life.permit, peer=peer, reason=reason)
        elif not let_in and reason in DENIED and (life.spiffe_id or self._strangers.spend(now_s)):
            self._write("connection.denied", life, life.refusal, peer=peer, reason=reason)

    def request_allowed(self, session: HTTPSession, exchange: Exchange, decision: Decision) -> None:
        if self._outlet is not None and self._tells_allowed(session.life, exchange.source, decision):
            self._write("request.allowed", session.life, decision, exchange=exchange)

    def request_ended(self, session: HTTPSession, exchange: Exchange) -> None:
        reason = exchange.reason
        if self._outlet is None or reason is None:
            return
        if reason in _ENDED or (reason is CloseReason.KILLED and exchange.decision is not None):
            self._write("request.revoked", session.life, exchange.decision, exchange=exchange, reason=reason)
        elif reason in DENIED:
            self._write("request.denied", session.life, exchange.decision, exchange=exchange, reason=reason)

    def _tells_allowed(self, life: ConnectionLife, source: str, decision: Decision) -> bool:
        if self._every_allowed:
            return True
        key = (life.service, source, describe(decision))
        if key in self._known:
            return False
        if len(self._known) >= MOST_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[key] = None
        return True

    def _write(
        self,
        event: str,
        life: ConnectionLife,
        decision: Decision | None,
        *,
        peer: str = "",
        exchange: Exchange | None = None,
        reason: CloseReason | None = None,
    ) -> None:
        outlet = self._outlet
        if outlet is None or not outlet.has_room():
            return
        intention = decision.intention if decision is not None else None
        head = exchange.head if exchange is not None else None
        source = exchange.source if exchange is not None else life.spiffe_id
        target = (exchange.forwarded or exchange.head).target if exchange is not None else b""
        record = AuditRecord(
            time=timestamp(time.time()),
            event=event,
            gateway=self._gateway,
            worker=self._worker,
            generation=self.generation,
            number=life.number,
            client=life.client,
            service=life.service,
            server_name=life.server_name,
            source=source,
            peer=exchange.peer if exchange is not None else peer,
            via=life.spiffe_id if source != life.spiffe_id else "",
            reason=str(reason) if reason is not None else "",
            intention=describe(decision) if decision is not None else "",
            precedence=intention.precedence if intention is not None else 0,
            permission=decision.permission if decision is not None else 0,
            detail=(exchange.detail if exchange is not None else life.detail) if reason is not None else "",
            method=head.method.decode("latin-1") if head is not None else "",
            path=target.partition(b"?")[0].decode("latin-1"),
            authority=head.authority.decode("latin-1") if head is not None else "",
        )
        outlet.put(self._encoder.encode(record) + b"\n")
