"""Which endpoint of a server name takes the next connection, or the next request.

Endpoints and what is hashed in, an order of endpoints out; it dials nothing. Endpoints that Consul calls
unhealthy are used only when no healthy one is there: Consul may be wrong, and refusing everybody helps nobody.
"""

from __future__ import annotations

import heapq
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from proxy.errors import UpstreamError
from proxy.logs import emit
from proxy.model import Balance, BalancePolicy, Endpoint, HashSource
from proxy.upstream.ejection import Ejections, Place, place
from proxy.upstream.failing import ERRORS, SHARE, Failing
from proxy.upstream.hashing import Ranking
from proxy.upstream.shortage import ShortageError

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How many different endpoints one connection may try."""
_DRAWS = 8
"""How often a random choice is repeated because it fell on an endpoint that is left out."""
_MOST_CHOICES = 64
"""``ChoiceCount`` has no limit in Consul; more than this chooses no better."""
_HASHING = frozenset({BalancePolicy.RING_HASH, BalancePolicy.MAGLEV})


class EndpointSet:
    """The endpoints of one server name, their policy, how much each carries at the moment, and which are left out."""

    def __init__(
        self, endpoints: tuple[Endpoint, ...], balance: Balance, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        """``now`` is the clock that left out endpoints come back by, in seconds."""
        self.endpoints = endpoints
        self.balance = balance
        healthy = tuple(endpoint for endpoint in endpoints if endpoint.healthy)
        self._usable = healthy or endpoints
        self._load: dict[Place, int] = {}
        self._ejections = Ejections(now)
        self._failing = Failing(now)
        self.learns_from_answers = len(endpoints) >= SHARE
        """There are enough endpoints for one of them to be left out because of what it answers."""
        self._totals = list(accumulate(max(1, endpoint.weight) for endpoint in self._usable))
        self._turns = _Turns(self._usable)
        self._by_address = any(policy.source is HashSource.SOURCE_IP for policy in balance.hash_policies)
        self.hashes = bool(balance.hash_policies) and balance.policy in _HASHING
        """Who has the same key gets the same endpoint."""
        self._ranking = Ranking(self._usable) if self.hashes else None

    def key_of_address(self, client_ip: str) -> str:
        """What is hashed of a connection, of which nothing but the address is known; empty for nothing."""
        return client_ip if self._by_address else ""

    def order(self, key: str) -> Iterator[Endpoint]:
        """The endpoints to try for one connection or request, best first, at most ``ATTEMPTS``.

        Those that are left out come last: they are better than nothing. An empty ``key`` goes to a random one where
        keys are hashed.
        """
        first = self.first(key)
        if first is not None:
            yield first
            yield from self.others(first, key)

    def first(self, key: str) -> Endpoint | None:
        """The best one for ``key``; ``None`` when there is none at all."""
        usable = self._usable
        if not usable:
            return None
        chosen = usable[0] if len(usable) == 1 else self._pick(key)
        if self._ejections:
            self._ejections.tried(chosen)
        return chosen

    def others(self, first: Endpoint, key: str) -> Iterator[Endpoint]:
        """Those to try when ``first`` could not be reached."""
        for other in self._others(first, key):
            self._ejections.tried(other)
            yield other

    def dialled(self, reached: Endpoint | None, failures: Mapping[Endpoint, UpstreamError]) -> int:
        """Learn how dialling one connection went: which endpoint was reached, if any, and which were not, and why.

        :returns: how many endpoints are left out from now on.
        """
        if reached is not None and self._ejections and self._ejections.succeeded(reached):
            emit(logger, logging.INFO, "endpoint.returned", f"{reached} can be reached again", **_fields(reached))
        ejected = 0
        for endpoint, error in failures.items():
            if isinstance(error, ShortageError):
                continue
            left_out_s = self._ejections.failed(endpoint, self._usable)
            if left_out_s is not None:
                message = f"{endpoint} is left out for {left_out_s:.1f} s: dialling it failed again and again: {error}"
                emit(logger, logging.WARNING, "endpoint.ejected", message, **_fields(endpoint))
                ejected += 1
        return ejected

    def answered(self, endpoint: Endpoint, *, failed: bool) -> int:
        """Learn what a request came to; only for a set that ``learns_from_answers``. As :meth:`dialled`."""
        if not failed:
            if self._failing:
                self._failing.succeeded(endpoint)
            return 0
        left_out_s = self._failing.failed(endpoint, len(self.endpoints))
        if left_out_s is None:
            return 0
        message = (
            f"{endpoint} is left out for {left_out_s:.0f} s: it has answered {ERRORS} requests in a row with errors"
        )
        emit(logger, logging.WARNING, "endpoint.ejected", message, **_fields(endpoint))
        return 1

    def _out(self, endpoint: Endpoint) -> bool:
        return self._ejections.out(endpoint) or (self.learns_from_answers and self._failing.out(endpoint))

    def opened(self, endpoint: Endpoint) -> None:
        at = endpoint.address, endpoint.port  # its place, without a call: this is done for every request
        self._load[at] = self._load.get(at, 0) + 1

    def closed(self, endpoint: Endpoint) -> None:
        at = endpoint.address, endpoint.port
        left = self._load.get(at, 0) - 1
        if left > 0:
            self._load[at] = left
        else:
            self._load.pop(at, None)

    def load(self, endpoint: Endpoint) -> int:
        """Connections, or requests, that it has from this worker."""
        return self._load.get(place(endpoint), 0)

    def left_out(self) -> tuple[Endpoint, ...]:
        """Those that get no connections for a while."""
        return tuple(one for one in self.endpoints if self._out(one)) if self._ejections or self._failing else ()

    def take_over(self, former: EndpointSet) -> None:
        """Go on counting where the set that this one replaces stopped, and leave out what it left out."""
        self._load = former._load
        self._ejections = former._ejections
        self._ejections.keep(self.endpoints)
        self._failing = former._failing
        self._failing.keep({place(endpoint) for endpoint in self.endpoints})

    def _pick(self, key: str) -> Endpoint:
        if self._ranking is not None and key:
            ranked = self._ranking.of(key)
            return next((endpoint for endpoint in ranked if not self._out(endpoint)), ranked[0])
        match self.balance.policy:
            case BalancePolicy.ROUND_ROBIN:
                return self._turns.next(self._out) or self._draw()
            case BalancePolicy.LEAST_REQUEST:
                choices = min(max(2, self.balance.choice_count), _MOST_CHOICES)
                compared = [self._draw() for _ in range(choices)]
                return min(compared, key=lambda endpoint: self.load(endpoint) / max(1, endpoint.weight))
            case _:
                # A hash policy without anything to hash is random, in Envoy too.
                return self._draw()

    def _draw(self) -> Endpoint:
        """A random one, by weight."""
        for _ in range(_DRAWS):
            (endpoint,) = random.choices(self._usable, cum_weights=self._totals)
            if not self._out(endpoint):
                return endpoint
        left = [one for one in self._usable if not self._out(one)] or self._usable
        return random.choices(left, [max(1, one.weight) for one in left])[0]

    def _others(self, first: Endpoint, key: str) -> list[Endpoint]:
        if self._ranking is not None and key:
            others = [endpoint for endpoint in self._ranking.of(key) if endpoint is not first]
        else:
            others = [endpoint for endpoint in self._usable if endpoint is not first]
            random.shuffle(others)
        if self._ejections or self._failing:
            others.sort(key=self._out)
        return others[: ATTEMPTS - 1]


class _Turns:
    """Weighted round robin: each endpoint in turn, as often as its weight says, evenly mixed.

    Every endpoint is due at evenly spaced points of time, as many of them in each unit as its weight (earliest deadline
    first). A turn costs the logarithm of the number of endpoints, whatever the weights.
    """

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._endpoints = endpoints
        # Random phases: workers start at different places, so that few connections over many workers spread as well.
        self._phases = [1.0 - random.random() for _ in endpoints]
        self._due = [(self._due_at(index, 1), index, 1) for index in range(len(endpoints))]
        heapq.heapify(self._due)

    def next(self, out: Callable[[Endpoint], bool]) -> Endpoint | None:
        """Whose turn it is among those that are not ``out``; ``None`` when that takes too long to find."""
        for _ in range(len(self._endpoints) + _DRAWS):
            if not out(endpoint := self._advance()):
                return endpoint
        return None

    def _advance(self) -> Endpoint:
        _, index, count = self._due[0]
        heapq.heapreplace(self._due, (self._due_at(index, count + 1), index, count + 1))
        return self._endpoints[index]

    def _due_at(self, index: int, count: int) -> float:
        return (count - self._phases[index]) / max(1, self._endpoints[index].weight)


def _fields(endpoint: Endpoint) -> dict[str, str]:
    return {"endpoint": str(endpoint), "instance": endpoint.instance}
