"""The ways in which an external service may read a path that is in the one form.

After :mod:`proxy.http.normalization` a path has one spelling, and still servers disagree about it: some decode
``%2F``, ``%3A`` or ``%25`` before they look for a resource, some drop path parameters (``/secret;x`` is ``/secret`` to
a servlet container), some then remove dot segments again. A rule that denies concerns a path when any reading of it
does; a rule that allows, only when every reading does. Most paths have one reading.
"""

from __future__ import annotations

import re

from proxy.http.normalization import merged_slashes, without_dot_segments

_AMBIGUOUS = re.compile(rb"[%;\\]|//|/\.")
_ESCAPED_ASCII = re.compile(rb"%(?:2[1-9A-Fa-f]|[3-6][0-9A-Fa-f]|7[0-9A-Ea-e])")
"""What is visible; a space, a control character and what is not ASCII have one spelling, the escaped one."""
_PARAMETERS = re.compile(rb";[^/]*")

Reading = int
"""An index into what :func:`readings` returns, for what has more than one."""
COUNT = 5


def readings(path: bytes) -> tuple[bytes, ...]:
    """Return ``path`` itself, and when others may read it otherwise, all ``COUNT`` readings, always in this order:
    as it is; decoded; decoded twice; without path parameters, then decoded; the other way round."""
    if _AMBIGUOUS.search(path) is None:
        return (path,)
    once = _visible(path)
    return (
        path,
        _resolved(once),
        _resolved(_visible(once)),
        _resolved(_visible(_PARAMETERS.sub(b"", path))),
        _resolved(_PARAMETERS.sub(b"", once)),
    )


def readings_of_pattern(text: bytes) -> tuple[bytes, ...]:
    """As :func:`readings`, of the beginning of a path as an operator wrote it: its dots are left alone, since
    ``/a/.`` is the beginning of ``/a/.b``."""
    if _AMBIGUOUS.search(text) is None:
        return (text,) * COUNT
    once = _visible(text)
    return (
        text,
        _slashes(once),
        _slashes(_visible(once)),
        _slashes(_visible(_PARAMETERS.sub(b"", text))),
        _slashes(_PARAMETERS.sub(b"", once)),
    )


def _visible(path: bytes) -> bytes:
    return _ESCAPED_ASCII.sub(lambda escape: bytes((int(escape[0][1:], 16),)), path) if b"%" in path else path


def _slashes(path: bytes) -> bytes:
    return merged_slashes(path.replace(b"\\", b"/"))


def _resolved(path: bytes) -> bytes:
    return merged_slashes(without_dot_segments(_slashes(path)))
