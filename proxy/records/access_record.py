"""What the access log knows about one connection, or one request, that has ended."""

from __future__ import annotations

import functools
import time

import msgspec


class AccessRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the access log."""

    time: str
    """When the connection was accepted, or the request came; RFC 3339, UTC, microseconds."""
    event: str = "connection"
    """Or ``request``."""
    worker: int
    number: int
    """Of the connection, within its worker."""
    client: str
    """``ip:port``"""
    verdict: str
    """``allowed``, ``denied`` (by policy) or ``refused`` (before policy was asked)."""
    reason: str
    """A :class:`proxy.model.CloseReason`."""
    service: str = ""
    server_name: str = ""
    source: str = ""
    """The caller's SPIFFE ID."""
    peer: str = ""
    """The peer that the caller lives in, by the name that this cluster gave it."""
    via: str = ""
    """The SPIFFE ID of the mesh gateway that asks for the caller."""
    intention: str = ""
    """What decided: the intention with its precedence, or the default."""
    precedence: int = 0
    endpoint: str = ""
    tls: str = ""
    bytes_received: int = msgspec.UNSET  # type: ignore[assignment]
    """From the client."""
    bytes_sent: int = msgspec.UNSET  # type: ignore[assignment]
    duration_ms: float = msgspec.UNSET  # type: ignore[assignment]
    detail: str = ""
    local_address: str = ""
    """``ip:port`` that the client connected to; only if the format of the line asks for it."""
    method: str = ""
    path: str = ""
    """Without the query, which may hold what is nobody's business."""
    authority: str = ""
    """As the client sent it."""
    protocol: str = ""
    """Of the request: ``HTTP/1.1``, ``HTTP/2``."""
    status: int = msgspec.UNSET  # type: ignore[assignment]
    """Of the response; 0: nothing was answered."""
    flags: str = ""
    """Envoy's response flags: ``UF``, ``UT``, ``DC`` ..."""
    permission: int = 0
    """Which permission of the intention decided, the first one being 1."""
    upstream_ms: float = 0.0
    """From the first attempt to ask the external service until its response began."""
    request_id: str = ""
    user_agent: str = ""


def timestamp(wall_s: float) -> str:
    """Unix seconds as RFC 3339 text in UTC, microseconds."""
    microseconds = round(wall_s * 1_000_000)
    return f"{_whole_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06d}Z"


@functools.lru_cache(maxsize=16)
def _whole_second(wall_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall_s))
