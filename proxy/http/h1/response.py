"""The head of a response in HTTP/1.1 (RFC 9112), as strict as for requests: what is passed on must not be ambiguous."""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from proxy.http.errors import BadResponse
from proxy.http.h1.fields import (
    FEW_BYTES,
    FRAMING,
    HOP_BY_HOP,
    MOST_LINES,
    Lines,
    length_of,
    members,
    split,
    without,
)
from proxy.http.h1.mending import ended_properly, unfolded
from proxy.http.message import UNKNOWN_LENGTH, Header, ResponseHead, Version

MAX_RESPONSE_HEAD_BYTES = 64 * 1024
_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r\n")
_SPECIAL = HOP_BY_HOP | FRAMING
_SWITCHING = 101
_NO_CONTENT = (204, 304)


class ReceivedResponse(NamedTuple):
    head: ResponseHead
    chunked: bool
    close: bool
    """The external service takes no further request on this connection."""


def read_response(raw: bytes) -> ReceivedResponse:
    """``raw`` is a head from its first byte to the empty line, that included (:data:`proxy.http.h1.mending.HEAD_END`).
    ``length`` is that of a response to anything but HEAD.

    :raises BadResponse: naming what is wrong.
    """
    raw = ended_properly(raw)
    line = _LINE.match(raw)
    if line is None:
        raise BadResponse("the first line is not a status line of HTTP/1.0 or HTTP/1.1")
    minor, digits, reason = line.groups()
    status = int(digits)
    headers, special = split(_lines(raw, status), _SPECIAL)
    old = minor == b"0"
    head = ResponseHead(status, headers, reason=reason or b"")
    if old:
        head.version = Version.HTTP_1_0
    chunked = _frame(head, special, old=old)
    named = special.get(b"connection")
    options = members(named) if named else []
    if not FRAMING.isdisjoint(options):
        raise BadResponse("Connection names a header that frames the message")
    if options:
        head.headers = without(headers, options)
    if status == _SWITCHING:
        head.upgrade = special.get(b"upgrade", b"")
    return ReceivedResponse(head, chunked, old or b"close" in options)


def _lines(raw: bytes, status: int) -> list[Header]:
    if len(raw) > FEW_BYTES and raw.count(b"\n") > MOST_LINES + 2:
        raise BadResponse(f"more than {MOST_LINES} header lines")
    lines = Lines()
    try:
        httptools.HttpResponseParser(lines).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        # After a 101 llhttp stops, whatever the head says.
        if status != _SWITCHING or not lines.complete:
            # It takes no folded line; without them there is nothing left to mend.
            mended = unfolded(raw)
            if mended is not raw:
                return _lines(mended, status)
            raise BadResponse(str(error)) from None
    if not lines.complete:
        raise BadResponse("llhttp finds no end of the head")
    return lines.headers


def _frame(head: ResponseHead, special: dict[bytes, bytes], *, old: bool) -> bool:
    """RFC 9112 section 6.3. :returns: whether the body comes in chunks."""
    codings, announced = special.get(b"transfer-encoding"), special.get(b"content-length")
    if codings is not None:
        if announced is not None:
            raise BadResponse("Content-Length beside Transfer-Encoding")
        if codings.lower() != b"chunked":
            raise BadResponse("a Transfer-Encoding other than chunked alone")
        if old:
            raise BadResponse("Transfer-Encoding in HTTP/1.0")
    length = UNKNOWN_LENGTH
    if announced is not None:
        counted = length_of(announced)
        if counted is None:
            raise BadResponse("Content-Length is not one number")
        head.announced_length = length = counted
    if head.status < 200 or head.status in _NO_CONTENT:
        head.length = 0
        return False
    head.length = length
    return codings is not None
