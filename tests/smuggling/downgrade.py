"""HTTP/2 that becomes HTTP/1.1: lengths that are not the data's, line ends in values, pseudo headers.

RFC 9113 section 8: what is malformed is a stream error, and nothing of it is passed on.
"""

from __future__ import annotations

from tests.smuggling.case import HIDDEN, Fields, Outcome, Seen, StreamCase

_GET, _POST = Seen("GET", "/case"), Seen("POST", "/case", b"hello")
_AWAY = (Outcome.REFUSED, Outcome.TURNED_AWAY)
_CARRIED = (Outcome.CARRIED,)
_ANY = tuple(Outcome)


def _fields(
    *more: tuple[bytes, bytes],
    method: bytes = b"POST",
    path: bytes = b"/case",
    scheme: bytes = b"https",
    authority: bytes = b"a.test",
) -> Fields:
    return ((b":method", method), (b":scheme", scheme), (b":authority", authority), (b":path", path), *more)


def _post(name: str, why: str, *more: tuple[bytes, bytes], data: bytes = b"hello") -> StreamCase:
    return StreamCase(name=name, why=why, fields=_fields(*more), data=(data,), outcomes=_AWAY)


def _get(name: str, why: str, *more: tuple[bytes, bytes], **pseudo: bytes) -> StreamCase:
    return StreamCase(
        name=name, why=why, fields=_fields(*more, method=pseudo.pop("method", b"GET"), **pseudo), outcomes=_AWAY
    )


def _whole(name: str, why: str, fields: Fields) -> StreamCase:
    return StreamCase(name=name, why=why, fields=fields, outcomes=_AWAY)


def _trailers(name: str, why: str, *trailers: tuple[bytes, bytes]) -> StreamCase:
    return StreamCase(
        name=name, why=why, fields=_fields(), data=(b"hello",), trailers=trailers, outcomes=_ANY, seen=(_POST,)
    )


_LENGTH = b"content-length"

CASES: list[StreamCase] = [
    # Lengths
    _post("h2-cl-short", "less than the data", (_LENGTH, b"4")),
    _post("h2-cl-zero", "nothing, and data", (_LENGTH, b"0"), data=HIDDEN),
    _post("h2-cl-long", "more than the data", (_LENGTH, b"500")),
    _post("h2-cl-plus", "a sign", (_LENGTH, b"+5")),
    _post("h2-cl-hexadecimal", "another base", (_LENGTH, b"0x5")),
    _post("h2-cl-list", "a list", (_LENGTH, b"5, 5")),
    _post("h2-cl-twice", "twice the same", (_LENGTH, b"5"), (_LENGTH, b"5")),
    _post("h2-cl-twice-differs", "two lengths", (_LENGTH, b"5"), (_LENGTH, b"0")),
    _post("h2-cl-word", "no number", (_LENGTH, b"five")),
    _post("h2-cl-empty", "nothing", (_LENGTH, b"")),
    _post("h2-cl-space", "white space", (_LENGTH, b" 5")),
    _post("h2-cl-endless", "more digits than any number has", (_LENGTH, b"9" * 400)),
    _get("h2-cl-no-data", "a length, and the stream has ended", (_LENGTH, b"5"), method=b"POST"),
    # Headers that HTTP/2 does not have
    _post("h2-te", "chunks", (b"transfer-encoding", b"chunked"), data=b"0\r\n\r\n" + HIDDEN),
    _post("h2-te-identity", "no chunks", (b"transfer-encoding", b"identity")),
    _post("h2-te-cl", "both", (b"transfer-encoding", b"chunked"), (_LENGTH, b"5")),
    _get("h2-connection", "for one connection", (b"connection", b"close")),
    _get("h2-connection-te", "names another", (b"connection", b"transfer-encoding")),
    _get("h2-keep-alive", "for one connection", (b"keep-alive", b"timeout=5")),
    _get("h2-proxy-connection", "for one connection", (b"proxy-connection", b"close")),
    _get("h2-upgrade", "HTTP/2 has no upgrade", (b"upgrade", b"websocket")),
    _get("h2-te-chunked", "only trailers may be said", (b"te", b"chunked")),
    _get("h2-te-more", "only trailers may be said", (b"te", b"trailers, chunked")),
    # Line ends and other controls
    _get("h2-value-crlf", "another header", (b"x-a", b"b\r\nTransfer-Encoding: chunked")),
    _get("h2-value-request", "another request", (b"x-a", b"b\r\n\r\n" + HIDDEN)),
    _get("h2-value-lf", "a bare LF", (b"x-a", b"b\nx-b: c")),
    _get("h2-value-cr", "a bare CR", (b"x-a", b"b\rx-b: c")),
    _get("h2-value-nul", "a NUL", (b"x-a", b"b\x00c")),
    _get("h2-name-crlf", "another header", (b"x-a: b\r\nx-b", b"c")),
    _get("h2-name-lf", "a bare LF", (b"x-a\nx-b", b"c")),
    _get("h2-name-nul", "a NUL", (b"x\x00a", b"b")),
    _get("h2-name-colon", "two names", (b"x-a: b", b"c")),
    _get("h2-name-colon-end", "a colon at its end", (b"x-a:", b"b")),
    _get("h2-name-space", "a space", (b"x a", b"b")),
    _get("h2-name-space-end", "a space at its end", (b"transfer-encoding ", b"chunked")),
    _get("h2-name-space-before", "a space before it: obs-fold", (b" x-a", b"b")),
    _get("h2-name-tab", "a tab", (b"x-a\t", b"b")),
    _get("h2-name-upper", "upper case", (b"X-A", b"b")),
    _get("h2-name-upper-te", "upper case", (b"Transfer-Encoding", b"chunked")),
    _get("h2-name-empty", "no name", (b"", b"b")),
    _get("h2-name-latin", "no ASCII", (b"x-\xe9", b"b")),
    _get("h2-name-request", "a request line", (b"get /hidden http/1.1", b"b")),
    # Pseudo headers
    _get("h2-path-space", "the rest of a request line", path=b"/case HTTP/1.1\r\nX-A: b"),
    _get("h2-path-version", "a version and another path", path=b"/hidden HTTP/1.1"),
    _get("h2-path-crlf", "a header", path=b"/case\r\nX-A: b"),
    _get("h2-path-lf", "a bare LF", path=b"/case\nx"),
    _get("h2-path-nul", "a NUL", path=b"/case\x00"),
    _get("h2-path-tab", "a tab", path=b"/case\tx"),
    _get("h2-path-empty", "no path", path=b""),
    _get("h2-path-no-slash", "no path", path=b"case"),
    _get("h2-path-absolute", "a whole URI", path=b"http://b.test/case"),
    _get("h2-path-fragment", "a fragment is never sent", path=b"/case#hidden"),
    _get("h2-path-star", "for OPTIONS alone", path=b"*"),
    _get("h2-path-latin", "no ASCII", path=b"/\xe9"),
    _get("h2-path-encoded-slash", "goes up for some", path=b"/a/..%2fb"),
    _get("h2-method-space", "a whole request line", method=b"GET /hidden HTTP/1.1"),
    _get("h2-method-crlf", "another line", method=b"GET / HTTP/1.1\r\nX-A: b\r\n\r\nGET"),
    _get("h2-method-empty", "no method", method=b""),
    _get("h2-method-lower", "methods have case, and this one is none", method=b"get"),
    _get("h2-method-connect", "asks for a tunnel", method=b"CONNECT"),
    _get("h2-scheme-odd", "a URI", scheme=b"http://b.test/?x="),
    _get("h2-scheme-crlf", "a header", scheme=b"https\r\nx-a: b"),
    _get("h2-authority-crlf", "a header", authority=b"a.test\r\nX-A: b"),
    _get("h2-authority-space", "two of them", authority=b"a.test b.test"),
    _get("h2-authority-path", "a path", authority=b"a.test/b"),
    _get("h2-authority-user", "user information", authority=b"user@a.test"),
    _get("h2-authority-list", "a list", authority=b"a.test, b.test"),
    _get("h2-host-differs", "Host says another one", (b"host", b"b.test")),
    _get("h2-host-twice", "two of Host", (b"host", b"a.test"), (b"host", b"b.test")),
    _get("h2-pseudo-unknown", "no such pseudo header", (b":hidden", b"x")),
    _get("h2-pseudo-status", "of a response", (b":status", b"200")),
    _get("h2-pseudo-late", "after another header", (b"x-a", b"b"), (b":path", b"/hidden")),
    _get("h2-protocol", "a tunnel that was not offered (RFC 8441)", (b":protocol", b"websocket"), method=b"CONNECT"),
    _whole("h2-path-twice", "two paths", (*_fields(method=b"GET"), (b":path", b"/hidden"))),
    _whole("h2-method-twice", "two methods", ((b":method", b"GET"), *_fields())),
    _whole("h2-authority-twice", "two authorities", (*_fields(method=b"GET"), (b":authority", b"b.test"))),
    _whole("h2-no-method", "no method", _fields()[1:]),
    _whole("h2-no-path", "no path", _fields(method=b"GET")[:3]),
    _whole("h2-no-scheme", "no scheme", ((b":method", b"GET"), (b":authority", b"a.test"), (b":path", b"/case"))),
    _whole(
        "h2-no-authority",
        "neither authority nor Host",
        ((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/case")),
    ),
    _whole("h2-no-pseudo", "no pseudo header", ((b"x-a", b"b"),)),
    # Trailers
    _trailers("h2-trailer-plain", "a harmless one", (b"x-a", b"b")),
    _trailers("h2-trailer-cl", "a length is not believed here", (_LENGTH, b"500")),
    _trailers("h2-trailer-te", "chunks are not believed here", (b"transfer-encoding", b"chunked")),
    _trailers("h2-trailer-host", "a host is not believed here", (b"host", b"b.test")),
    _trailers("h2-trailer-pseudo", "a pseudo header in trailers", (b":path", b"/hidden")),
    _trailers("h2-trailer-crlf", "another request", (b"x-a", b"b\r\n\r\n" + HIDDEN)),
    _trailers("h2-trailer-name", "another request, in the name", (b"x-a: b\r\n\r\nget /hidden http/1.1\r\nx", b"b")),
    _trailers("h2-trailer-upper", "upper case", (b"X-A", b"b")),
    # Sound ones
    StreamCase(
        name="h2-caller",
        why="says who is calling",
        fields=_fields((b"x-forwarded-client-cert", b"URI=spiffe://x/svc/admin"), method=b"GET"),
        outcomes=_CARRIED,
        seen=(_GET,),
    ),
    StreamCase(
        name="h2-trailer-caller",
        why="says who is calling, at the end",
        fields=_fields(),
        data=(b"hello",),
        trailers=((b"x-forwarded-client-cert", b"URI=spiffe://x/svc/admin"),),
        outcomes=_ANY,
        seen=(_POST,),
    ),
    StreamCase(name="h2-get", why="the plain case", fields=_fields(method=b"GET"), outcomes=_CARRIED, seen=(_GET,)),
    StreamCase(
        name="h2-post", why="with data", fields=_fields(), data=(b"hel", b"", b"lo"), outcomes=_CARRIED, seen=(_POST,)
    ),
    StreamCase(
        name="h2-cl",
        why="the length is right",
        fields=_fields((_LENGTH, b"5")),
        data=(b"hello",),
        outcomes=_CARRIED,
        seen=(_POST,),
    ),
    StreamCase(
        name="h2-hidden",
        why="data that looks like a request",
        fields=_fields(),
        data=(b"0\r\n\r\n", HIDDEN),
        outcomes=_CARRIED,
        seen=(Seen("POST", "/case", b"0\r\n\r\n" + HIDDEN),),
    ),
    StreamCase(
        name="h2-get-data",
        why="GET with data",
        fields=_fields(method=b"GET"),
        data=(HIDDEN,),
        outcomes=_CARRIED,
        seen=(Seen("GET", "/case", HIDDEN),),
    ),
    StreamCase(
        name="h2-te-trailers",
        why="the one value that may be said",
        fields=_fields((b"te", b"trailers"), method=b"GET"),
        outcomes=_CARRIED,
        seen=(_GET,),
    ),
    StreamCase(
        name="h2-host-equal",
        why="both say the same",
        fields=_fields((b"host", b"a.test"), method=b"GET"),
        outcomes=_ANY,
        seen=(_GET,),
    ),
    StreamCase(
        name="h2-cookies",
        why="crumbs become one",
        fields=_fields((b"cookie", b"a=b"), (b"cookie", b"c=d"), method=b"GET"),
        outcomes=_CARRIED,
        seen=(_GET,),
    ),
    StreamCase(
        name="h2-path-up",
        why="normalised as in HTTP/1.1",
        fields=_fields(method=b"GET", path=b"/a/../secret"),
        outcomes=_CARRIED,
        seen=(Seen("GET", "/secret"),),
    ),
    StreamCase(
        name="h2-path-slashes",
        why="normalised as in HTTP/1.1",
        fields=_fields(method=b"GET", path=b"//secret"),
        outcomes=_CARRIED,
        seen=(Seen("GET", "/secret"),),
    ),
    StreamCase(
        name="h2-underscore",
        why="a name that CGI cannot tell from the other",
        fields=_fields((b"content_length", b"5"), method=b"GET"),
        outcomes=_ANY,
        seen=(_GET,),
    ),
    StreamCase(
        name="h2-value-spaces",
        why="white space around a value",
        fields=_fields((b"x-a", b" b "), method=b"GET"),
        outcomes=_ANY,
        seen=(_GET,),
    ),
    StreamCase(
        name="h2-options-star",
        why="about the server",
        fields=_fields(method=b"OPTIONS", path=b"*"),
        outcomes=_ANY,
        seen=(Seen("OPTIONS", "*"),),
    ),
]
