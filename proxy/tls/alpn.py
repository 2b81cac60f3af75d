"""Which protocols are named in handshakes (ALPN, RFC 7301).

A service that is carried whole names none, on either side: what its bytes mean is for its two ends.
"""

from __future__ import annotations

from proxy.model import Service

HTTP2 = b"h2"
HTTP1 = b"http/1.1"
OVER_HTTP2 = frozenset(("http2", "grpc"))
"""The protocols of services whose external side speaks HTTP/2."""


def of_service(service: Service) -> tuple[bytes, ...]:
    """What a mesh client may choose from, the preferred one first: every HTTP service takes both versions."""
    return () if service.http is None else (HTTP2, HTTP1)


def to_external_service(service: Service) -> bytes:
    """What the external service is offered: the one version that it will be spoken to in."""
    if service.http is None:
        return b""
    return HTTP2 if service.protocol in OVER_HTTP2 else HTTP1
