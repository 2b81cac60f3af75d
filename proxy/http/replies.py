"""What the gateway itself answers, in the place of the external service. Pure.

Status and text are Envoy's, so that who looks for them finds them; a call of gRPC is told in its own way, as a
response without a body whose trailers say the status (gRPC over HTTP/2, "Trailers-Only").
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from proxy.http.content import GRPC, is_grpc
from proxy.http.forward import date
from proxy.http.message import Headers, RequestHead, ResponseHead
from proxy.model import CloseReason

_GRPC_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
"""From https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md; anything else is 2, unknown."""
_UNKNOWN = 2
_SERVER = (b"server", b"consul-tgw")
"""Tells answers of the gateway from those of the external service."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    text: str
    flags: str = ""
    """Envoy's response flags, for the access log."""
    headers: tuple[tuple[bytes, bytes], ...] = ()


DENIED = Reply(403, "RBAC: access denied")
NO_TOKEN = Reply(401, "Jwt verification fails", "", ((b"www-authenticate", b"Bearer"),))
NO_ENDPOINTS = Reply(503, "no healthy upstream", "UH")
OVERFLOW = Reply(503, "upstream connect error or disconnect/reset before headers. reset reason: overflow", "UO")
CONNECT_FAILED = Reply(
    503, "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure", "UF"
)
CONNECT_TIMEOUT = Reply(
    503, "upstream connect error or disconnect/reset before headers. reset reason: connection timeout", "UF"
)
LOST = Reply(
    503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination", "UC"
)
BAD_RESPONSE = Reply(
    502, "upstream connect error or disconnect/reset before headers. reset reason: protocol error", "UPE"
)
TIMEOUT = Reply(504, "upstream request timeout", "UT")
IDLE = Reply(408, "stream timeout", "SI")
UNLINKED = Reply(404, "", "NR")
INTERNAL = Reply(500, "", "")


_UNREACHABLE = {
    CloseReason.NO_ENDPOINTS: NO_ENDPOINTS,
    CloseReason.OVER_LIMIT: OVERFLOW,
    CloseReason.DIAL_TIMEOUT: CONNECT_TIMEOUT,
}
_BROKEN = {CloseReason.BAD_RESPONSE: BAD_RESPONSE, CloseReason.INTERNAL: INTERNAL}


def unreachable(reason: CloseReason) -> Reply:
    """No connection takes the request."""
    return _UNREACHABLE.get(reason, CONNECT_FAILED)


def broken(reason: CloseReason) -> Reply:
    """The external service was asked, and there is no response."""
    return _BROKEN.get(reason, LOST)


def response(reply: Reply, request: RequestHead) -> tuple[ResponseHead, bytes]:
    """The head, and the body that follows it, if any."""
    if is_grpc(request):
        return ResponseHead(200, [*_grpc(reply), *reply.headers]), b""
    body = reply.text.encode()
    headers: Headers = [(b"content-type", b"text/plain")] if body else []
    headers += [*reply.headers, date(), _SERVER]
    sent = b"" if request.method == b"HEAD" else body
    return ResponseHead(reply.status, headers, length=len(sent), announced_length=len(body)), sent


def _grpc(reply: Reply) -> Headers:
    status = _GRPC_STATUS.get(reply.status, _UNKNOWN)
    return [
        (b"content-type", GRPC),
        (b"grpc-status", str(status).encode()),
        (b"grpc-message", quote(reply.text, safe=" !\"#$&'()*+,/:;<=>?@[\\]^`{|}").encode()),
        date(),
        _SERVER,
    ]
