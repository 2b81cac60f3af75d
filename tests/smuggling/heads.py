"""Where does a line end, and what is a name? Request lines and header lines, RFC 9112 sections 2, 3 and 5."""

from __future__ import annotations

from tests.smuggling.case import HOST, Case, Seen, carried, either, refused, request, turned_away

_GET = Seen("GET", "/case")


def _get(lines: bytes = b"") -> bytes:
    return request(lines, method=b"GET")


def _start(line: bytes) -> bytes:
    """A request with that line, which brings its own end."""
    return b"%sHost: %s\r\n\r\n" % (line, HOST)


_ODD_STARTS = (
    ("two-spaces", b"GET  /case HTTP/1.1\r\n", "which word is the target?"),
    ("two-spaces-version", b"GET /case  HTTP/1.1\r\n", "which word is the version?"),
    ("tab", b"GET\t/case HTTP/1.1\r\n", "a tab for a space"),
    ("tab-version", b"GET /case\tHTTP/1.1\r\n", "a tab for a space"),
    ("vertical-tab", b"GET\x0b/case HTTP/1.1\r\n", "a vertical tab for a space"),
    ("space-before", b" GET /case HTTP/1.1\r\n", "a space before the method"),
    ("space-after", b"GET /case HTTP/1.1 \r\n", "a space after the version"),
    ("word-after", b"GET /case HTTP/1.1 x\r\n", "a fourth word"),
    ("space-in-target", b"GET /case HTTP/1.1 /hidden HTTP/1.1\r\n", "two versions: which one ends the target?"),
    ("bare-lf", b"GET /case HTTP/1.1\n", "a bare LF"),
    ("bare-cr", b"GET /case HTTP/1.1\r", "a bare CR"),
    ("two-cr", b"GET /case HTTP/1.1\r\r\n", "one CR too many"),
    ("cr-in-target", b"GET /ca\rse HTTP/1.1\r\n", "a bare CR in the target"),
    ("lf-in-target", b"GET /ca\nse HTTP/1.1\r\n", "a bare LF in the target"),
    ("nul-in-target", b"GET /case\x00 HTTP/1.1\r\n", "a NUL in the target"),
    ("delete-in-target", b"GET /case\x7f HTTP/1.1\r\n", "a control character in the target"),
    ("control-in-target", b"GET /case\x01 HTTP/1.1\r\n", "a control character in the target"),
    ("nul-in-method", b"GE\x00T /case HTTP/1.1\r\n", "a NUL in the method"),
    ("no-version", b"GET /case\r\n", "HTTP/0.9, which has no headers"),
    ("version-0.9", b"GET /case HTTP/0.9\r\n", "no such version has this form"),
    ("version-2.0", b"GET /case HTTP/2.0\r\n", "HTTP/2 has no request line"),
    ("version-3.0", b"GET /case HTTP/3.0\r\n", "HTTP/3 has none either"),
    ("version-lower", b"GET /case http/1.1\r\n", "the name has case"),
    ("version-short", b"GET /case HTTP/1\r\n", "no minor version"),
    ("version-zeros", b"GET /case HTTP/01.1\r\n", "more digits than one"),
    ("version-10", b"GET /case HTTP/1.10\r\n", "more digits than one"),
    ("version-plus", b"GET /case HTTP/1.+1\r\n", "a sign"),
    ("version-name", b"GET /case HTTPS/1.1\r\n", "another protocol"),
    ("version-space", b"GET /case HTTP /1.1\r\n", "a space in the version"),
    ("method-lower", b"get /case HTTP/1.1\r\n", "methods have case, and this one is none"),
    ("method-colon", b"GET: /case HTTP/1.1\r\n", "no token"),
    ("method-empty", b" /case HTTP/1.1\r\n", "no method"),
    ("target-empty", b"GET HTTP/1.1\r\n", "no target"),
    ("only-version", b"HTTP/1.1\r\n", "no request at all"),
    ("response", b"HTTP/1.1 200 OK\r\n", "a response where a request belongs"),
    ("preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "the preface of HTTP/2, not quite"),
)
_ODD_LINES = (
    ("bare-lf", b"X-A: b\nX-B: c\r\n", "a bare LF between two lines"),
    ("bare-cr", b"X-A: b\rX-B: c\r\n", "a bare CR between two lines"),
    ("bare-cr-end", b"X-A: b\r", "a bare CR before the empty line"),
    ("two-cr", b"X-A: b\r\r\n", "one CR too many"),
    ("lf-cr", b"X-A: b\n\r\n", "an empty line that ends the head for some"),
    ("nul", b"X-A: b\x00c\r\n", "a NUL in the value"),
    ("control", b"X-A: b\x01c\r\n", "a control character in the value"),
    ("delete", b"X-A: b\x7fc\r\n", "a control character in the value"),
    ("no-colon", b"X-A\r\n", "no colon"),
    ("no-name", b": b\r\n", "no name"),
    ("space-colon", b"X-A : b\r\n", "a space before the colon"),
    ("tab-colon", b"X-A\t: b\r\n", "a tab before the colon"),
    ("space-in-name", b"X A: b\r\n", "a space within the name"),
    ("folded", b"X-A: b\r\n c\r\n", "obs-fold"),
    ("folded-tab", b"X-A: b\r\n\tc\r\n", "obs-fold with a tab"),
    ("folded-empty", b"X-A: b\r\n \r\n", "a line of white space only"),
    ("name-nul", b"X\x00A: b\r\n", "a NUL in the name"),
    ("name-slash", b"X/A: b\r\n", "no token"),
    ("name-parentheses", b"X(A): b\r\n", "no token"),
    ("name-quotes", b'"X-A": b\r\n', "no token"),
    ("name-at", b"X@A: b\r\n", "no token"),
    ("name-comma", b"X,A: b\r\n", "no token"),
    ("name-latin", b"X-\xe9: b\r\n", "no ASCII"),
    ("name-utf-8", "X-\u212a: b\r\n".encode(), "a letter whose lower case is an ASCII k"),
    ("name-delete", b"X\x7fA: b\r\n", "a control character in the name"),
    ("name-vertical-tab", b"\x0bX-A: b\r\n", "a vertical tab before the name"),
    ("request-line", b"GET /hidden HTTP/1.1\r\n", "a request line among the headers"),
)
_OVERSIZED = (
    ("too-many-bytes", b"X-A: %s\r\n" % (b"a" * 70_000), "more than 60 KiB"),
    ("too-long-name", b"%s: a\r\n" % (b"a" * 70_000), "a name of more than 60 KiB"),
    ("never-ending", b"X-A: b\r\n" * 20_000, "lines without end"),
)


CASES: list[Case] = [
    *(refused(f"start-{name}", why, _start(line)) for name, line, why in _ODD_STARTS),
    *(refused(f"line-{name}", why, _get(line)) for name, line, why in _ODD_LINES),
    *(refused(f"head-{name}", why, _get(line)) for name, line, why in _OVERSIZED),
    refused("line-first-folded", "a fold of nothing", b"GET /case HTTP/1.1\r\n Host: a.test\r\n\r\n"),
    refused(
        "line-first-space", "white space after the request line", b"GET /case HTTP/1.1\r\n \r\nHost: a.test\r\n\r\n"
    ),
    refused("head-all-bare-lf", "no CR at all", b"GET /case HTTP/1.1\nHost: a.test\n\n"),
    refused("head-all-bare-cr", "no LF at all", b"GET /case HTTP/1.1\rHost: a.test\r\r"),
    refused("head-http-1.0", "no Host, no chunks, no keep-alive: 426", b"GET /case HTTP/1.0\r\nHost: a.test\r\n\r\n"),
    refused("head-long-target", "a target of more than 60 KiB", _start(b"GET /%s HTTP/1.1\r\n" % (b"a" * 70_000))),
    refused("method-long", "a method without end", _start(b"%s /case HTTP/1.1\r\n" % (b"A" * 70_000))),
    either("start-version-1.2", "a minor version to come", _start(b"GET /case HTTP/1.2\r\n"), _GET),
    either("start-after-crlf", "an empty line before it (RFC 9112 section 2.2)", b"\r\n" + _get(), _GET),
    either("start-after-lf", "a bare LF before it", b"\n" + _get(), _GET),
    either("start-after-many", "empty lines", b"\r\n" * 20 + _get(), _GET),
    either("line-latin-value", "obs-text", _get(b"X-A: \xe9\xff\r\n"), _GET),
    carried("line-empty-value", "no value", _get(b"X-A:\r\n"), _GET),
    carried("line-token-name", "every character of a token", _get(b"!#$%&'*+-.^`|~1aZ: b\r\n"), _GET),
    either("line-underscore", "an underscore", _get(b"X_A: b\r\n"), _GET),
    carried("line-colons", "colons in the value", _get(b"X-A: b: c: Host: d\r\n"), _GET),
    turned_away("method-unknown", "no method that anyone knows", request(method=b"HIDDEN")),
    either("method-trace", "shows what was forwarded", request(method=b"TRACE"), Seen("TRACE", "/case")),
    turned_away("method-connect", "asks for a tunnel", _start(b"CONNECT a.test:443 HTTP/1.1\r\n")),
    turned_away("method-connect-path", "asks for a tunnel, to a path", _start(b"CONNECT /case HTTP/1.1\r\n")),
]
