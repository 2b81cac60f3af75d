"""What a peer may make the gateway do for nothing, and when that is a flood.

Each kind of frame that costs work and brings nothing has a budget. It is refilled by time, and by work that is real: a
client that finishes what it begins may also cancel as much.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from h2.errors import ErrorCodes

from proxy.http.h2.frames import Fault


class Flood(enum.StrEnum):
    """What is counted."""

    RESETS = "requests that the client takes back (CVE-2023-44487)"
    PROVOKED = "streams that the gateway has to reset, because of how the peer uses them (CVE-2025-8671)"
    ANSWERS = "SETTINGS and PING frames, which must be answered (CVE-2019-9512, CVE-2019-9515)"
    EMPTY = "frames without content (CVE-2019-9518)"
    WINDOWS = "WINDOW_UPDATE frames"
    IDLE = "frames that mean nothing: PRIORITY, unknown ones, on streams that have ended"
    CONTINUATION = "CONTINUATION frames (CVE-2024-27316)"
    UNREAD = "requests and frames that ask for answers, while the answers are not read"


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many at once, and so many more for each second."""

    burst: float
    per_second: float


ALLOWANCES = {
    Flood.RESETS: Allowance(500, 33),
    Flood.PROVOKED: Allowance(100, 5),
    Flood.ANSWERS: Allowance(200, 20),
    Flood.EMPTY: Allowance(500, 50),
    Flood.WINDOWS: Allowance(2_000, 200),
    Flood.IDLE: Allowance(1_000, 100),
    Flood.CONTINUATION: Allowance(64, 10),
    Flood.UNREAD: Allowance(1_000, 0),
}


_FOR_A_REQUEST = (
    (Flood.WINDOWS, 10),
    (Flood.IDLE, 4),
    (Flood.EMPTY, 2),
    (Flood.ANSWERS, 1),
    (Flood.CONTINUATION, 8),
)
"""What each request allows beside it."""


class FloodError(Fault):
    """The peer keeps the letter of the protocol and misuses it."""

    def __init__(self, flood: Flood) -> None:
        super().__init__(ErrorCodes.ENHANCE_YOUR_CALM, f"too many {flood}")
        self.flood = flood


class Budgets:
    """Of one connection."""

    __slots__ = ("_left", "_refilled_at_s")

    def __init__(self, now_s: float) -> None:
        self._left: dict[Flood, float] = {}
        """Of those that are not untouched."""
        self._refilled_at_s = now_s

    def spend(self, flood: Flood, now_s: float) -> None:
        """One more of these. :raises FloodError: when there were too many."""
        left = self._left.get(flood)
        if left is None:
            left = ALLOWANCES[flood].burst
        elif left < 1:
            self._refill(now_s)
            left = self._left[flood]
            if left < 1:
                raise FloodError(flood)
        self._left[flood] = left - 1

    def earn(self, flood: Flood, amount: float) -> None:
        """Work was done that allows for more of these."""
        left = self._left.get(flood)
        if left is None:
            return
        if left + amount < ALLOWANCES[flood].burst:
            self._left[flood] = left + amount
        else:
            del self._left[flood]  # untouched again

    def earn_for_request(self) -> None:
        if self._left:
            for flood, amount in _FOR_A_REQUEST:
                self.earn(flood, amount)

    def _refill(self, now_s: float) -> None:
        passed_s, self._refilled_at_s = now_s - self._refilled_at_s, now_s
        for flood, left in self._left.items():
            allowance = ALLOWANCES[flood]
            self._left[flood] = min(left + passed_s * allowance.per_second, allowance.burst)
