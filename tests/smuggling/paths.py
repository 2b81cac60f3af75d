"""Which path is it? What is decided about must be what a back end opens: CVE-2024-10005.

``seen`` is the path after normalisation with the defaults of the mesh entry, which are the secure ones.
"""

from __future__ import annotations

from tests.smuggling.case import Case, Seen, carried, either, request, turned_away

_NORMALISED = (
    ("plain", "/a/b", "/a/b", "the plain case"),
    ("dot", "/a/./b", "/a/b", "a segment that is a dot"),
    ("dot-dot", "/a/../secret", "/secret", "a segment that goes up"),
    ("dot-dot-end", "/a/b/..", "/a/", "at the end"),
    ("dot-end", "/a/.", "/a/", "at the end"),
    ("above-root", "/../../secret", "/secret", "above the root"),
    ("many-up", "/a/b/c/../../../secret", "/secret", "several"),
    ("encoded-dots", "/a/%2e%2e/secret", "/secret", "percent-encoded dots"),
    ("encoded-dots-upper", "/a/%2E%2E/secret", "/secret", "percent-encoded dots, in upper case"),
    ("half-encoded", "/a/.%2e/secret", "/secret", "one of them encoded"),
    ("encoded-dot", "/a/%2e/b", "/a/b", "a percent-encoded dot"),
    ("slashes", "//secret", "/secret", "two slashes"),
    ("slashes-within", "/a//b///c", "/a/b/c", "several"),
    (
        "slashes-dots",
        "/a//../secret",
        "/a/secret",
        "an empty segment, then up: dots come first (RFC 3986 section 5.2.4)",
    ),
    ("encoded-letter", "/%73ecret", "/secret", "a percent-encoded letter"),
    ("encoded-word", "/%73%65%63%72%65%74", "/secret", "a percent-encoded word"),
    ("encoded-tilde", "/%7euser", "/~user", "a percent-encoded tilde"),
    ("encoded-question", "/a%3fb", "/a%3Fb", "a question mark of the path stays encoded, in upper case"),
    ("utf-8", "/%e2%82%ac", "/%E2%82%AC", "other than ASCII stays encoded, in upper case"),
)
_KEPT = (
    ("query-dots", "/a?b=/../c", "a query is no path"),
    ("query-encoded", "/a?b=%2e%2e%2fc", "a query stays encoded"),
    ("query-slashes", "/a?b=//c", "a query keeps its slashes"),
    ("query-question", "/a?b?c", "a second question mark"),
    ("three-dots", "/a/.../b", "a name"),
    ("dots-name", "/a/..b", "a name"),
    ("encoded-space", "/a%20b", "a space stays encoded"),
    ("encoded-hash", "/a%23b", "a hash of the path stays encoded"),
    ("plus", "/a+b", "a plus sign is no space"),
    ("colon", "/a:b", "a colon in a segment"),
)
_ODD = (
    ("encoded-slash-up", "/a/..%2fsecret", "goes up for some"),
    ("encoded-backslash-up", "/a/..%5csecret", "goes up for some"),
    ("percent-u", "/a/%u002e%u002e/b", "an encoding of some servers"),
)
_EITHER = (
    ("encoded-slash", "/a%2fb", "a slash for some, a name for others", "/a%2Fb"),
    ("encoded-backslash", "/a%5cb", "a slash for some", "/a%5Cb"),
    ("backslash", "/a\\b", "a slash for some", "/a/b"),
    ("backslash-up", "/a\\..\\secret", "goes up for some", "/secret"),
    ("parameter-up", "/a/..;/secret", "up for servers that take off parameters", "/a/..;/secret"),
    ("parameter-name", "/a;b=c/d", "a parameter of a segment", "/a;b=c/d"),
    ("encoded-percent", "/a%252fb", "encoded twice: once decoded it is %2f", "/a%252fb"),
    ("encoded-twice-dots", "/a/%252e%252e/b", "encoded twice: once decoded it is %2e%2e", "/a/%252e%252e/b"),
    ("encoded-cr-lf", "/a%0d%0ab", "a line end once decoded", "/a%0D%0Ab"),
    ("over-long", "/a/%c0%ae%c0%ae/b", "dots for a decoder that takes over-long UTF-8", "/a/%C0%AE%C0%AE/b"),
    ("over-long-slash", "/a%c0%afb", "a slash for such a decoder", "/a%C0%AFb"),
    ("brackets", "/a[b]", "not allowed in a path, and sent all the same", "/a[b]"),
    ("pipe", "/a|b", "not allowed in a path, and sent all the same", "/a|b"),
    ("quotes", '/a"b', "not allowed in a path", '/a"b'),
    ("angle", "/a<b>", "not allowed in a path", "/a<b>"),
    ("caret", "/a^b", "not allowed in a path", "/a^b"),
)


def _get(target: str) -> bytes:
    return request(method=b"GET", target=target.encode())


CASES: list[Case] = [
    *(carried(f"path-{name}", why, _get(sent), Seen("GET", seen)) for name, sent, seen, why in _NORMALISED),
    *(carried(f"path-{name}", why, _get(sent), Seen("GET", sent)) for name, sent, why in _KEPT),
    *(turned_away(f"path-{name}", why, _get(sent)) for name, sent, why in _ODD),
    *(either(f"path-{name}", why, _get(sent), Seen("GET", seen)) for name, sent, why, seen in _EITHER),
]
