"""What the stream carries, as JSON. Times are Unix time in seconds, rates are per second."""

from __future__ import annotations

import msgspec

from plugin.answers.status import RegistrationStatus, ServiceStatus, WorkerStatus


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Of the gateway as a whole; sent with every tick."""

    now_s: float
    service: str
    address: str
    version: str
    consul_version: str
    datacenter: str
    default_action: str
    phase: str
    ready: bool
    not_ready: tuple[str, ...]
    generation: int
    started_at_s: float
    registration: RegistrationStatus
    state_age_s: float | None
    max_state_age_s: float
    too_old: bool
    consul_away: str
    restored_from_s: float
    root_expires_at_s: float
    warnings: tuple[str, ...]
    watch_problems: tuple[str, ...]
    workers: tuple[WorkerStatus, ...]
    worker_restarts: int
    accepted: int
    open_connections: int
    pending_handshakes: int
    refused_per_s: float
    """Connections and requests."""


class Traffic(msgspec.Struct, frozen=True, array_like=True):
    """Of one service."""

    service: str
    open: int = 0
    received_per_s: float = 0.0
    """Bytes, towards the external service."""
    sent_per_s: float = 0.0
    requests_per_s: float = 0.0
    errors_per_s: float = 0.0
    """Of these, answered 5xx, or not at all."""
    p50_s: float = 0.0
    """Of the requests of the last seconds: no more than so long. 0 when there were none."""
    p95_s: float = 0.0


class Flow(msgspec.Struct, frozen=True, array_like=True):
    """From one source to one service."""

    service: str
    source: str
    open: int = 0
    bytes_per_s: float = 0.0
    """Both directions."""
    refused_per_s: float = 0.0
    refused: int = 0


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """All attempts that ended for one reason."""

    service: str
    source: str
    reason: str
    what: str
    """``connection`` or ``request``."""
    count: int
    seen_at_s: float = 0.0
    """When the newest of them was noticed; 0: before anybody looked."""
    why: str = ""
    remedy: str = ""
    command: str = ""


class Tick(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is new. The first that a listener gets has everything."""

    head: Head
    services: tuple[ServiceStatus, ...] = ()
    """Those that differ from what was sent before."""
    gone: tuple[str, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    """Those that differ."""
    flows: tuple[Flow, ...] | None = None
    """The greatest; ``None``: as before."""
    flows_left_out: int = 0
    refusals: tuple[Refusal, ...] | None = None
    """The newest; ``None``: as before."""
    refusals_left_out: int = 0
