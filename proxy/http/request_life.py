"""The story of one request, for the access log, the metrics and the operators."""

from __future__ import annotations

from proxy.http.message import RequestHead, ResponseHead
from proxy.model import CloseReason, Endpoint
from proxy.policy.intentions import Decision


class RequestLife:
    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "decision",
        "detail",
        "endpoint",
        "flags",
        "forwarded",
        "head",
        "opened_at_s",
        "peer",
        "reason",
        "request_id",
        "response",
        "source",
        "source_text",
        "started_s",
        "status",
        "upstream_ms",
    )

    def __init__(self, head: RequestHead, *, wall_s: float, monotonic_s: float) -> None:
        self.head = head
        """As it came."""
        self.opened_at_s = wall_s
        self.started_s = monotonic_s
        self.decision: Decision | None = None
        self.forwarded: RequestHead | None = None
        """As the external service is asked; the target in it was decided about."""
        self.endpoint: Endpoint | None = None
        self.status = 0
        self.response: ResponseHead | None = None
        """As the client was answered."""
        self.reason: CloseReason | None = None
        self.detail = ""
        self.flags = ""
        """Envoy's response flags."""
        self.request_id = b""
        self.source = self.source_text = ""
        """The SPIFFE ID of who asks, and ``peer:name``; of a mesh gateway, while nobody can say for whom it asks."""
        self.peer = ""
        """The peer that who asks lives in."""
        self.bytes_received = 0
        """Of the request's body."""
        self.bytes_sent = 0
        self.upstream_ms = -1.0
        """From the moment at which the external service was asked for the first time, until it answered."""
