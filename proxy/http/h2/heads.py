"""Lists of headers of HTTP/2 as heads, and back (RFC 9113 sections 8.2 and 8.3).

Whatever another version of HTTP would read in another way is malformed here: a name or a value that would be two lines,
a pseudo header twice, a second length. Nothing is mended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxy.http.authority import check_authority
from proxy.http.errors import BadRequest, BadResponse
from proxy.http.message import UNKNOWN_LENGTH, Header, Headers, RequestHead, ResponseHead, Version

MOST_FIELDS = 100
"""Of a message, beside pseudo headers and parts of ``cookie``."""

_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Z-]{1,64}")
"""Without lower case: ``get`` is not GET (RFC 9110 section 9.1), and many a server takes it for that all the same."""
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e]*")
"""Visible ASCII without ``#``: a fragment is never sent (RFC 9110 section 7.1)."""
_STATUS = re.compile(rb"[1-9][0-9][0-9]")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_OF_THE_CONNECTION = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings")
)
_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))


class Malformed(Exception):
    """Ends the stream: it may be an attempt to smuggle something, and is never answered with a guess.

    Names the thing, in words of our own: nothing that was received is quoted.
    """


def request_head(fields: Iterable[Header], *, end: bool, longest: int) -> RequestHead:
    """
    :param end: the request has no body.
    :param longest: bytes of all names and values together.
    :raises BadRequest: when it is well-formed and is refused all the same; the answer has that status.
    :raises Malformed: when it is none.
    """
    pseudo: dict[bytes, bytes] = {}
    headers: Headers = []
    cookies: list[bytes] = []
    host = length = None
    trailers_wanted = expects_continue = False
    size = 0
    for header in fields:
        name, value = header
        size += len(name) + len(value)
        if name[:1] == b":":
            if headers or cookies or host is not None or length is not None or trailers_wanted or expects_continue:
                raise Malformed("a pseudo header after other headers")
            _add_pseudo(pseudo, name, value)
            continue
        if header not in _good:
            _check(header)
        if name == b"host":
            if host is not None:
                raise Malformed("two Hosts")
            host = value
        elif name == b"content-length":
            if length is not None:
                raise Malformed("two Content-Lengths")
            length = _length_of(value)
        elif name == b"te":
            if value.lower() != b"trailers":
                raise Malformed("TE may say nothing but trailers")
            trailers_wanted = True
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise BadRequest(417, "Expect says something else than 100-continue")
            expects_continue = True
        else:
            headers.append(header)
    if cookies:
        headers.append((b"cookie", b"; ".join(cookies)))  # section 8.2.3
    if size > longest:
        raise BadRequest(431, f"the headers have {size} bytes; {longest} are allowed")
    if len(headers) > MOST_FIELDS:
        raise BadRequest(431, f"there are {len(headers)} headers; {MOST_FIELDS} are allowed")
    method, path, scheme = _line_of(pseudo)
    authority = _authority_of(pseudo.get(b":authority"), host)
    if end and length:
        raise Malformed("Content-Length announces a body, and the request ends without one")
    return RequestHead(
        method=method,
        target=path,
        authority=authority,
        version=Version.HTTP_2,
        headers=headers,
        length=0 if end else UNKNOWN_LENGTH if length is None else length,
        has_length=length is not None,
        scheme=scheme,
        expects_continue=expects_continue and not end,
        trailers_wanted=trailers_wanted,
    )


def _add_pseudo(pseudo: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    if name in pseudo:
        raise Malformed("a pseudo header twice")
    if name not in _PSEUDO:
        raise Malformed("a pseudo header that requests do not have")
    pseudo[name] = value


def _line_of(pseudo: dict[bytes, bytes]) -> tuple[bytes, bytes, bytes]:
    """Method, path and scheme."""
    method, path, scheme = pseudo.get(b":method"), pseudo.get(b":path"), pseudo.get(b":scheme")
    if method is None or not _METHOD.fullmatch(method):
        raise Malformed(":method is missing, or is none")
    if method == b"CONNECT":
        raise BadRequest(501, "CONNECT is not supported")
    if scheme not in (b"https", b"http"):
        raise Malformed(":scheme is neither http nor https")
    if path is None or not (_PATH.fullmatch(path) or (path == b"*" and method == b"OPTIONS")):
        raise Malformed(":path is missing, or is none")
    return method, path, scheme


def _authority_of(authority: bytes | None, host: bytes | None) -> bytes:
    """Section 8.3.1: where both are there they say the same."""
    if authority is None:
        authority = host
    elif host is not None and host.lower() != authority.lower():
        raise Malformed(":authority and Host differ")
    if authority is None:
        raise Malformed("neither :authority nor Host")
    try:
        check_authority(authority)
    except BadRequest as error:
        raise Malformed(str(error)) from error
    return authority


_good: set[Header] = set()
"""Headers that were found good: most come again and again. Short ones, and not many."""
_MOST_GOOD = 2_048
_SHORT = 128


def _check(header: Header) -> None:
    name, value = header
    if not _NAME.fullmatch(name):
        raise Malformed("the name of a header is empty, in upper case, or no token")
    if not _VALUE.fullmatch(value):
        raise Malformed("the value of a header has control characters, or white space around it")
    if name in _OF_THE_CONNECTION:
        raise Malformed(f"{name.decode()} is for connections of HTTP/1")
    if len(name) + len(value) <= _SHORT:
        if len(_good) >= _MOST_GOOD:
            _good.clear()
        _good.add(header)


def _length_of(value: bytes) -> int:
    if not _LENGTH.fullmatch(value):
        raise Malformed("Content-Length is no number")
    return int(value)


def response_head(fields: Iterable[Header], *, method: bytes, end: bool, longest: int) -> ResponseHead:
    """A final response, or an interim one.

    :param method: of the request.
    :param end: nothing follows.
    :param longest: bytes of all names and values together.
    :raises BadResponse: when it is none.
    """
    status = length = None
    headers: Headers = []
    size = 0
    try:
        for header in fields:
            name, value = header
            size += len(name) + len(value)
            if name[:1] == b":":
                if name != b":status" or status is not None or headers or length is not None:
                    raise Malformed("a pseudo header twice, late, or of requests")
                if not _STATUS.fullmatch(value):
                    raise Malformed(":status is no number of three digits")
                status = int(value)
                continue
            if header not in _good:
                _check(header)
            if name == b"content-length":
                if length is not None:
                    raise Malformed("two Content-Lengths")
                length = _length_of(value)
            elif name != b"te":  # of requests, and of one connection
                headers.append(header)
        if status is None:
            raise Malformed(":status is missing")
        if size > longest or len(headers) > MOST_FIELDS:
            raise Malformed(f"it has {len(headers)} headers with {size} bytes")
        if status == 101:
            raise Malformed("status 101, which HTTP/2 does not have")
        bodiless = method == b"HEAD" or status in (204, 304)
        if end and length and not bodiless:
            raise Malformed("Content-Length announces a body, and the response ends without one")
    except Malformed as error:
        raise BadResponse(f"the external service sent a malformed response: {error}") from error
    return ResponseHead(
        status=status,
        headers=headers,
        length=0 if end or bodiless else UNKNOWN_LENGTH if length is None else length,
        announced_length=length,
        version=Version.HTTP_2,
    )


def trailers(fields: Iterable[Header], longest: int) -> Headers:
    """:raises Malformed: when they are none, or too many."""
    taken: Headers = []
    size = 0
    for header in fields:
        name, value = header
        if name[:1] == b":":
            raise Malformed("a pseudo header in the trailers")
        _check(header)
        if name in (b"content-length", b"host", b"te"):  # RFC 9110 section 6.5.1: framing and routing stay in heads
            raise Malformed(f"{name.decode()} in the trailers")
        size += len(name) + len(value)
        taken.append(header)
    if size > longest or len(taken) > MOST_FIELDS:
        raise Malformed("the trailers are too large, or too many")
    return taken


def fields_of_request(head: RequestHead) -> Headers:
    fields = [
        (b":method", head.method),
        (b":scheme", head.scheme),
        (b":authority", head.authority),
        (b":path", head.target),
        *head.headers,
    ]
    if head.length > 0 or head.has_length:
        fields.append((b"content-length", b"%d" % head.length))
    if head.trailers_wanted:
        fields.append((b"te", b"trailers"))
    if head.expects_continue:
        fields.append((b"expect", b"100-continue"))
    return fields


def fields_of_response(head: ResponseHead) -> Headers:
    fields = [(b":status", b"%d" % head.status), *head.headers]
    if head.announced_length is not None:
        fields.append((b"content-length", b"%d" % head.announced_length))
    elif head.length > 0:
        fields.append((b"content-length", b"%d" % head.length))
    return fields
