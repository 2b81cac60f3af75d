"""A request as a line of the access log, and as operators see it while it is under way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.messages import LiveRequest
from proxy.model import CloseReason
from proxy.policy.intentions import Permit
from proxy.records.access_record import AccessRecord, timestamp

if TYPE_CHECKING:
    from proxy.http.exchange import Exchange
    from proxy.http.session import HTTPSession


_LONGEST_PATH = 4_096
_LONGEST = 1_024
"""Bytes of what a client sends that a line shows: a head may have 60 KiB and more, and lines are kept."""


def recorded(worker: int, session: HTTPSession, exchange: Exchange, now_s: float) -> AccessRecord:
    """``now_s`` is of the monotonic clock."""
    life, head, decision = session.life, exchange.head, exchange.decision
    agent = b""
    for name, value in head.headers:
        if name == b"user-agent":
            agent = value
    intention = decision.intention if decision is not None else None
    return AccessRecord(
        time=timestamp(exchange.opened_at_s),
        event="request",
        worker=worker,
        number=life.number,
        client=life.client,
        local_address=life.local_address,
        verdict="refused" if decision is None else "allowed" if isinstance(decision, Permit) else "denied",
        reason=str(exchange.reason),
        service=life.service,
        server_name=life.server_name,
        source=exchange.source,
        peer=exchange.peer,
        via=life.spiffe_id if exchange.source != life.spiffe_id else "",
        intention=session.describe(decision) if decision is not None else "",
        precedence=intention.precedence if intention is not None else 0,
        permission=decision.permission if decision is not None else 0,
        endpoint=str(exchange.endpoint) if exchange.endpoint is not None else "",
        tls=life.tls_version,
        bytes_received=exchange.bytes_received,
        bytes_sent=exchange.bytes_sent,
        duration_ms=round((now_s - exchange.started_s) * 1_000, 3),
        detail=exchange.detail,
        method=head.method[:_LONGEST].decode("latin-1"),
        path=(exchange.forwarded or head).target.partition(b"?")[0][:_LONGEST_PATH].decode("latin-1"),
        authority=head.authority[:_LONGEST].decode("latin-1"),
        protocol=head.version.value,
        status=exchange.status,
        flags=exchange.flags,
        upstream_ms=round(max(exchange.upstream_ms, 0.0), 3),
        request_id=exchange.request_id[:_LONGEST].decode("latin-1"),
        user_agent=agent[:_LONGEST].decode("latin-1"),
    )


def described(session: HTTPSession, exchange: Exchange) -> LiveRequest:
    head, decision = exchange.head, exchange.decision
    return LiveRequest(
        method=head.method[:_LONGEST].decode("latin-1"),
        path=(exchange.forwarded or head).target.partition(b"?")[0][:_LONGEST_PATH].decode("latin-1"),
        authority=head.authority[:_LONGEST].decode("latin-1"),
        protocol=head.version.value,
        opened_at_s=exchange.opened_at_s,
        phase=exchange.phase.name.lower(),
        endpoint=str(exchange.endpoint) if exchange.endpoint is not None else "",
        status=exchange.status,
        bytes_received=exchange.bytes_received,
        bytes_sent=exchange.bytes_sent,
        intention=session.describe(decision) if decision is not None else "",
        request_id=exchange.request_id[:_LONGEST].decode("latin-1"),
        caller=exchange.source_text if session.caller.gateway is not None else "",
    )


def refused(worker: int, session: HTTPSession, status: int, what: str, wall_s: float) -> AccessRecord:
    """One that was never understood. ``wall_s`` is Unix time."""
    life = session.life
    return AccessRecord(
        time=timestamp(wall_s),
        event="request",
        worker=worker,
        number=life.number,
        client=life.client,
        local_address=life.local_address,
        verdict="refused",
        reason=CloseReason.BAD_REQUEST.value,
        service=life.service,
        server_name=life.server_name,
        source=life.spiffe_id,
        tls=life.tls_version,
        # Of its body: none is read.
        bytes_received=0,
        bytes_sent=0,
        duration_ms=0.0,
        detail=what,
        status=status,
        flags="DPE",
    )
