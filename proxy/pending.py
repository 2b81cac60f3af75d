"""Connections whose handshake is not finished: by age, in two lines, with one timer for all of their deadlines.

A client that means to do TLS says hello at once; one that has said nothing yet costs nothing to lose. So when there is
no room, the oldest silent one goes first, then the oldest of the others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.model import CloseReason

if TYPE_CHECKING:
    from proxy.carrier import Carrier


class PendingHandshakes:
    """Those of one worker. A carrier that is not here any more is nobody's concern: every call may come late."""

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        """``timeout_s`` is for the whole handshake, however the client spreads it; 0 is no limit."""
        self._loop = loop
        self._timeout_s = timeout_s
        self._all: dict[int, Carrier] = {}
        self._silent: dict[int, Carrier] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._all)

    def add(self, carrier: Carrier) -> None:
        number = carrier.life.number
        self._all[number] = self._silent[number] = carrier
        if self._timer is None and self._timeout_s:
            self._timer = self._loop.call_later(self._timeout_s, self._sweep)

    def heard(self, number: int) -> None:
        """The client of connection ``number`` has sent its first byte."""
        self._silent.pop(number, None)

    def over(self, number: int) -> None:
        """Its handshake is finished, one way or the other."""
        if self._all.pop(number, None) is not None:
            self._silent.pop(number, None)

    def oldest_silent(self) -> Carrier | None:
        return next(iter(self._silent.values()), None)

    def oldest(self) -> Carrier | None:
        """The one whose loss hurts least; ``None`` when there is none."""
        return self.oldest_silent() or next(iter(self._all.values()), None)

    def _sweep(self) -> None:
        """End those whose time is over, and come back for the oldest of the rest."""
        self._timer = None
        now_s = self._loop.time()
        due = [carrier for carrier in self._all.values() if carrier.life.started_s + self._timeout_s <= now_s]
        for carrier in due:
            self.over(carrier.life.number)
            detail = f"the TLS handshake was not finished within {self._timeout_s:g} s"
            carrier.close(CloseReason.HANDSHAKE_TIMEOUT, detail)
        if (oldest := next(iter(self._all.values()), None)) is not None:
            left_s = oldest.life.started_s + self._timeout_s - now_s
            self._timer = self._loop.call_later(max(left_s, 0.0), self._sweep)
