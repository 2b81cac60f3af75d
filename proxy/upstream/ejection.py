"""Which endpoints are left out for a while, because dialling them failed again and again.

Pure: a clock is injected, nothing is logged. It answers about one set of endpoints of one worker and never takes the
last usable one out; which endpoints are usable at all, and in what order they are tried, is ``balance.py``.

An endpoint that is out comes back by itself: once its time is over, the next connection tries it, and others keep away
until that trial has ended. If it fails, the endpoint is out for twice the time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proxy.model import Endpoint

FAILURES = 3
"""So many failed dials in a row take an endpoint out."""
FIRST_S = 5.0
"""How long the first time, at most; each further time is twice as long."""
LONGEST_S = 120.0
TRIAL_S = 10.0
"""How long others wait for the result of a trial: its connection may have gone before it had one."""
FORGET_S = 300.0
"""An endpoint that worked for so long after it came back starts anew, with the first time."""
_SHORTEST_SHARE = 0.75
"""A time is drawn from this share of it to the whole: workers must not come back to a recovering endpoint together."""

Place = tuple[str, int]
"""IP address and port: health and weight may change, the place stays."""


def place(endpoint: Endpoint) -> Place:
    return endpoint.address, endpoint.port


@dataclass(slots=True)
class _Record:
    """Of a place that has failed lately. Times are of the injected clock."""

    failures: int = 0
    """In a row."""
    times: int = 0
    """How often it has been taken out."""
    out_until_s: float | None = None
    """``None``: it is not out. In the past: it is to be tried."""
    trial_until_s: float = 0.0
    back_at_s: float = 0.0


class Ejections:
    """The endpoints of one server name that are out."""

    def __init__(self, now: Callable[[], float], *, uniform: Callable[[float, float], float] = random.uniform) -> None:
        """``now`` in seconds, of a clock that only goes forward; ``uniform`` draws between two numbers."""
        self._now = now
        self._uniform = uniform
        self._records: dict[Place, _Record] = {}

    def __bool__(self) -> bool:
        """Whether any endpoint may be out."""
        return bool(self._records)

    def out(self, endpoint: Endpoint) -> bool:
        """Say whether a connection should go elsewhere."""
        record = self._records.get(place(endpoint))
        if record is None or record.out_until_s is None:
            return False
        return self._now() < max(record.out_until_s, record.trial_until_s)

    def tried(self, endpoint: Endpoint) -> None:
        """A connection is about to be dialled to it: if that is its trial, others keep away."""
        record = self._records.get(place(endpoint))
        if record is not None and record.out_until_s is not None and self._now() >= record.out_until_s:
            record.trial_until_s = self._now() + TRIAL_S

    def failed(self, endpoint: Endpoint, usable: Iterable[Endpoint]) -> float | None:
        """A dial has failed. ``usable`` are all endpoints that connections may go to.

        :returns: for how many seconds it is out from now on; ``None`` when it stays in, or was out already.
        """
        now = self._now()
        record = self._records.setdefault(place(endpoint), _Record())
        record.failures += 1
        if record.out_until_s is None:
            if record.failures < FAILURES:
                return None
        elif now < record.out_until_s:
            return None
        record.trial_until_s = 0.0
        if self._is_last(endpoint, usable):
            return None
        if record.out_until_s is None and now - record.back_at_s > FORGET_S:
            record.times = 0
        longest_s = min(FIRST_S * 2**record.times, LONGEST_S)
        record.times = min(record.times + 1, 16)
        left_out_s = self._uniform(longest_s * _SHORTEST_SHARE, longest_s)
        record.out_until_s = now + left_out_s
        return left_out_s

    def succeeded(self, endpoint: Endpoint) -> bool:
        """A dial has succeeded. :returns: whether it was out until now."""
        record = self._records.get(place(endpoint))
        if record is None:
            return False
        came_back = record.out_until_s is not None
        record.failures, record.out_until_s, record.trial_until_s = 0, None, 0.0
        if came_back:
            record.back_at_s = self._now()
        if not record.times or self._now() - record.back_at_s > FORGET_S:
            del self._records[place(endpoint)]
        return came_back

    def keep(self, endpoints: Iterable[Endpoint]) -> None:
        """Forget every place that is not one of these."""
        places = {place(endpoint) for endpoint in endpoints}
        for gone in self._records.keys() - places:
            del self._records[gone]

    def _is_last(self, endpoint: Endpoint, usable: Iterable[Endpoint]) -> bool:
        at = place(endpoint)
        return all(place(other) == at or self.out(other) for other in usable)
