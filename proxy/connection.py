"""The life of one connection: which state it is in, what may happen next, and why it ended.

Rules:

1. Everything that decides the state is in this file: the table below and :meth:`ConnectionLife.advance`, the only
   method that changes the state.
2. It knows no socket, no clock and no task: whoever drives the connection reports what happened.
3. There is exactly one close reason, the first; what follows from it changes nothing.
4. An event that the table does not list is a bug of the driver, never of a peer.
"""

from __future__ import annotations

import enum

from proxy.model import CloseReason, Endpoint
from proxy.policy.intentions import Permit, Refusal


class State(enum.StrEnum):
    HANDSHAKING = "handshaking"
    """TLS with the client is under way; nothing is known about it."""
    DIALLING = "dialling"
    """A permit was given; the external service is being reached."""
    OPEN = "open"
    """Bytes flow. A half-closed connection is open: the relay knows which half."""
    SERVING = "serving"
    """The caller is known, and each of its requests is decided for itself (layer 7)."""
    CLOSED = "closed"


class Event(enum.StrEnum):
    PERMITTED = "permitted"
    CONNECTED = "connected"
    IDENTIFIED = "identified"
    CLOSE = "close"


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.HANDSHAKING, Event.PERMITTED): State.DIALLING,
    (State.HANDSHAKING, Event.IDENTIFIED): State.SERVING,
    (State.HANDSHAKING, Event.CLOSE): State.CLOSED,
    (State.DIALLING, Event.CONNECTED): State.OPEN,
    (State.DIALLING, Event.CLOSE): State.CLOSED,
    (State.OPEN, Event.CLOSE): State.CLOSED,
    (State.SERVING, Event.CLOSE): State.CLOSED,
}


class ConnectionLife:
    """State and story of one connection, for its driver, the access log and the operators."""

    __slots__ = (
        "client",
        "detail",
        "endpoint",
        "local_address",
        "number",
        "opened_at_s",
        "permit",
        "reason",
        "refusal",
        "server_name",
        "service",
        "spiffe_id",
        "started_s",
        "state",
        "tls_version",
    )

    def __init__(self, number: int, client: str, *, wall_s: float, monotonic_s: float) -> None:
        self.number = number
        self.client = client
        self.local_address = ""
        """``ip:port`` that the client connected to, if somebody wants to know."""
        self.opened_at_s = wall_s
        self.started_s = monotonic_s
        self.state = State.HANDSHAKING
        self.server_name = ""
        self.service = ""
        self.tls_version = ""
        self.spiffe_id = ""
        self.permit: Permit | None = None
        self.refusal: Refusal | None = None
        self.endpoint: Endpoint | None = None
        self.reason: CloseReason | None = None
        self.detail = ""

    @property
    def client_ip(self) -> str:
        """The client's address without its port."""
        return self.client.rpartition(":")[0]

    def permitted(self, permit: Permit) -> None:
        self.advance(Event.PERMITTED)
        self.permit = permit

    def connected(self, endpoint: Endpoint) -> None:
        self.advance(Event.CONNECTED)
        self.endpoint = endpoint

    def identified(self) -> None:
        self.advance(Event.IDENTIFIED)

    def close(self, reason: CloseReason, detail: str = "") -> bool:
        """End it; false when it had ended before, and then nothing changes."""
        if self.state is State.CLOSED:
            return False
        self.advance(Event.CLOSE)
        self.reason = reason
        self.detail = detail
        return True

    def advance(self, event: Event) -> None:
        following = TRANSITIONS.get((self.state, event))
        if following is None:
            raise AssertionError(f"connection {self.number}: {event} cannot happen while {self.state}")
        self.state = following
