"""Rates from totals that only grow, smoothed: workers report about once a second, and so does the stream."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from proxy.messages import DURATION_BOUNDS_S

K = TypeVar("K", bound=Hashable)
_WEIGHT = 0.4
"""Of the newest second: about three seconds count."""
_LEAST = 0.05
_KEPT = 0.8
"""Of the durations, from one tick to the next: about the last ten seconds count."""


class Rates(Generic[K]):
    """Of many totals; those that rest cost a comparison."""

    def __init__(self) -> None:
        self._totals: dict[K, int] | None = None
        self._rates: dict[K, float] = {}

    def update(self, totals: dict[K, int], seconds: float) -> dict[K, float]:
        """Those that are not 0; the first totals give none."""
        first, before = self._totals is None, self._totals or {}
        rates: dict[K, float] = {}
        for key, total in totals.items():
            grown = 0 if first else max(0, total - before.get(key, 0))
            old = self._rates.get(key, 0.0)
            if grown or old:
                rate = old + _WEIGHT * (grown / seconds - old)
                if rate >= _LEAST:
                    rates[key] = rate
        self._totals, self._rates = totals, rates
        return rates


class Latencies:
    """Quantiles of what took how long lately, by service."""

    def __init__(self) -> None:
        self._totals: dict[str, tuple[int, ...]] | None = None
        self._lately: dict[str, list[float]] = {}

    def update(self, totals: dict[str, tuple[int, ...]]) -> dict[str, tuple[float, float]]:
        """``(p50, p95)`` in seconds, of services that had requests lately."""
        first, before = self._totals is None, self._totals or {}
        self._totals = totals
        result: dict[str, tuple[float, float]] = {}
        for service, buckets in totals.items():
            old = before.get(service, (0,) * len(buckets))
            lately = self._lately.get(service)
            if lately is None and (first or old == buckets):
                continue
            lately = lately or [0.0] * len(buckets)
            lately = [_KEPT * kept + (new - was) for kept, new, was in zip(lately, buckets, old, strict=True)]
            if sum(lately) < _LEAST:
                self._lately.pop(service, None)
                continue
            self._lately[service] = lately
            result[service] = (_quantile(lately, 0.5), _quantile(lately, 0.95))
        return result


def _quantile(buckets: Sequence[float], share: float) -> float:
    """The upper bound of the bucket in which it is; of the last one, which has none, the greatest bound."""
    wanted, reached = share * sum(buckets), 0.0
    for bound, number in zip(DURATION_BOUNDS_S, buckets, strict=False):
        reached += number
        if reached >= wanted:
            return bound
    return DURATION_BOUNDS_S[-1]
