"""Timers of which hardly any comes due: deadlines of dials, checks of idleness, ends of lifetimes.

A connection sets several in its life and cancels nearly all. The event loop would keep each in its heap, and walk the
heap for the cancelled ones. Here those that are due within the same slice of time share one dict, and the loop has
one timer, for the earliest slice that has any. The price: a timer comes up to one slice late, never early.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Any

_SLICE_S = 0.1
_SHORT_S = 1.0
"""Below it a slice would be a large part of the wait: the event loop's own timer is used."""


class Timer:
    """One that was set. It is called once, or never when it is cancelled before."""

    __slots__ = ("_arguments", "_callback", "_slice")

    def __init__(self, callback: Callable[..., None], arguments: tuple[Any, ...], own: dict[Timer, None]) -> None:
        self._callback: Callable[..., None] | None = callback
        self._arguments = arguments
        self._slice = own
        own[self] = None

    def cancel(self) -> None:
        self._callback = None
        self._arguments = ()
        self._slice.pop(self, None)

    def run(self) -> None:
        callback, arguments = self._callback, self._arguments
        if callback is not None:
            self.cancel()
            callback(*arguments)


class Timers:
    """Those of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slices: dict[int, dict[Timer, None]] = {}
        """By the number of the slice at whose beginning they are due."""
        self._order: list[int] = []
        """The same numbers, as a heap."""
        self._wake: asyncio.TimerHandle | None = None
        self._wakes_at = 0

    def call_later(self, seconds: float, callback: Callable[..., None], *arguments: Any) -> Timer | asyncio.TimerHandle:
        if seconds < _SHORT_S:
            return self._loop.call_later(seconds, callback, *arguments)
        number = int((self._loop.time() + seconds) / _SLICE_S) + 1
        own = self._slices.get(number)
        if own is None:
            own = self._slices[number] = {}
            heapq.heappush(self._order, number)
        timer = Timer(callback, arguments, own)
        if self._wake is None or number < self._wakes_at:
            self._wake_for(number)
        return timer

    def _wake_for(self, number: int) -> None:
        if self._wake is not None:
            self._wake.cancel()
        self._wakes_at = number
        self._wake = self._loop.call_at(number * _SLICE_S, self._due)

    def _due(self) -> None:
        self._wake = None
        now = self._loop.time() / _SLICE_S
        while self._order and (self._order[0] <= now or not self._slices[self._order[0]]):
            # Each on its own: what one of them does wrong is no other's concern.
            for timer in self._slices.pop(heapq.heappop(self._order)):
                self._loop.call_soon(timer.run)
        if self._order:
            self._wake_for(self._order[0])
