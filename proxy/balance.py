"""Which endpoint of a server name takes the next connection.

Pure: endpoints and the client's address in, an order of endpoints out. Endpoints that Consul calls unhealthy are used
only when no healthy one is left: Consul may be wrong, and refusing everybody helps nobody.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator

from proxy.model import Balance, BalancePolicy, Endpoint

ATTEMPTS = 3
"""How many different endpoints one connection may try."""
_LONGEST_SCHEDULE = 4_096


class EndpointSet:
    """The endpoints of one server name, their policy and how many connections each carries."""

    def __init__(self, endpoints: tuple[Endpoint, ...], balance: Balance) -> None:
        self.endpoints = endpoints
        self.balance = balance
        healthy = tuple(endpoint for endpoint in endpoints if endpoint.healthy)
        self._usable = healthy or endpoints
        self._load: dict[Endpoint, int] = {}
        self._schedule = _weighted_schedule(self._usable)
        # Workers start at different places, so that few connections over many workers spread as well.
        self._next = random.randrange(len(self._schedule)) if self._schedule else 0

    def order(self, client_ip: str) -> Iterator[Endpoint]:
        """The endpoints to try for one connection, best first, at most ``ATTEMPTS``."""
        if not self._usable:
            return
        first = self._pick(client_ip)
        yield first
        others = [endpoint for endpoint in self._usable if endpoint is not first]
        random.shuffle(others)
        yield from others[: ATTEMPTS - 1]

    def opened(self, endpoint: Endpoint) -> None:
        self._load[endpoint] = self._load.get(endpoint, 0) + 1

    def closed(self, endpoint: Endpoint) -> None:
        left = self._load.get(endpoint, 0) - 1
        if left > 0:
            self._load[endpoint] = left
        else:
            self._load.pop(endpoint, None)

    def load(self, endpoint: Endpoint) -> int:
        """Open connections to it from this worker."""
        return self._load.get(endpoint, 0)

    def take_over(self, former: EndpointSet) -> None:
        """Go on counting where the set that this one replaces stopped."""
        self._load = former._load

    def _pick(self, client_ip: str) -> Endpoint:
        match self.balance.policy:
            case BalancePolicy.RANDOM:
                return random.choice(self._schedule)
            case BalancePolicy.LEAST_REQUEST:
                compared = random.choices(self._schedule, k=max(2, self.balance.choice_count))
                return min(compared, key=lambda endpoint: self.load(endpoint) / max(1, endpoint.weight))
            case BalancePolicy.RING_HASH | BalancePolicy.MAGLEV:
                return self._by_hash(client_ip)
            case BalancePolicy.ROUND_ROBIN:
                self._next = (self._next + 1) % len(self._schedule)
                return self._schedule[self._next]

    def _by_hash(self, client_ip: str) -> Endpoint:
        """Weighted rendezvous hashing: as stable as a ring or a maglev table, without either."""
        if not client_ip:
            return random.choice(self._schedule)

        def score(endpoint: Endpoint) -> float:
            key = f"{client_ip}|{endpoint.address}|{endpoint.port}".encode()
            number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
            return -max(1, endpoint.weight) / math.log((number + 1) / (2**64 + 2))

        return max(self._usable, key=score)


def _weighted_schedule(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """Every endpoint as often as its weight says, evenly mixed (smooth weighted round robin)."""
    if not endpoints:
        return ()
    weights = [max(1, endpoint.weight) for endpoint in endpoints]
    divisor = math.gcd(*weights)
    weights = [weight // divisor for weight in weights]
    total = sum(weights)
    if total > _LONGEST_SCHEDULE:
        weights = [max(1, weight * _LONGEST_SCHEDULE // total) for weight in weights]
        total = sum(weights)
    if total == len(endpoints):
        return endpoints
    current = [0] * len(endpoints)
    schedule = []
    for _ in range(total):
        for index, weight in enumerate(weights):
            current[index] += weight
        best = max(range(len(current)), key=current.__getitem__)
        current[best] -= total
        schedule.append(endpoints[best])
    return tuple(schedule)
