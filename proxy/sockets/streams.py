"""Fewer, larger reads for whoever streams.

A stream whose sender is a little slower than this worker would be read in many small pieces, each with its wake, its
system calls and its turn through the interpreter. Once a direction has carried much without a pause, the kernel is
asked to report its socket only when a good part of a read is there (``SO_RCVLOWAT``, socket(7)); a tick looks after
the streams that went quiet below that mark, and makes them ordinary connections again.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

ENOUGH = 256 * 1024
"""Bytes that a streaming socket waits for before it is reported readable."""
_STREAMING_AFTER = 4 * 1024 * 1024
"""Bytes in large pieces, one after the other."""
_LARGE_PIECE = 16 * 1024
_TICK_S = 0.001


class Stream(Protocol):
    """What is paced: one direction of a relay."""

    def wait_for(self, length: int) -> None:
        """Report the source readable when it has this many bytes, or has ended."""

    def read_now(self) -> None:
        """Read what there is, however little."""


class Pace:
    """How one direction has been flowing."""

    __slots__ = ("moved", "run", "streaming")

    def __init__(self) -> None:
        self.run = 0
        """Bytes in large pieces since the last small one."""
        self.streaming = False
        self.moved = False
        """Since the last tick."""


class Streams:
    """Those of one worker that stream at the moment."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._streaming: dict[Stream, Pace] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, stream: Stream, pace: Pace, length: int) -> None:
        """``length`` bytes were read at once."""
        pace.moved = True
        if pace.streaming:
            return
        pace.run = pace.run + length if length >= _LARGE_PIECE else 0
        if pace.run >= _STREAMING_AFTER:
            pace.streaming = True
            self._streaming[stream] = pace
            stream.wait_for(ENOUGH)
            if self._timer is None:
                self._timer = self._loop.call_later(_TICK_S, self._tick)

    def leave(self, stream: Stream, pace: Pace) -> None:
        """It has ended, or takes a pause."""
        if self._streaming.pop(stream, None) is not None:
            pace.streaming = False
            pace.run = 0

    def _tick(self) -> None:
        quiet = [(stream, pace) for stream, pace in self._streaming.items() if not pace.moved]
        for pace in self._streaming.values():
            pace.moved = False
        for stream, pace in quiet:
            self.leave(stream, pace)
            stream.wait_for(1)
            self._loop.call_soon(stream.read_now)
        self._timer = self._loop.call_later(_TICK_S, self._tick) if self._streaming else None
