"""A permission matches as a slow model does that reads Consul's rule word by word, and where a request can be read in
more than one way the reading against the caller counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from fuzz.draw import Draw
from proxy.http.message import Headers, RequestHead, Version
from proxy.http.policy.asked import Asked
from proxy.http.policy.permissions import compile_permissions
from proxy.http.policy.readings import readings
from proxy.rules import Action, HeaderMatch, Match, Permission

CODE = ("proxy.http.policy.permissions", "proxy.http.policy.asked", "proxy.http.policy.readings")

_VALUE_MATCHES = (Match.EXACT, Match.PREFIX, Match.SUFFIX, Match.CONTAINS)
_WORDS = ("", "a", "b", "ab", "ba", "B", "aB")
_PATHS = ("/", "/a", "/a/", "/a/b", "/b")


def run(data: bytes) -> None:
    draw = Draw(data)
    if draw.below(8) == 0:
        _any_expression(draw)
        return
    permissions = [_permission(draw) for _ in range(1 + draw.below(4))]
    headers: Headers = [
        (draw.choice((b"h", b"k", b"cookie")), draw.choice(_WORDS).encode()) for _ in range(draw.below(4))
    ]
    target = draw.choice(_PATHS).encode() + draw.choice((b"", b"?/b", b";x", b"%3Bx", b"%2Fb", b"/;y/b"))
    head = RequestHead(draw.choice((b"GET", b"PUT", b"get")), target, b"api", Version.HTTP_1_1, headers)
    asked = Asked(head)
    for permission, compiled in zip(permissions, compile_permissions(permissions), strict=True):
        assert compiled.unusable == ""
        held = [_holds(permission, *reading) for reading in _readings(head)]
        found = compiled.matches(asked)
        if permission.action is Action.ALLOW:
            assert not found or all(held)
        else:
            assert found or not any(held)
        if len(held) == 1 and len(head.values(b"cookie")) < 2 and not _inverted_and_absent(permission, headers):
            assert found is held[0]


def _permission(draw: Draw) -> Permission:
    return Permission(
        action=draw.choice((Action.ALLOW, Action.DENY)),
        path=draw.choice((Match.ANY, Match.EXACT, Match.PREFIX)),
        path_value=draw.choice(_PATHS),
        methods=draw.choice(((), ("GET",), ("PUT", "POST"))),
        headers=tuple(_header(draw) for _ in range(draw.below(3))),
    )


def _header(draw: Draw) -> HeaderMatch:
    name, invert = draw.choice(("h", "k", "cookie")), draw.truth()
    if draw.below(4) == 0:
        return HeaderMatch(name, Match.PRESENT, invert=invert)
    return HeaderMatch(name, draw.choice(_VALUE_MATCHES), draw.choice(_WORDS), draw.truth(), invert)


def _readings(head: RequestHead) -> Iterator[tuple[bytes, bytes, dict[str, str]]]:
    """Each has one path, and each header once."""
    paths = readings(head.target.partition(b"?")[0])
    names = sorted({name for name, _ in head.headers})
    taken = []
    for name in names:
        values = head.values(name)
        # Cookies in pieces are one header; a denial also looks at the pieces.
        taken.append([b"; ".join(values)] if name == b"cookie" else values)
    for path in dict.fromkeys(paths):
        for each in itertools.product(*taken):
            found = {name.decode(): value.decode() for name, value in zip(names, each, strict=True)}
            yield head.method, path, found


def _holds(permission: Permission, method: bytes, path: bytes, headers: dict[str, str]) -> bool:
    if permission.methods and method.decode() not in permission.methods:
        return False
    value = permission.path_value.encode()
    if permission.path is Match.EXACT and path != value:
        return False
    if permission.path is Match.PREFIX and path[: len(value)] != value:
        return False
    return all(_header_holds(header, headers.get(header.name)) for header in permission.headers)


def _header_holds(header: HeaderMatch, found: str | None) -> bool:
    if header.match is Match.PRESENT:
        return (found is None) is header.invert
    if found is None:
        return False
    wanted = header.value
    if header.ignore_case:
        found, wanted = found.lower(), wanted.lower()
    held = {
        Match.EXACT: found == wanted,
        Match.PREFIX: found[: len(wanted)] == wanted,
        Match.SUFFIX: not wanted or found[-len(wanted) :] == wanted,
        Match.CONTAINS: found.find(wanted) >= 0,
    }[header.match]
    return held is not header.invert


def _inverted_and_absent(permission: Permission, headers: Headers) -> bool:
    """Where this gateway and Consul differ on purpose, of a denial."""
    names = {name.decode() for name, _ in headers}
    return any(one.invert and one.match is not Match.PRESENT and one.name not in names for one in permission.headers)


def _any_expression(draw: Draw) -> None:
    """Whatever an operator writes and a client sends, there is an answer."""
    pattern, path, value = draw.text(), draw.take(draw.below(40)), draw.rest()
    header = HeaderMatch("h", Match.REGEX, pattern, draw.truth(), draw.truth())
    head = RequestHead(b"GET", b"/" + path, b"api", Version.HTTP_1_1, [(b"h", value)])
    for action in Action:
        for permission in (Permission(action, Match.REGEX, pattern), Permission(action, headers=(header,))):
            (compiled,) = compile_permissions([permission])
            if not compiled.unusable:
                compiled.matches(Asked(head))
