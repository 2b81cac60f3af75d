"""The ways in which an external service may read a path that is in the one form.

After :mod:`proxy.http.policy.normalization` a path has one spelling, and still servers disagree about it: some decode
``%2F``, ``%3A`` or ``%25`` before they look for a resource, some drop path parameters (``/secret;x`` is ``/secret`` to
a servlet container), some then remove dot segments again. A rule that denies concerns a path when any reading of it
does; a rule that allows, only when every reading does. Most paths have one reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from proxy.http.policy.normalization import merged_slashes, without_dot_segments

_AMBIGUOUS = re.compile(rb"[%;\\]|//|/\.")
_ESCAPED_ASCII = re.compile(rb"%(?:2[1-9A-Fa-f]|[3-6][0-9A-Fa-f]|7[0-9A-Ea-e])")
"""What is visible; a space, a control character and what is not ASCII have one spelling, the escaped one."""
_PARAMETERS = re.compile(rb";[^/]*")

COUNT = 7


def readings(path: bytes) -> tuple[bytes, ...]:
    """Return ``path`` itself, and when others may read it otherwise, all ``COUNT`` readings, always in one order."""
    if _AMBIGUOUS.search(path) is None:
        return (path,)
    return (path, *map(_resolved, _decoded(path)))


def readings_of_pattern(text: bytes) -> tuple[bytes, ...]:
    """As :func:`readings`, of the beginning of a path as an operator wrote it: its dots are left alone, since
    ``/a/.`` is the beginning of ``/a/.b``."""
    if _AMBIGUOUS.search(text) is None:
        return (text,) * COUNT
    return (text, *map(_slashes, _decoded(text)))


def _decoded(path: bytes) -> Iterator[bytes]:
    """As it is, once, twice; without path parameters, then decoded; the other way round."""
    once = _visible(path)
    yield path
    yield once
    yield _visible(once)
    stripped = _PARAMETERS.sub(b"", path)
    yield stripped
    yield _visible(stripped)
    yield _PARAMETERS.sub(b"", once)


def _visible(path: bytes) -> bytes:
    return _ESCAPED_ASCII.sub(lambda escape: bytes((int(escape[0][1:], 16),)), path) if b"%" in path else path


def _slashes(path: bytes) -> bytes:
    return merged_slashes(path.replace(b"\\", b"/"))


def _resolved(path: bytes) -> bytes:
    return merged_slashes(without_dot_segments(_slashes(path)))
