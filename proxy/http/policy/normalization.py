"""One way to write a path: what is decided about is what is forwarded, byte for byte.

Many ways to write one path are how a rule about it is passed (Consul CVE-2024-10005). A target is brought into one form
before anything looks at it: dot segments removed (RFC 3986 section 5.2.4), percent-encoded unreserved characters
decoded and other escapes in upper case (section 6.2.2), backslashes turned round, repeated slashes merged. A path
parameter (``;x``) and the query stay as they are. What an external service may still read in two ways (an escaped
slash, a path parameter) is the business of :mod:`proxy.http.policy.readings`.
"""

from __future__ import annotations

import re

from proxy.http.errors import BadRequest
from proxy.http.message import Headers
from proxy.rules import EscapedSlashes, Normalization, Underscores

_FORBIDDEN = re.compile(rb"[\x00-\x20#\x7f]")
"""In a request target: it would end the request line, or begin a fragment, which is never sent (RFC 9112 3.2)."""
_TO_DO = re.compile(rb"[%\\\x80-\xff]|//|/\.")
"""A path without any of these is in the one form."""
_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")
_ESCAPED_SLASH = re.compile(rb"%2[Ff]|%5[Cc]")
_NO_URI_CHARACTER = re.compile(rb"[\x00-\x20\x7f-\xff]")
_HIDDEN_DOTS = re.compile(rb"(?:/|%2F|%5C)\.\.?(?:/|%2F|%5C|;|%3B|\Z)", re.IGNORECASE)
"""In the one form: dot segments to those who decode slashes or drop path parameters first. No client needs them."""
_SLASHES = re.compile(rb"//+")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Elsewhere(Exception):
    """The client is to come back with ``target`` (307): ``PathWithEscapedSlashesAction`` of the mesh says so."""

    def __init__(self, target: bytes) -> None:
        super().__init__("the path has escaped slashes")
        self.target = target


def normalized(target: bytes, how: Normalization) -> bytes:
    """Return the target (``/path?query``, or ``*``) in the one form, which is decided about and forwarded.

    :raises BadRequest: for a target that has no form that everybody reads alike.
    :raises Elsewhere: when the client has to ask with another target first.
    """
    if _FORBIDDEN.search(target):
        raise BadRequest(400, "the request target has a control character, a space or a fragment in it")
    if target == b"*":
        return target
    if not target.startswith(b"/"):
        raise BadRequest(400, "the request target does not begin with a slash")
    path, mark, query = target.partition(b"?")
    if _TO_DO.search(path) is None:
        return target
    path, moved = _one_form(path, how)
    target = path + mark + query
    if moved:
        # Two slashes, or a slash and a backslash, would send a browser to another host.
        raise Elsewhere(b"/" + target.lstrip(b"/\\"))
    return target


def _one_form(path: bytes, how: Normalization) -> tuple[bytes, bool]:
    moved = False
    if b"%" in path:
        if how.dot_segments and _BROKEN_ESCAPE.search(path):
            raise BadRequest(400, "the path has a percent sign that is not followed by two hexadecimal digits")
        if b"%00" in path:
            raise BadRequest(400, "the path has an escaped NUL in it")
        if how.escaped_slashes is not EscapedSlashes.KEEP and _ESCAPED_SLASH.search(path):
            if how.escaped_slashes is EscapedSlashes.REJECT:
                raise BadRequest(400, "the path has an escaped slash in it, and the mesh entry rejects these")
            path = _ESCAPED_SLASH.sub(_decoded, path)
            moved = how.escaped_slashes is EscapedSlashes.REDIRECT
    if how.dot_segments:
        path = without_dot_segments(one_spelling(path).replace(b"\\", b"/"))
        if _HIDDEN_DOTS.search(path):
            raise BadRequest(400, "the path has a dot segment that is hidden by an escaped slash or a path parameter")
    if how.merge_slashes:
        path = _SLASHES.sub(b"/", path)
    return path, moved


def one_spelling(path: bytes) -> bytes:
    """Escape what has to be, decode what need not be, and write escapes in upper case."""
    if b"%" in path:
        path = _ESCAPE.sub(_spelled, path)
    return _NO_URI_CHARACTER.sub(_escaped, path)


def merged_slashes(path: bytes) -> bytes:
    return _SLASHES.sub(b"/", path) if b"//" in path else path


def without_dot_segments(path: bytes) -> bytes:
    """RFC 3986 section 5.2.4: ``..`` at the root stays there. ``path`` begins with a slash."""
    if b"/." not in path:
        return path
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            del kept[-1:]
        elif segment != b".":
            kept.append(segment)
    if segments[-1] in {b".", b".."}:
        kept.append(b"")
    return b"/" + b"/".join(kept)


def acceptable(headers: Headers, action: Underscores) -> Headers:
    """The headers without those that many servers would take for others (``a_b`` for ``a-b``).

    :raises BadRequest: when ``action`` is to reject them.
    """
    if action is Underscores.ALLOW or not any(b"_" in name for name, _ in headers):
        return headers
    if action is Underscores.REJECT:
        raise BadRequest(400, "the name of a header has an underscore in it, and the mesh entry rejects these")
    return [header for header in headers if b"_" not in header[0]]


def _decoded(escape: re.Match[bytes]) -> bytes:
    return bytes((int(escape[0][1:], 16),))


def _spelled(escape: re.Match[bytes]) -> bytes:
    code = int(escape[0][1:], 16)
    return bytes((code,)) if code in _UNRESERVED else escape[0].upper()


def _escaped(character: re.Match[bytes]) -> bytes:
    return b"%%%02X" % character[0][0]
