"""Which requests may be sent twice (RFC 9110 section 9.2.2). Pure."""

from __future__ import annotations

from proxy.errors import UpstreamError
from proxy.http.message import RequestHead
from proxy.model import CloseReason

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})


def repeatable(head: RequestHead) -> bool:
    """Doing it twice is the same as once, and there is no body to be sent again."""
    return head.method in _IDEMPOTENT and head.length == 0 and not head.upgrade


def may_repeat(head: RequestHead, error: UpstreamError, *, reused: bool) -> bool:
    """Nothing came back: was that because the connection had been ended when the request was sent?

    :param reused: it had carried requests before; then the server may have ended it for being idle.
    """
    return reused and error.reason is CloseReason.UPSTREAM_RESET and repeatable(head)
