"""What a request and a response say before their bodies, the same for every version of HTTP.

Names of headers are lower case, values are without surrounding white space, both are bytes as received. A head that was
made by a parser of :mod:`proxy.http` has been checked: its names are tokens, its values hold no control characters,
its framing is not ambiguous. Heads are written anew for the other side, never passed on as they came.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

Header = tuple[bytes, bytes]
Headers = list[Header]
Data = bytes | memoryview
"""A ``memoryview`` is of the worker's shared buffer: valid until the callee returns."""

UNKNOWN_LENGTH = -1
"""Of a body whose end is marked when it comes: chunks, a frame of HTTP/2, or the end of the connection."""


class Version(enum.Enum):
    """As the access log writes it."""

    HTTP_1_0 = "HTTP/1.0"
    HTTP_1_1 = "HTTP/1.1"
    HTTP_2 = "HTTP/2"


@dataclass(slots=True)
class RequestHead:
    """A request as it was received; what is forwarded is another one."""

    method: bytes
    """In upper case, as sent: methods have case (RFC 9110 section 9.1)."""
    target: bytes
    """``/path?query`` (origin form, RFC 9112 section 3.2), ``*`` for OPTIONS. Absolute form has been taken apart."""
    authority: bytes
    """``Host``, or ``:authority``; the same when both were sent."""
    version: Version
    headers: Headers = field(default_factory=list)
    """Without Host, without what is for this connection alone (RFC 9110 section 7.6.1), without framing."""
    length: int = 0
    """Bytes of the body, or ``UNKNOWN_LENGTH``; 0 is no body."""
    has_length: bool = False
    """``length`` was said, not inferred: an explicit 0 is passed on as one (POST without a body)."""
    scheme: bytes = b"https"
    expects_continue: bool = False
    """The client waits for ``100 Continue`` before it sends the body."""
    upgrade: bytes = b""
    """The protocol of ``Upgrade`` when ``Connection`` names it, as sent (``websocket``)."""
    trailers_wanted: bool = False
    """``TE: trailers`` was sent; it is not in ``headers``."""

    def values(self, name: bytes) -> list[bytes]:
        """Of each header line of that (lower-case) name, in order."""
        return [value for key, value in self.headers if key == name]


@dataclass(slots=True)
class ResponseHead:
    """A response as it was received, or made here."""

    status: int
    headers: Headers = field(default_factory=list)
    """Without what is for this connection alone, without framing."""
    length: int = 0
    """Bytes of the body that follows, or ``UNKNOWN_LENGTH``; 0 when none may follow (HEAD, 204, 304)."""
    announced_length: int | None = None
    """What ``Content-Length`` says; beside ``length`` because a response to HEAD says what a GET would bring."""
    reason: bytes = b""
    """The phrase of HTTP/1; empty leaves the standard one."""
    version: Version = Version.HTTP_1_1
    """What the external service spoke."""
    upgrade: bytes = b""
    """With status 101: the protocol that was switched to."""

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]
