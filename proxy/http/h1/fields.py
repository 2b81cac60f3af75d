"""Header lines of HTTP/1.1: read by llhttp, then held to what it lets through.

What is for one connection alone (RFC 9110 section 7.6.1) and what frames a message (RFC 9112 section 6) is taken out:
it is said anew on the other side.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import httptools

from proxy.http.message import Header, Headers

MOST_LINES = 100
"""Header lines of one head, as in Envoy."""
FEW_BYTES = 4 * MOST_LINES
"""A head that is not longer has no more lines: the shortest is a name, a colon and CR LF."""
HEAD_END = re.compile(rb"\r\n\r\n")

_WHITE_SPACE = b" \t"
_DIGITS = re.compile(rb"[0-9]{1,18}")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"))
FRAMING = frozenset((b"content-length", b"transfer-encoding"))

_PROTECTED = frozenset(
    (
        *(b"host", b"content-length", b"transfer-encoding", b"trailer", b"expect"),
        *(b"content-encoding", b"content-type", b"content-range", b"cache-control", b"range"),
        *(b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"),
        *(b"forwarded", b"via", b"max-forwards", b"x-real-ip", b"x-request-id"),
        *(b"traceparent", b"tracestate", b"origin", b"referer", b"location"),
    )
)
_PROTECTED_PREFIXES = (b"x-forwarded-", b"x-envoy-", b"x-consul-", b"access-control-", b"sec-")


class Lines:
    """What llhttp calls."""

    __slots__ = ("complete", "headers")

    def __init__(self) -> None:
        self.headers: Headers = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # llhttp leaves white space at the end.
        self.headers.append((name.lower(), value.rstrip(_WHITE_SPACE)))

    def on_headers_complete(self) -> None:
        self.complete = True


def protected(name: bytes) -> bool:
    """Whether a header means something to whoever forwards or decides, so that it is no trailer, and no client may
    have it removed by naming it in ``Connection``."""
    return name in _PROTECTED or name.startswith(_PROTECTED_PREFIXES)


def split(headers: Iterable[Header], special: frozenset[bytes]) -> tuple[Headers, dict[bytes, bytes]]:
    """The headers that are passed on, and the ``special`` ones by name.

    Lines of one name are joined (RFC 9110 section 5.2): what may be there once is malformed when it is there twice.
    """
    ordinary: Headers = []
    found: dict[bytes, bytes] = {}
    for header in headers:
        name = header[0]
        if name not in special:
            ordinary.append(header)
        elif name in found:
            found[name] += b", " + header[1]
        else:
            found[name] = header[1]
    return ordinary, found


def members(value: bytes) -> list[bytes]:
    """Of a comma-separated list, without white space, in lower case; empty ones are no members."""
    return [member for part in value.lower().split(b",") if (member := part.strip(_WHITE_SPACE))]


def is_token(value: bytes) -> bool:
    return _TOKEN.fullmatch(value) is not None


def length_of(value: bytes) -> int | None:
    """Of a Content-Length; ``None`` when it is not one number of bytes."""
    return int(value) if _DIGITS.fullmatch(value) else None


def without(headers: Headers, names: Iterable[bytes]) -> Headers:
    """``names`` are those that ``Connection`` named."""
    unwanted = frozenset(names)
    return [header for header in headers if header[0] not in unwanted]


def trailers_in(block: bytes) -> Headers:
    """The lines of a trailer section; ``block`` ends with the empty one.

    :raises ValueError: when it is malformed or too long.
    """
    if block.count(b"\n") > MOST_LINES + 1:
        raise ValueError(f"more than {MOST_LINES} trailer lines")
    lines = Lines()
    try:
        httptools.HttpRequestParser(lines).feed_data(b"GET / HTTP/1.1\r\n" + block)
    except httptools.HttpParserError as error:
        raise ValueError(f"malformed trailers: {error}") from None
    if not lines.complete:
        raise ValueError("llhttp finds no end of the trailers")
    return lines.headers


def out_of_place(name: bytes) -> bool:
    """Whether it means nothing, or something else, in a trailer (RFC 9110 section 6.5.1)."""
    return name in HOP_BY_HOP or protected(name)
