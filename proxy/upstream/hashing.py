"""Which endpoint belongs to a hash key: the same for every worker, and for as many keys as possible when some change.

Pure. Weighted rendezvous hashing in the place of Envoy's ring and maglev tables: every endpoint is given a score for
the key, and the best one takes it. When an endpoint comes or goes, only its own keys move, and those that move spread
over all others. There is no table, so there is nothing that a great weight or a great ring size could blow up.
"""

from __future__ import annotations

import hashlib
import heapq
import math

from proxy.model import Endpoint

_RANKED = 8
"""How many endpoints a ranking names: those after the first are for when it is left out or cannot be reached."""
_REMEMBERED = 4_096
"""Keys whose ranking is kept: sidecars are few and come again."""


class Ranking:
    """Of one set of endpoints."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._endpoints = endpoints
        self._known: dict[str, tuple[Endpoint, ...]] = {}

    def of(self, key: str) -> tuple[Endpoint, ...]:
        """The endpoints for ``key``, best first, at most a handful of them."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = tuple(heapq.nlargest(_RANKED, self._endpoints, key=lambda endpoint: _score(key, endpoint)))
            self._known[key] = known
        return known


def _score(key: str, endpoint: Endpoint) -> float:
    text = f"{key}|{endpoint.address}|{endpoint.port}".encode()
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
    return -max(1, endpoint.weight) / math.log((number + 1) / (2**64 + 2))
