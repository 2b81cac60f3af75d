"""What one message of the corpus is, and what must come of it.

Each is sent on a connection of its own, with a plain request (the *marker*) after it. Three outcomes are sound:

* ``REFUSED``: the gateway ends the connection, and the back end sees nothing, not even the marker: where one message
  has no certain end, nothing after it can be trusted.
* ``TURNED_AWAY``: the message is whole, and not wanted: the back end sees nothing of it, the marker may be served.
* ``CARRIED``: the back end sees exactly ``seen``, then the marker.

A message that may be refused as well as carried lists both in ``outcomes``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

MARKER = b"/marker"
HOST = b"a.test"


class Outcome(enum.Enum):
    REFUSED = "refused"
    TURNED_AWAY = "turned away"
    CARRIED = "carried"


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as a server understands it."""

    method: str
    target: str
    """As in the request line."""
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A message of HTTP/1.1."""

    name: str
    why: str
    sent: bytes
    outcomes: tuple[Outcome, ...]
    seen: tuple[Seen, ...] = ()
    marker_served: bool | None = True
    """After it was carried; false when it ends the connection, ``None`` when that is up to us."""


Fields = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCase:
    """A message of HTTP/2: header block, data and trailers of one stream."""

    name: str
    why: str
    fields: Fields
    data: tuple[bytes, ...] = ()
    """One DATA frame each."""
    trailers: Fields = ()
    outcomes: tuple[Outcome, ...]
    seen: tuple[Seen, ...] = ()


AnyCase = Case | StreamCase


def refused(name: str, why: str, sent: bytes) -> Case:
    return Case(name=name, why=why, sent=sent, outcomes=(Outcome.REFUSED,))


def turned_away(name: str, why: str, sent: bytes) -> Case:
    """Refused, with or without the end of the connection."""
    return Case(name=name, why=why, sent=sent, outcomes=(Outcome.REFUSED, Outcome.TURNED_AWAY))


def unfinished(name: str, why: str, sent: bytes) -> Case:
    """The marker is part of it, and more should come: nobody sees it whole."""
    return Case(name=name, why=why, sent=sent, outcomes=(Outcome.REFUSED,), marker_served=None)


def carried(name: str, why: str, sent: bytes, *seen: Seen, marker_served: bool | None = True) -> Case:
    return Case(name=name, why=why, sent=sent, outcomes=(Outcome.CARRIED,), seen=seen, marker_served=marker_served)


def either(name: str, why: str, sent: bytes, *seen: Seen, marker_served: bool | None = True) -> Case:
    """The RFC leaves it to us, or a parser may be stricter than it: what is carried is understood by all alike."""
    return Case(name=name, why=why, sent=sent, outcomes=tuple(Outcome), seen=seen, marker_served=marker_served)


def request(lines: bytes = b"", body: bytes = b"", *, method: bytes = b"POST", target: bytes = b"/case") -> bytes:
    """A request with a proper Host and those further header lines, each ended by CRLF."""
    return b"%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n%s" % (method, target, HOST, lines, body)


HIDDEN = request(method=b"GET", target=b"/hidden")
"""What an attacker wants a back end to take for a request of its own."""
