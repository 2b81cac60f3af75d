"""Which endpoints are left out for a while, because they answer with nothing but errors.

Pure, as ``ejection.py``, which is about those that cannot be reached. The numbers are those of Envoy's gateway, where
Consul leaves them at their defaults: five errors in a row, 30 s for each time so far, and never more than a tenth of
the endpoints, which is none of fewer than ten: a client that knows a request which fails takes little from the others.
Decided in docs/decisions/063-instances-that-only-fail.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy.model import Endpoint
from proxy.upstream.ejection import Place, place

ERRORS = 5
"""So many in a row take an endpoint out."""
FIRST_S = 30.0
LONGEST_S = 300.0
SHARE = 10
"""At most one in so many is out."""


@dataclass(slots=True)
class _Record:
    errors: int = 0
    """In a row."""
    times: int = 0
    """How often it was out lately."""
    out_until_s: float = 0.0


class Failing:
    """The endpoints of one server name that are out."""

    def __init__(self, now: Callable[[], float]) -> None:
        """``now`` in seconds, of a clock that only goes forward."""
        self._now = now
        self._records: dict[Place, _Record] = {}

    def __bool__(self) -> bool:
        """Whether any endpoint may be out."""
        return bool(self._records)

    def out(self, endpoint: Endpoint) -> bool:
        record = self._records.get(place(endpoint))
        return record is not None and self._now() < record.out_until_s

    def failed(self, endpoint: Endpoint, endpoints: int) -> float | None:
        """It has answered with an error, or not at all; there are so many ``endpoints``.

        :returns: for how many seconds it is out from now on; ``None`` when it stays in, or was out already.
        """
        now = self._now()
        record = self._records.setdefault(place(endpoint), _Record())
        record.errors += 1
        if record.errors < ERRORS or now < record.out_until_s:
            return None
        record.errors = 0
        out = sum(now < one.out_until_s for one in self._records.values())
        if (out + 1) * SHARE > endpoints:
            return None
        if now - record.out_until_s > LONGEST_S:
            record.times = 0
        record.times += 1
        left_out_s = min(FIRST_S * record.times, LONGEST_S)
        record.out_until_s = now + left_out_s
        return left_out_s

    def succeeded(self, endpoint: Endpoint) -> None:
        record = self._records.get(place(endpoint))
        if record is None:
            return
        record.errors = 0
        if self._now() - record.out_until_s > LONGEST_S:
            del self._records[place(endpoint)]

    def keep(self, places: set[Place]) -> None:
        """Forget every place that is not one of these."""
        for gone in self._records.keys() - places:
            del self._records[gone]
