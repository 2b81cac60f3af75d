"""What an explanation is: the answers of ``/api/explain`` and ``/api/recent``, typed."""

from __future__ import annotations

import enum

import msgspec


class Verdict(enum.StrEnum):
    ALLOWED = "allowed"
    DENIED = "denied"
    """By policy."""
    NOT_SERVED = "not_served"
    """Whoever asks: there is no link, no certificate, no endpoint, or no newer state than is allowed."""


class State(enum.StrEnum):
    GOOD = "good"
    NOTE = "note"
    """Nothing that keeps the caller out, but worth reading."""
    BAD = "bad"


class Step(msgspec.Struct, frozen=True):
    """One thing that was looked at, in the order in which the gateway looks."""

    about: str
    state: State
    lines: tuple[str, ...]
    """Sentences."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    """The caller's SPIFFE ID; as it was asked for while that cannot be told."""
    destination: str
    request: str = ""
    """``GET /path``; empty at layer 4."""
    verdict: Verdict
    sentence: str
    steps: tuple[Step, ...]
    remedies: tuple[str, ...] = ()
    """Commands or parts of config entries, each of which would let the caller in."""
    remarks: tuple[str, ...] = ()
    """What to think of before one is used."""
    generation: int = 0
    """Of the state."""


class PastRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A connection or request that has ended: the fields of the access log's built-in line."""

    time: str
    event: str = "connection"
    worker: int
    number: int
    client: str
    verdict: str
    reason: str
    service: str = ""
    server_name: str = ""
    source: str = ""
    peer: str = ""
    via: str = ""
    intention: str = ""
    precedence: int = 0
    permission: int = 0
    endpoint: str = ""
    tls: str = ""
    bytes_received: int = 0
    bytes_sent: int = 0
    duration_ms: float = 0.0
    detail: str = ""
    method: str = ""
    path: str = ""
    authority: str = ""
    protocol: str = ""
    status: int = 0
    flags: str = ""
    upstream_ms: float = 0.0
    request_id: str = ""
    user_agent: str = ""


class Recollected(msgspec.Struct, frozen=True):
    """The answer of ``/api/recent``."""

    records: tuple[PastRecord, ...]
    """The newest first, within each worker."""
    problems: tuple[str, ...] = ()
    """Workers that did not answer."""
