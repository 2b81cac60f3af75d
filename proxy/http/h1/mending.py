"""What old servers write around their headers, brought into the one form that everything else reads.

Of responses only (RFC 9112 sections 2.2 and 5.2): lines that end with LF alone, and folded ones. A head is mended only
where nobody could read it in another way, which includes where it ends; then llhttp reads it as any other.
Decided in docs/decisions/033-http1-is-read-strictly.md.
"""

from __future__ import annotations

import re

from proxy.http.errors import BadResponse

HEAD_END = re.compile(rb"\n\r?\n")
"""The first empty line for a reader that takes either end of a line. One that takes CR LF alone may find another one
further on, unless all lines before it end so, or none: anything else is refused."""

_FOLD = re.compile(rb"\r\n[ \t]+")
_BLANK_FOLD = re.compile(rb"\n[ \t]+\r\n")
_FOLDED_FRAMING = re.compile(rb"(?i)\n(?:content-length|transfer-encoding|connection|upgrade)[ \t]*:[^\n]*\n[ \t]")


def ended_properly(raw: bytes) -> bytes:
    """``raw``, a head up to its empty line, with CR LF at the end of each line.

    :raises BadResponse: when its lines end in more than one way, or hold a CR of their own.
    """
    if raw.endswith(b"\r\n\r\n"):
        return raw  # what is in it is llhttp's to refuse
    if b"\r" in raw:
        raise BadResponse("some lines end with CR LF, others with LF alone")
    return raw.replace(b"\n", b"\r\n")


def unfolded(raw: bytes) -> bytes:
    """``raw`` with a space for each fold; the same object when there is none.

    :raises BadResponse: for a fold of nothing, of white space alone, or of what frames the message.
    """
    if b"\r\n " not in raw and b"\r\n\t" not in raw:
        return raw
    status_line = raw.index(b"\r\n") + 2
    if raw[status_line : status_line + 1] in (b" ", b"\t"):
        raise BadResponse("white space before the first header")
    if _BLANK_FOLD.search(raw):
        raise BadResponse("a folded line of white space alone")
    if _FOLDED_FRAMING.search(raw):
        raise BadResponse("a header that frames the message is folded")
    return _FOLD.sub(b" ", raw)
