"""The head of a request in HTTP/1.1 (RFC 9112), read so that nobody can read it differently.

llhttp refuses lengths that are ambiguous, folded lines, bare line ends and bad names; what it lets through is
refused here. Decided in docs/decisions/033-http1-is-read-strictly.md.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

from proxy.http.authority import check_authority
from proxy.http.errors import BadRequest
from proxy.http.h1.fields import (
    FEW_BYTES,
    HOP_BY_HOP,
    MOST_LINES,
    Lines,
    is_token,
    length_of,
    members,
    protected,
    split,
    without,
)
from proxy.http.message import UNKNOWN_LENGTH, RequestHead, Version

_LINE = re.compile(rb"([A-Z-]+) ([!-~]+) HTTP/1\.1\r\n")
_VERSION = re.compile(rb".* HTTP/([0-9]+(?:\.[0-9]+)?)", re.DOTALL)
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(.*)")
_VERSION_SERVED = Version.HTTP_1_1
_SPECIAL = frozenset((b"host", b"content-length", b"expect", b"http2-settings")) | HOP_BY_HOP


class ReceivedRequest(NamedTuple):
    head: RequestHead
    close: bool
    """The client wants no further request on this connection."""


def read_request(raw: bytes) -> ReceivedRequest:
    """``raw`` is a head from its first byte to the empty line, that included.

    :raises BadRequest: with the status that the client is told.
    """
    line = _LINE.match(raw)
    if line is None:
        raise _bad_line(raw)
    method, target = line.groups()
    if method == b"CONNECT":
        raise BadRequest(501, "CONNECT is not for a gateway")
    headers, special = split(_lines(raw, method), _SPECIAL)
    authority = special.get(b"host")
    if authority is None:
        raise BadRequest(400, "no Host header")
    check_authority(authority)
    if target[0] != 0x2F or b"#" in target:
        target = _origin_form(method, target, authority)
    head = RequestHead(method, target, authority, _VERSION_SERVED, headers)
    close = False
    if len(special) > 1:
        _frame(head, special)
        close = _connection(head, special)
        _expect(head, special)
    return ReceivedRequest(head, close)


def _lines(raw: bytes, method: bytes) -> list[tuple[bytes, bytes]]:
    if len(raw) > FEW_BYTES and raw.count(b"\n") > MOST_LINES + 2:
        raise BadRequest(431, f"more than {MOST_LINES} header lines")
    lines = Lines()
    try:
        httptools.HttpRequestParser(lines).feed_data(raw)
    except httptools.HttpParserUpgrade:
        pass  # whether it is one is for the external service to say
    except httptools.HttpParserInvalidMethodError:
        raise BadRequest(501, "the method is not known") from None
    except httptools.HttpParserError as error:
        _, special = split(lines.headers, _SPECIAL)
        _refuse_codings(special)
        raise BadRequest(400, str(error)) from None
    if not lines.complete:
        raise BadRequest(400, f"llhttp finds no end of the head of a {method.decode()} request")
    return lines.headers


def _bad_line(raw: bytes) -> BadRequest:
    line = raw[: raw.index(b"\r\n")]
    version = _VERSION.fullmatch(line)
    if version is not None and version[1] == b"1.0":
        return BadRequest(426, "HTTP/1.0 is not served, only HTTP/1.1 and HTTP/2")
    if version is not None and version[1] != b"1.1":
        return BadRequest(505, "a version of HTTP that is not served")
    return BadRequest(400, "the request line is not a method, a target and a version between single spaces")


def _origin_form(method: bytes, target: bytes, authority: bytes) -> bytes:
    """RFC 9112 section 3.2."""
    if b"#" in target:
        raise BadRequest(400, "a fragment in the request target")
    if target == b"*":
        if method != b"OPTIONS":
            raise BadRequest(400, "the request target * is only for OPTIONS")
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise BadRequest(400, "the request target is neither a path nor a URI of http or https")
    named, rest = absolute.groups()
    if named.lower() != authority.lower():
        raise BadRequest(400, "the authority of the request target is not that of Host")
    if not rest and method == b"OPTIONS":
        return b"*"
    path: bytes = rest
    return path if path.startswith(b"/") else b"/" + path


def _refuse_codings(special: dict[bytes, bytes]) -> None:
    codings = special.get(b"transfer-encoding")
    if codings is None:
        return
    if b"content-length" in special:
        raise BadRequest(400, "Content-Length beside Transfer-Encoding")
    if codings.lower() != b"chunked":
        raise BadRequest(501, "a Transfer-Encoding other than chunked alone")


def _frame(head: RequestHead, special: dict[bytes, bytes]) -> None:
    """RFC 9112 section 6.3."""
    _refuse_codings(special)
    if b"transfer-encoding" in special:
        head.length = UNKNOWN_LENGTH
    elif (announced := special.get(b"content-length")) is not None:
        length = length_of(announced)
        if length is None:
            raise BadRequest(400, "Content-Length is not one number")
        head.length, head.has_length = length, True


def _connection(head: RequestHead, special: dict[bytes, bytes]) -> bool:
    """Take away what is for this connection alone. :returns: whether it is to be closed."""
    options = members(special.get(b"connection", b""))
    named = [option for option in options if option not in HOP_BY_HOP and option != b"close"]
    for name in named:
        if not is_token(name):
            raise BadRequest(400, "Connection is not a list of names")
        if protected(name):
            raise BadRequest(400, "Connection names a header that is not for the connection")
    if named:
        head.headers = without(head.headers, named)
    if b"transfer-encoding" in options:
        raise BadRequest(400, "Connection names a header that is not for the connection")
    head.trailers_wanted = b"trailers" in members(special.get(b"te", b""))
    upgrade = special.get(b"upgrade", b"")
    # HTTP/2 is spoken from the first byte, or not at all (RFC 9113 section 3.1); a server may ignore an Upgrade.
    if upgrade and b"upgrade" in options and b"h2c" not in members(upgrade):
        head.upgrade = upgrade
    return b"close" in options


def _expect(head: RequestHead, special: dict[bytes, bytes]) -> None:
    expectation = special.get(b"expect")
    if expectation is None:
        return
    if expectation.lower() != b"100-continue":
        raise BadRequest(417, "an expectation other than 100-continue")
    head.expects_continue = head.length != 0
