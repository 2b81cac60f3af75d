"""A request as permissions see it: its path in every reading, its headers, and what a head keeps apart from them."""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.http.message import UNKNOWN_LENGTH, RequestHead
from proxy.http.policy.readings import readings

_PORT = re.compile(rb":[0-9]*\Z")


class Asked:
    """A request as the permissions see it. Its target is in the one form (:mod:`proxy.http.policy.normalization`)."""

    __slots__ = ("_readings", "head")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self._readings: tuple[bytes, ...] | None = None

    @property
    def paths(self) -> tuple[bytes, ...]:
        """Every reading of the path, without the query; the first one is as it is forwarded."""
        if self._readings is None:
            self._readings = readings(self.head.target.partition(b"?")[0])
        return self._readings

    def values(self, name: bytes) -> list[bytes]:
        """Of each header line of that name; also of what is not in the headers of a :class:`RequestHead`."""
        known = _APART.get(name)
        return self.head.values(name) if known is None else known(self.head)


def _content_length(head: RequestHead) -> list[bytes]:
    return [str(head.length).encode()] if head.has_length and head.length != UNKNOWN_LENGTH else []


def _targets(target: bytes) -> list[bytes]:
    """With every reading of the path, as if it were there so many times."""
    path, mark, query = target.partition(b"?")
    return [reading + mark + query for reading in readings(path)]


def _authorities(authority: bytes) -> list[bytes]:
    """As it is, then as virtual hosts are looked up: in lower case, without the port, without the dot of the root."""
    lower = authority.lower()
    host = _PORT.sub(b"", lower)
    return list(dict.fromkeys((authority, lower, host, host.removesuffix(b"."))))


_APART: dict[bytes, Callable[[RequestHead], list[bytes]]] = {
    b":method": lambda head: [head.method],
    b":path": lambda head: _targets(head.target),
    b":authority": lambda head: _authorities(head.authority),
    b":scheme": lambda head: [head.scheme],
    b"host": lambda head: _authorities(head.authority),
    b"content-length": _content_length,
    b"connection": lambda head: [b"upgrade"] if head.upgrade else [],
    b"expect": lambda head: [b"100-continue"] if head.expects_continue else [],
    b"te": lambda head: [b"trailers"] if head.trailers_wanted else [],
    b"upgrade": lambda head: [head.upgrade] if head.upgrade else [],
}
"""As Envoy knows them."""

WHOLE: dict[bytes, Callable[[list[bytes]], bytes]] = {
    # A client may send its cookies in pieces, which are one header (RFC 9113 section 8.2.3).
    b"cookie": b"; ".join,
    b"host": lambda values: values[0],
    b":authority": lambda values: values[0],
}
"""Of the values of a name what its operator has in mind, where it is not each of them."""
