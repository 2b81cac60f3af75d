"""Heads as HTTP/1.1 writes them (RFC 9112). Nothing that is written can be read as more than one head."""

from __future__ import annotations

import http
from collections.abc import Iterable

from proxy.http.forward import date
from proxy.http.h1.fields import FRAMING, HOP_BY_HOP
from proxy.http.message import UNKNOWN_LENGTH, Header, Headers, RequestHead, ResponseHead

_OWN = HOP_BY_HOP | FRAMING | {b"host"}
"""What this module says itself; nobody else does."""
_REASONS = {status.value: status.phrase.encode() for status in http.HTTPStatus}
_UPGRADE_REQUIRED = 426
LAST_CHUNK = b"0\r\n\r\n"
_BREAKS = b"\r\n\0"


def request_text(head: RequestHead, *, end: bool) -> bytes:
    """``end``: no body follows, whatever ``length`` says."""
    parts = [head.method, b" ", head.target, b" HTTP/1.1\r\nhost: ", head.authority, b"\r\n"]
    lines = 2 + _add(parts, head.headers)
    if head.length > 0 and not end:
        lines += _say(parts, b"content-length: %d\r\n" % head.length)
    elif head.length == UNKNOWN_LENGTH and not end:
        lines += _say(parts, b"transfer-encoding: chunked\r\n")
    elif head.has_length or head.length:
        lines += _say(parts, b"content-length: 0\r\n")
    if head.expects_continue and not end:
        lines += _say(parts, b"expect: 100-continue\r\n")
    if head.upgrade or head.trailers_wanted:
        if head.upgrade:
            lines += _say(parts, b"upgrade: " + head.upgrade + b"\r\n")
        if head.trailers_wanted:
            lines += _say(parts, b"te: trailers\r\n")
        options = [*([b"upgrade"] if head.upgrade else []), *([b"te"] if head.trailers_wanted else [])]
        lines += _say(parts, b"connection: " + b", ".join(options) + b"\r\n")
    return _head(parts, lines)


def response_text(head: ResponseHead, framing: bytes, *, close: bool) -> bytes:
    """:param framing: the line that frames the body, or nothing."""
    parts = [_status_line(head)]
    lines = 1 + _add(parts, head.headers)
    if framing:
        parts.append(framing)
        lines += 1
    if head.upgrade:
        lines += _say(parts, b"connection: upgrade\r\nupgrade: " + head.upgrade + b"\r\n", 2)
    elif close:
        lines += _say(parts, b"connection: close\r\n")
    return _head(parts, lines)


def refusal_text(status: int, what: str) -> bytes:
    """The whole response to a request that cannot be taken."""
    body = f"{what}\n".encode("ascii", "replace")
    headers: Headers = [(b"content-type", b"text/plain"), date(), (b"server", b"consul-tgw")]
    head = response_text(ResponseHead(status, headers), b"content-length: %d\r\n" % len(body), close=True)
    if status == _UPGRADE_REQUIRED:
        head = head.replace(b"\r\nconnection: close\r\n", b"\r\nconnection: upgrade, close\r\nupgrade: HTTP/1.1\r\n")
    return head + body


def last_chunk(trailers: Headers) -> bytes:
    """The end of a chunked body (RFC 9112 section 7.1)."""
    if not trailers:
        return LAST_CHUNK
    parts = [b"0\r\n"]
    return _head(parts, 1 + _add(parts, trailers))


def _status_line(head: ResponseHead) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason or _REASONS.get(head.status, b""))


def _add(parts: list[bytes], headers: Iterable[Header]) -> int:
    lines = 0
    for name, value in headers:
        if name not in _OWN:
            parts += (name, b": ", value, b"\r\n")
            lines += 1
    return lines


def _say(parts: list[bytes], text: bytes, lines: int = 1) -> int:
    parts.append(text)
    return lines


def _head(parts: list[bytes], lines: int) -> bytes:
    """:raises ValueError: when a name or a value would begin a line of its own."""
    parts.append(b"\r\n")
    text = b"".join(parts)
    # The lines have so many of these among their parts: one more came with a name or a value.
    if len(text) - len(text.translate(None, _BREAKS)) != 2 * (lines + 1):
        raise ValueError("a line break or NUL in a head that is to be written")
    return text
