"""Whose request is it? Host and the forms of a target, RFC 9112 sections 3.2 and 3.3."""

from __future__ import annotations

from tests.smuggling.case import Case, Seen, carried, either, turned_away

_GET = Seen("GET", "/case")


def _with(target: bytes, *hosts: bytes, method: bytes = b"GET") -> bytes:
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (method, target, b"".join(b"Host: %s\r\n" % host for host in hosts))


_ODD_HOSTS = (
    ("path", b"a.test/b", "a path"),
    ("query", b"a.test?b", "a query"),
    ("fragment", b"a.test#b", "a fragment"),
    ("user", b"user@a.test", "user information"),
    ("space", b"a.test b.test", "two names"),
    ("comma", b"a.test, b.test", "a list"),
    ("backslash", b"a.test\\b", "what some take for a slash"),
    ("two-ports", b"a.test:80:81", "two ports"),
    ("word-port", b"a.test:b", "a port that is no number"),
    ("minus-port", b"a.test:-1", "a negative port"),
    ("open-bracket", b"[::1", "half an address"),
    ("close-bracket", b"::1]", "the other half"),
    ("after-bracket", b"[::1]b", "something after the address"),
    ("angle", b"<a.test>", "no character of a name"),
    ("quote", b'a".test', "no character of a name"),
    ("braces", b"{a.test}", "no character of a name"),
)
_ODD_TARGETS = (
    ("no-slash", b"case", "neither a path nor a URI"),
    ("other-scheme", b"ftp://a.test/case", "another scheme"),
    ("no-scheme", b"://a.test/case", "no scheme"),
    ("one-slash", b"http:/case", "no authority"),
    ("no-authority", b"http:///case", "an empty authority"),
    ("user", b"http://user@a.test/case", "user information"),
    ("odd-authority", b"http://a.test:b/case", "a port that is no number"),
    ("javascript", b"javascript:alert(1)", "a URI without authority"),
    ("star", b"*", "for OPTIONS alone"),
    ("star-path", b"*/case", "neither"),
    ("authority", b"a.test:80", "for CONNECT alone"),
    ("question", b"?case", "a query without a path"),
    ("backslash", b"\\case", "what some take for a slash"),
    ("fragment", b"/case#hidden", "a fragment is never sent"),
    ("fragment-first", b"#hidden", "nothing but a fragment"),
    ("latin", b"/\xe9", "no ASCII"),
    ("bare-percent", b"/100%", "a percent sign that begins nothing"),
    ("bad-percent", b"/%zz", "no hexadecimal digits"),
    ("percent-nul", b"/case%00", "a NUL once decoded"),
)

CASES: list[Case] = [
    turned_away("host-none", "no Host", _with(b"/case")),
    turned_away("host-two", "two of them", _with(b"/case", b"a.test", b"b.test")),
    turned_away("host-twice", "the same twice (RFC 9112 section 3.2)", _with(b"/case", b"a.test", b"a.test")),
    turned_away("host-line-folded", "obs-fold", _with(b"/case", b"\r\n a.test")),
    turned_away("host-space-colon", "a space before the colon", b"GET /case HTTP/1.1\r\nHost : a.test\r\n\r\n"),
    turned_away("host-nul", "a NUL in it", _with(b"/case", b"a\x00.test")),
    *(turned_away(f"host-{name}", why, _with(b"/case", host)) for name, host, why in _ODD_HOSTS),
    *(turned_away(f"target-{name}", why, _with(target, b"a.test")) for name, target, why in _ODD_TARGETS),
    either("host-empty", "of no authority", _with(b"/case", b""), _GET),
    either("host-percent", "a percent-encoded name", _with(b"/case", b"%61.test"), _GET),
    either("host-underscore", "a name that DNS would not have", _with(b"/case", b"a_b.test"), _GET),
    either("host-big-port", "a port beyond 65535", _with(b"/case", b"a.test:99999"), _GET),
    either("host-empty-port", "a colon and no port", _with(b"/case", b"a.test:"), _GET),
    either("host-dot", "a name with a dot at its end", _with(b"/case", b"a.test."), _GET),
    carried("host-port", "with a port", _with(b"/case", b"a.test:8080"), _GET),
    carried("host-upper", "in upper case", _with(b"/case", b"A.TEST"), _GET),
    carried("host-address", "an IPv6 address", _with(b"/case", b"[::1]:80"), _GET),
    carried("absolute", "a whole URI", _with(b"http://a.test/case", b"a.test"), _GET),
    either("absolute-https", "a whole URI", _with(b"https://a.test/case", b"a.test"), _GET),
    either("absolute-upper", "schemes and names have no case", _with(b"HTTP://A.TEST/case", b"a.test"), _GET),
    either("absolute-differs", "the URI names one host, Host another", _with(b"http://b.test/case", b"a.test"), _GET),
    turned_away("absolute-no-host", "Host is needed all the same", _with(b"http://a.test/case")),
    turned_away("absolute-two-hosts", "Host is one, all the same", _with(b"http://a.test/case", b"a.test", b"b.test")),
    either("absolute-no-path", "the path is /", _with(b"http://a.test", b"a.test"), Seen("GET", "/")),
    either("absolute-query", "the path is /", _with(b"http://a.test?b=c", b"a.test"), Seen("GET", "/?b=c")),
    turned_away("absolute-fragment", "a fragment is never sent", _with(b"http://a.test/case#b", b"a.test")),
    either("options-star", "about the server", _with(b"*", b"a.test", method=b"OPTIONS"), Seen("OPTIONS", "*")),
]
