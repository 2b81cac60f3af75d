"""When a request that a token let in has to end, because the token has.

What is meant to last (connections after 101, gRPC, ``text/event-stream``) ends with the token, and the skew that its
provider allows. Anything else is one thing that was asked for while the token was good, and has time to be done.
Decided in docs/decisions/062-streams-end-with-their-token.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from proxy.sockets.timers import Timer, Timers

GRACE_S = 3600.0
"""For a request that is no stream: uploads take long, and none may go on for ever."""
_LOOKS_EACH_S = 60.0
"""A clock that is set meanwhile counts from then on."""


class TokenLife:
    __slots__ = ("_lasting", "_over", "_timer", "_timers", "_valid_until_s")

    def __init__(self, timers: Timers, valid_until_s: float, over: Callable[[], None], *, lasting: bool) -> None:
        """``over`` is called once, in a later turn; ``valid_until_s`` is Unix time, ``lasting`` a stream."""
        self._timers = timers
        self._valid_until_s = valid_until_s
        self._over = over
        self._lasting = lasting
        self._timer: Timer | asyncio.TimerHandle = self._set()

    def lasts(self) -> None:
        """It has turned out to be a stream."""
        if not self._lasting:
            self._lasting = True
            self._timer.cancel()
            self._timer = self._set()

    def stop(self) -> None:
        self._timer.cancel()

    @property
    def _left_s(self) -> float:
        grace_s = 0.0 if self._lasting else GRACE_S
        return self._valid_until_s + grace_s - time.time()

    def _set(self) -> Timer | asyncio.TimerHandle:
        return self._timers.call_later(min(max(self._left_s, 0.0), _LOOKS_EACH_S), self._look)

    def _look(self) -> None:
        if self._left_s > 0:
            self._timer = self._set()
        else:
            self._over()
