"""What is for this connection alone: pipelines, upgrades, expectations, ``Connection`` itself, early answers."""

from __future__ import annotations

from tests.smuggling.case import HIDDEN, Case, Seen, carried, either, refused, request, turned_away

_GET, _POST = Seen("GET", "/case"), Seen("POST", "/case", b"hello")
_FIVE = b"Content-Length: 5\r\n"
_UPGRADE = b"Connection: Upgrade\r\nUpgrade: %s\r\n"


def _get(lines: bytes = b"", target: bytes = b"/case") -> bytes:
    return request(lines, method=b"GET", target=target)


def _named(name: bytes, lines: bytes = b"", body: bytes = b"") -> bytes:
    """``Connection`` names another header."""
    return request(b"Connection: %s\r\n%s" % (name, lines), body)


CASES: list[Case] = [
    # Pipelines
    carried("pipeline", "three of them", _get() * 3, _GET, _GET, _GET),
    carried(
        "pipeline-bodies",
        "with bodies of each kind",
        request(_FIVE, b"hello")
        + _get()
        + request(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n")
        + _get(),
        *(_POST, _GET, _POST, _GET),
    ),
    carried("pipeline-long", "twenty", _get() * 20, *[_GET] * 20),
    carried(
        "pipeline-head",
        "a response without its body, then one with",
        request(method=b"HEAD") + _get(),
        Seen("HEAD", "/case"),
        _GET,
    ),
    carried(
        "pipeline-304", "304 has no body", _get(target=b"/not-modified") + _get(), Seen("GET", "/not-modified"), _GET
    ),
    carried("pipeline-204", "204 has no body", _get(target=b"/no-content") + _get(), Seen("GET", "/no-content"), _GET),
    carried(
        "pipeline-then-bad",
        "what came before is served",
        _get() + b"GET /case HTTP/1.1\r\nHost: a.test\r\nX-A : b\r\n\r\n",
        _GET,
        marker_served=False,
    ),
    carried(
        "early-answer",
        "an answer before the body is there",
        request(_FIVE, b"hello", target=b"/early"),
        Seen("POST", "/early", b"hello"),
    ),
    carried(
        "early-hidden",
        "what is still to come is a body, not a request",
        request(b"Content-Length: %d\r\n" % len(HIDDEN), HIDDEN, target=b"/early"),
        Seen("POST", "/early", HIDDEN),
    ),
    carried("close", "the last one", _get(b"Connection: close\r\n"), _GET, marker_served=False),
    carried("close-upper", "options have no case", _get(b"Connection: CLOSE\r\n"), _GET, marker_served=False),
    carried("close-in-list", "among others", _get(b"Connection: x, close\r\n"), _GET, marker_served=False),
    carried("keep-alive", "both said", _get(b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n"), _GET),
    either(
        "close-body",
        "the last one, with a body",
        request(b"Connection: close\r\n" + _FIVE, b"hello"),
        _POST,
        marker_served=False,
    ),
    # Headers that Connection names are dropped (RFC 9110 section 7.6.1): never those that frame or route
    either("connection-host", "takes Host out", _named(b"Host"), Seen("POST", "/case")),
    either("connection-length", "takes the length out", _named(b"Content-Length", _FIVE, b"hello"), _POST),
    either(
        "connection-coding",
        "takes the coding out",
        _named(b"Transfer-Encoding", b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        _POST,
    ),
    carried("connection-other", "takes another one out", _named(b"X-A", b"X-A: b\r\n"), Seen("POST", "/case")),
    either(
        "connection-caller",
        "takes out who is calling",
        _named(b"X-Forwarded-Client-Cert", b"X-Forwarded-Client-Cert: Hash=00\r\n"),
        Seen("POST", "/case"),
    ),
    carried("caller", "says who is calling", _get(b"X-Forwarded-Client-Cert: By=x;URI=spiffe://x/svc/admin\r\n"), _GET),
    carried(
        "caller-underscores", "says so for CGI", _get(b"X_Forwarded_Client_Cert: URI=spiffe://x/svc/admin\r\n"), _GET
    ),
    carried("caller-twice", "says so in two lines", _get(b"X-Forwarded-Client-Cert: URI=spiffe://x\r\n" * 2), _GET),
    either("connection-odd", "no token", _get(b"Connection: \x22x\x22, ;\r\n"), _GET),
    either("proxy-connection", "never was a header of HTTP", _get(b"Proxy-Connection: keep-alive\r\n"), _GET),
    # Upgrades: nothing is a tunnel before the back end has said 101
    either("upgrade-websocket", "the back end does not", _get(_UPGRADE % b"websocket"), _GET, marker_served=None),
    either("upgrade-h2c", "never to HTTP/2", _get(_UPGRADE % b"h2c" + b"HTTP2-Settings: AAMAAABk\r\n"), _GET),
    either("upgrade-tls", "never to TLS", _get(_UPGRADE % b"TLS/1.0"), _GET, marker_served=None),
    either("upgrade-unnamed", "Connection does not name it", _get(b"Upgrade: websocket\r\n"), _GET),
    either(
        "upgrade-body", "with a body", request(_UPGRADE % b"websocket" + _FIVE, b"hello"), _POST, marker_served=None
    ),
    either(
        "upgrade-hidden",
        "a body that looks like a request",
        request(_UPGRADE % b"websocket" + b"Content-Length: %d\r\n" % len(HIDDEN), HIDDEN),
        Seen("POST", "/case", HIDDEN),
        marker_served=None,
    ),
    either("upgrade-list", "several protocols", _get(_UPGRADE % b"h2c, websocket"), _GET, marker_served=None),
    # Expectations
    carried("expect", "the body comes without waiting", request(b"Expect: 100-continue\r\n" + _FIVE, b"hello"), _POST),
    carried("expect-no-body", "nothing to wait for", _get(b"Expect: 100-continue\r\n"), _GET),
    either("expect-upper", "expectations have no case", request(b"Expect: 100-CONTINUE\r\n" + _FIVE, b"hello"), _POST),
    turned_away("expect-other", "an expectation that nobody knows", _get(b"Expect: 200-ok\r\n")),
    either("expect-twice", "two lines", request(b"Expect: 100-continue\r\n" * 2 + _FIVE, b"hello"), _POST),
    either(
        "expect-hidden",
        "the body looks like a request",
        request(b"Expect: 100-continue\r\nContent-Length: %d\r\n" % len(HIDDEN), HIDDEN),
        Seen("POST", "/case", HIDDEN),
    ),
    # TE and others that are for one hop
    carried("te-trailers", "trailers are welcome", _get(b"TE: trailers\r\n"), _GET),
    either("te-chunked", "not about the request", _get(b"TE: chunked, gzip;q=0.5\r\n"), _GET),
    either("trailer-announced", "a length among the trailers", _get(b"Trailer: Content-Length\r\n"), _GET),
    either(
        "method-override", "not for us to read", request(b"X-HTTP-Method-Override: DELETE\r\n"), Seen("POST", "/case")
    ),
    either("other-path", "not for us to read", _get(b"X-Original-URL: /secret\r\nX-Rewrite-URL: /secret\r\n"), _GET),
    either("forwarded-host", "not for us to read", _get(b"X-Forwarded-Host: b.test\r\n"), _GET),
    refused("websocket-frames", "frames where a request belongs", b"\x81\x85\x00\x00\x00\x00hello\r\n\r\n"),
    refused("tls-again", "a ClientHello where a request belongs", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n"),
    refused("only-crlf", "empty lines without end", b"\r\n" * 40_000),
]
