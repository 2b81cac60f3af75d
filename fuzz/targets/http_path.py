"""A request target has one form or is refused, and what any server makes of that form is reached neither past a denial
nor by the allowance of another path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from fuzz.draw import Draw
from proxy.http.errors import BadRequest
from proxy.http.message import RequestHead, Version
from proxy.http.policy.asked import Asked
from proxy.http.policy.normalization import Elsewhere, normalized
from proxy.http.policy.permissions import compile_permissions
from proxy.rules import Action, EscapedSlashes, Match, Normalization, Permission

CODE = ("proxy.http.policy.normalization", "proxy.http.policy.readings", "proxy.http.policy.permissions")

_PIECES = (
    b"/", b"//", b".", b"..", b"%2e", b"%2F", b"%2f", b"%5C", b"\\", b";", b"%3b", b"%25", b"2e", b"2f", b"secret",
    b"public", b"s", b"%73", b"ecret", b"x", b"?", b"%", b"%00", b"\xe9", b"%c3%a9", b"=", b"%3D",
)  # fmt: skip

_DENIES = compile_permissions(
    [
        Permission(Action.DENY, Match.EXACT, "/secret"),
        Permission(Action.DENY, Match.PREFIX, "/secret"),
        Permission(Action.DENY, Match.REGEX, "/secret(/.*)?"),
    ]
)
_ALLOWS = compile_permissions(
    [Permission(Action.ALLOW, Match.PREFIX, "/public/"), Permission(Action.ALLOW, Match.REGEX, "/public/.*")]
)


def run(data: bytes) -> None:
    draw = Draw(data)
    how = Normalization(
        dot_segments=draw.below(4) > 0,
        merge_slashes=draw.below(4) > 0,
        escaped_slashes=draw.choice(tuple(EscapedSlashes)),
    )
    raw = draw.truth()
    target = b"/" + (draw.rest() if raw else b"".join(draw.choice(_PIECES) for _ in range(min(draw.left, 40))))
    try:
        form = normalized(target, how)
    except BadRequest:
        return
    except Elsewhere as moved:
        form = moved.target
        assert form[1:2] not in (b"/", b"\\")
    assert normalized(form, how) == form
    path = form.partition(b"?")[0]
    if how.dot_segments:
        assert not re.search(rb"/\.\.?(?:/|\Z)|\\|[^\x21-\x7e]", path)
    asked = Asked(RequestHead(b"GET", form, b"api", Version.HTTP_1_1))
    exact, prefix, expression = (permission.matches(asked) for permission in _DENIES)
    for reached in _reached(path):
        if reached == b"/secret":
            assert exact, (form, reached)
            assert expression, (form, reached)
        if reached.startswith(b"/secret"):
            assert prefix, (form, reached)
        if not reached.startswith(b"/public/"):
            assert not any(permission.matches(asked) for permission in _ALLOWS), (form, reached)


def _reached(path: bytes) -> Iterator[bytes]:
    """What servers make of it: of those that decode, drop parameters, or both in either order, once or twice."""
    steps: tuple[tuple[Callable[[bytes], bytes], ...], ...] = (
        (), (_decode,), (_strip,), (_decode, _strip), (_strip, _decode), (_decode, _decode),
    )  # fmt: skip
    for chain in steps:
        found = path
        for step in chain:
            found = step(found)
        yield _resolve(found) if chain else path


def _decode(path: bytes) -> bytes:
    return re.sub(rb"%([0-9a-fA-F]{2})", lambda escape: bytes.fromhex(escape[1].decode()), path)


def _strip(path: bytes) -> bytes:
    return b"/".join(segment.partition(b";")[0] for segment in path.split(b"/"))


def _resolve(path: bytes) -> bytes:
    """As nginx does: repeated slashes are one, then the segments are walked."""
    walked: list[bytes] = []
    segments = [segment for segment in path.replace(b"\\", b"/").split(b"/") if segment]
    for segment in segments:
        if segment == b"..":
            walked = walked[:-1]
        elif segment != b".":
            walked.append(segment)
    is_folder = path.endswith((b"/", b"\\")) or (bool(segments) and segments[-1] in (b".", b".."))
    return b"/" + b"/".join(walked) + (b"/" if is_folder and walked else b"")
