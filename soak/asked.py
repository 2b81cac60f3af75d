"""What a checked request asks for: who it is, and which bytes go with it and come back, by a seed.

It says so in its own headers; the external service makes the same of them.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from soak.ledger import Ledger, Pair
from soak.pump import Content, Wrong

OPEN, FLIP, SHUT = "/open", "/flip", "/shut"
"""Paths: allowed always, now and then denied, never allowed."""
NAME = b"x-soak"
_PACKED = struct.Struct(">QQII")


@dataclass(frozen=True, slots=True)
class Ask:
    number: int
    seed: int
    up: int
    """Bytes of the request's body; 0 also for one whose length is not known."""
    down: int

    def encode(self) -> bytes:
        return _PACKED.pack(self.number, self.seed, self.up, self.down).hex().encode()

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Ask:
        """:raises Wrong: when it is not there, or not once."""
        values = [value for name, value in headers if name == NAME]
        if len(values) != 1:
            raise Wrong(f"a request with {len(values)} headers of its own")
        return cls(*_PACKED.unpack(bytes.fromhex(values[0].decode())))

    @classmethod
    def random(cls, chance: random.Random, number: int, largest: int) -> Ask:
        up, down = (int(largest ** chance.random()) for _ in range(2))
        return cls(number, chance.getrandbits(64), up, down)


class Checked:
    """A body that comes in pieces."""

    def __init__(self, ask: Ask, size: int, *, from_client: bool) -> None:
        self._content = Content(ask.seed, from_client)
        self._size = size
        self._seen = 0

    def take(self, data: bytes) -> None:
        """:raises Wrong: when these are not the next bytes."""
        self._seen += len(data)
        if self._seen > self._size:
            raise Wrong(f"{self._seen - self._size} bytes too many after {self._size} of a body")
        if data != self._content.take(len(data)):
            raise Wrong(f"wrong bytes before {self._seen} of {self._size} of a body")

    def end(self) -> None:
        """:raises Wrong: when it is not complete."""
        if self._seen != self._size:
            raise Wrong(f"a proper end after {self._seen} of {self._size} bytes of a body: truncated")


def pair_of(source: str, service: str, path: str) -> Pair:
    """What a request to ``path`` is judged by."""
    return source, service if path == OPEN else f"{service} {path}"


def arrived(ledger: Ledger, path: str) -> None:
    """The external service sees a request."""
    ledger.counts["requests at the external services"] += 1
    if path.startswith(SHUT):
        ledger.violated(f"wrongly allowed: {path} has reached the external service")
