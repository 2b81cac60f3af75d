"""A deadline that is set and lifted with every request, and hardly ever met."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.http.wire import Wire


class Deadline:
    """Its timer is not set anew each time: it looks at the deadline when it is due."""

    __slots__ = ("_at_s", "_callback", "_now_s", "_timer", "_timer_at_s", "_wire")

    def __init__(self, wire: Wire, callback: Callable[[], None]) -> None:
        self._wire = wire
        self._callback = callback
        self._now_s = wire.loop.time
        self._at_s = 0.0
        """0 while there is none."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0

    def set(self, delay_s: float) -> None:
        self._at_s = self._now_s() + delay_s
        if self._timer is None or self._at_s < self._timer_at_s:
            self._start()

    def lift(self) -> None:
        self._at_s = 0.0

    def stop(self) -> None:
        """There will be none any more."""
        self._at_s = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = self._at_s
        self._timer = self._wire.after(self._at_s - self._now_s(), self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._at_s:
            return
        if self._at_s > self._now_s():
            self._start()
        else:
            self._at_s = 0.0
            self._callback()
