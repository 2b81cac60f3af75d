"""Checked streams: both sides know every byte that has to come; one that is wrong, missing or too many is found.

A connection carries rounds, each announced by a header, in both directions at once and in pieces and pauses of its own
chance. The last round ends with a half close, of either side first.
"""

from __future__ import annotations

import asyncio
import enum
import random
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from plugin.process.tasks import spawn
from soak.streams import Broken, Stream

SILENCE_S = 90.0
"""Longer than any fault lasts: a stream that moves nothing for that long has lost something."""
_HEADER = struct.Struct(">QQIIB")
_BLOCK = 65_536
_PIECES = (1, 100, 4_000, 16_384, 65_536)
_STALL = 0.03
"""The part of pieces after which a sender takes a pause."""
_LONGEST_STALL_S = 0.2


class Wrong(Exception):
    """A stream is not what was sent: never excused by any fault."""


class Last(enum.IntEnum):
    NO = 0
    CLIENT_FIRST = 1
    SERVICE_FIRST = 2


@dataclass(frozen=True, slots=True)
class Round:
    pump: int
    """Names the connection."""
    seed: int
    up: int
    """Bytes from the client."""
    down: int
    last: Last = Last.NO

    def encode(self) -> bytes:
        return _HEADER.pack(self.pump, self.seed, self.up, self.down, self.last)


@dataclass(slots=True)
class Progress:
    """Plaintext bytes of one side of one connection, headers included."""

    sent: int = 0
    received: int = 0


class Side:
    """One end of a checked connection."""

    def __init__(self, stream: Stream, progress: Progress, verified: Callable[[int], None]) -> None:
        """``verified`` is told how many bytes were found to be right."""
        self.stream = stream
        self.progress = progress
        self._verified = verified
        self._rest = b""

    async def send_round(self, one: Round, *, from_client: bool) -> None:
        if from_client:
            await self._send(one.encode())
        mine, theirs = (one.up, one.down) if from_client else (one.down, one.up)
        await _both(
            lambda: self._send_all(one.seed, mine, from_client=from_client, last=one.last),
            lambda: self._check_all(one.seed, theirs, from_client=from_client, last=one.last),
        )
        if one.last is (Last.SERVICE_FIRST if from_client else Last.CLIENT_FIRST):
            await self.stream.finish()

    async def header(self) -> Round:
        """The next round that the client announces."""
        pump, seed, up, down, last = _HEADER.unpack(await self._exactly(_HEADER.size))
        return Round(pump, seed, up, down, Last(last))

    async def _send_all(self, seed: int, size: int, *, from_client: bool, last: Last) -> None:
        content = Content(seed, from_client)
        chance = random.Random(seed ^ from_client)
        while size > 0:
            piece = min(size, chance.randint(1, chance.choice(_PIECES)))
            await self._send(content.take(piece))
            size -= piece
            if chance.random() < _STALL:
                await asyncio.sleep(chance.random() * _LONGEST_STALL_S)
        if last is (Last.CLIENT_FIRST if from_client else Last.SERVICE_FIRST):
            await self.stream.finish()

    async def _check_all(self, seed: int, size: int, *, from_client: bool, last: Last) -> None:
        content = Content(seed, not from_client)
        offset = 0
        while offset < size:
            data = await self._some(size - offset)
            if not data and from_client and not self.progress.received:
                raise Broken("refused")  # before anything was relayed; whether that was right is not judged here
            if not data:
                raise Wrong(f"a clean end after {offset} of {size} bytes: truncated")
            if data != content.take(len(data)):
                raise Wrong(f"wrong bytes within {len(data)} from {offset} of {size}")
            offset += len(data)
            self._verified(len(data))
        if last is not Last.NO:
            await self._expect_end(size)

    async def _expect_end(self, size: int) -> None:
        if extra := await self._some(_BLOCK):
            raise Wrong(f"{len(extra)} bytes after all {size}")

    async def _send(self, data: bytes) -> None:
        self.progress.sent += len(data)
        async with asyncio.timeout(SILENCE_S):
            await self.stream.send(data)

    async def _some(self, limit: int) -> bytes:
        if not self._rest:
            async with asyncio.timeout(SILENCE_S):
                self._rest = await self.stream.receive()
            self.progress.received += len(self._rest)
        data, self._rest = self._rest[:limit], self._rest[limit:]
        return data

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self._some(size - len(data))
            if not piece and not self.progress.received:
                raise Broken("nothing came")  # dialled, and given up before anything was relayed
            if not piece:
                raise Wrong(f"a clean end after {len(data)} of a header's {size} bytes: truncated")
            data += piece
        return data


@dataclass(slots=True)
class Content:
    """Pseudo-random bytes, the same for the same seed and direction."""

    seed: int
    from_client: bool
    _chance: random.Random = field(init=False)
    _block: bytes = b""

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.seed}/{self.from_client}")

    def take(self, size: int) -> bytes:
        while len(self._block) < size:
            self._block += self._chance.randbytes(_BLOCK)
        data, self._block = self._block[:size], self._block[size:]
        return data


async def _both(sending: Callable[[], Awaitable[None]], checking: Callable[[], Awaitable[None]]) -> None:
    """Run both to their end. When sending breaks, what still comes is checked nevertheless: how it ends matters."""
    broken: list[Broken] = []

    async def send() -> None:
        try:
            await sending()
        except Broken as error:
            broken.append(error)

    sender = spawn(send(), name="send")
    try:
        await checking()
        await sender
    finally:
        sender.cancel()
    if broken:
        raise broken[0]


def random_round(chance: random.Random, pump: int, last: Last = Last.NO, *, largest: int = 262_144) -> Round:
    up, down = (int(largest ** chance.random()) for _ in range(2))
    return Round(pump, chance.getrandbits(64), up, down, last)
