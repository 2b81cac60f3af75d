"""The other addresses of a hostname, which one connection tries beside the address that the balancer chose.

RFC 8305 (Happy Eyeballs) orders them: families take turns, and an address that was too slow a moment ago comes last.
Pure: endpoints and a time in, an order out. An endpoint that was registered with an IP address has no rivals: another
instance is another thing, and only the balancer may choose it.
"""

from __future__ import annotations

from itertools import chain, zip_longest

from proxy.model import Endpoint

AT_ONCE = 4
"""How many addresses of a hostname one connection may try."""
SLOW_FOR_S = 60.0
"""How long an address that lost comes after its rivals. It is then given another chance: one connection pays for it,
with the delay of one attempt."""

_Host = tuple[str, int, str]


class Rivals:
    """Of one set of endpoints."""

    def __init__(self, endpoints: tuple[Endpoint, ...]) -> None:
        self._hosts: dict[_Host, list[Endpoint]] = {}
        self._slow_until_s: dict[Endpoint, float] = {}
        for endpoint in endpoints:
            if endpoint.hostname:
                self._hosts.setdefault(_host(endpoint), []).append(endpoint)

    def line_up(self, chosen: Endpoint, now_s: float) -> tuple[Endpoint, ...]:
        """Return ``chosen`` and its rivals, in the order in which they are to be tried; ``now_s`` is of any clock that
        only goes forward, the same for all calls."""
        addresses = self._hosts.get(_host(chosen), ()) if chosen.hostname else ()
        if len(addresses) < 2 or chosen not in addresses:
            return (chosen,)
        at = addresses.index(chosen)
        # Each address is followed by its neighbours, so that those of a dead one are not all sent to the same.
        others = [*addresses[at + 1 :], *addresses[:at]]
        family = _is_ipv6(chosen)
        same = [endpoint for endpoint in others if _is_ipv6(endpoint) == family]
        other = [endpoint for endpoint in others if _is_ipv6(endpoint) != family]
        in_turns = [endpoint for endpoint in chain.from_iterable(zip_longest(other, same)) if endpoint is not None]
        line = (chosen, *in_turns)
        if self._slow_until_s:
            line = tuple(sorted(line, key=lambda endpoint: self._is_slow(endpoint, now_s)))
        return line[:AT_ONCE]

    def lost(self, endpoint: Endpoint, now_s: float) -> None:
        """It was tried first, and another address of the hostname was connected."""
        self._slow_until_s[endpoint] = now_s + SLOW_FOR_S

    def _is_slow(self, endpoint: Endpoint, now_s: float) -> bool:
        until_s = self._slow_until_s.get(endpoint)
        if until_s is None:
            return False
        if now_s < until_s:
            return True
        del self._slow_until_s[endpoint]
        return False


def _host(endpoint: Endpoint) -> _Host:
    return endpoint.hostname, endpoint.port, endpoint.instance


def _is_ipv6(endpoint: Endpoint) -> bool:
    return ":" in endpoint.address
