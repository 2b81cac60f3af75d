"""The addresses behind the hostnames of external services, kept up to date for as long as their TTL says.

IPv4 and IPv6 are asked for together and the hosts file counts. The last answer stays known when a later question
fails, however long; a name is asked again for ever. Workers never resolve: they get these addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import MappingProxyType

import aiodns
import aiodns.error

from plugin.errors import NameUnresolved
from plugin.facts import Fact

_AT_ONCE = 32
"""Questions under way."""

_ANSWERS = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA})
"""Failures that are answers: the servers work, the name is the problem."""

_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EHOSTUNREACH})


class Resolver:
    """Resolves the set of names that is in use. For one event loop."""

    def __init__(
        self,
        on_change: Callable[[frozenset[str]], None],
        *,
        make_channel: Callable[[], aiodns.DNSResolver] = aiodns.DNSResolver,
        floor_s: float = 5.0,
        ceiling_s: float = 300.0,
        retry_s: tuple[float, float] = (1.0, 30.0),
        timeout_s: float = 10.0,
    ) -> None:
        """``on_change`` gets the names whose fact changed. A TTL is raised to ``floor_s`` and lowered to ``ceiling_s``;
        ``retry_s`` is the first and the longest pause after failures; ``timeout_s`` bounds one question."""
        self._on_change = on_change
        self._make_channel = make_channel
        self._floor_s = floor_s
        self._ceiling_s = ceiling_s
        self._retry_s = retry_s
        self._timeout_s = timeout_s
        self._facts: dict[str, Fact[tuple[str, ...]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._channel: aiodns.DNSResolver | None = None
        self._users: dict[aiodns.DNSResolver, int] = {}
        self._free = asyncio.Semaphore(_AT_ONCE)

    @property
    def addresses(self) -> Mapping[str, Fact[tuple[str, ...]]]:
        """The fact of every name in use: its addresses, sorted, IPv4 first."""
        return MappingProxyType(self._facts)

    def fact(self, name: str) -> Fact[tuple[str, ...]]:
        return self._facts.get(name, Fact())

    def set_names(self, names: Iterable[str]) -> None:
        """Keep exactly these names resolved; new ones are asked for at once."""
        wanted = frozenset(names)
        for name in self._facts.keys() - wanted:
            del self._facts[name]
            if task := self._tasks.pop(name, None):
                task.cancel()
        for name in sorted(wanted - self._facts.keys()):
            self._facts[name] = Fact()
            self._start(name)

    async def run(self) -> None:
        """Resolve until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for name in self._facts:
                    self._start(name)
                # A group without tasks would end.
                await asyncio.Event().wait()
        finally:
            self._group = None
            self._tasks.clear()
            await self._close()

    def _start(self, name: str) -> None:
        if self._group is not None:
            self._tasks[name] = self._group.create_task(self._keep(name), name=f"resolve {name}")

    async def _keep(self, name: str) -> None:
        failures = 0
        while True:
            try:
                async with self._free:
                    addresses, ttl_s = await self._ask(name)
            except NameUnresolved as problem:
                self._failed(name, problem)
                first_s, longest_s = self._retry_s
                pause_s = min(first_s * 2**failures, longest_s)
                failures = min(failures + 1, 16)
            else:
                self._learned(name, addresses)
                pause_s = min(max(ttl_s, self._floor_s), self._ceiling_s)
                failures = 0
            # Names that were learned together should not be asked for together for ever.
            await asyncio.sleep(pause_s * random.uniform(0.9, 1.1))

    async def _ask(self, name: str) -> tuple[tuple[str, ...], float]:
        """Return the addresses and the TTL in seconds. :raises NameUnresolved: when there is no usable answer."""
        try:
            async with self._borrowed_channel() as channel, asyncio.timeout(self._timeout_s):
                answer = await channel.getaddrinfo(name, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            raise _unresolved(name, str(error.args[-1] if error.args else error)) from error
        except TimeoutError as error:
            raise _unresolved(name, f"no answer within {self._timeout_s:g} s") from error
        except (UnicodeError, ValueError) as error:
            raise NameUnresolved(f"{name!r} is not a hostname; correct the address in the catalog") from error
        addresses = _reachable({_text(node.addr[0]) for node in answer.nodes})
        if not addresses:
            raise _unresolved(name, "the answer holds no address")
        return addresses, float(min(node.ttl for node in answer.nodes))

    @contextlib.asynccontextmanager
    async def _borrowed_channel(self) -> AsyncIterator[aiodns.DNSResolver]:
        """A channel that failed is given up, so that the next one reads /etc/resolv.conf as it is then; it is closed
        when the last question that it carries has ended."""
        channel = self._channel = self._channel or self._make_channel()
        self._users[channel] = self._users.get(channel, 0) + 1
        try:
            yield channel
        except (aiodns.error.DNSError, TimeoutError) as error:
            answered = isinstance(error, aiodns.error.DNSError) and error.args[:1] and error.args[0] in _ANSWERS
            if channel is self._channel and not answered:
                self._channel = None
            raise
        finally:
            self._users[channel] -= 1
            if channel is not self._channel and not self._users[channel]:
                del self._users[channel]
                await channel.close()

    def _learned(self, name: str, addresses: tuple[str, ...]) -> None:
        before = self._facts[name]
        self._facts[name] = before.learned(addresses, at_s=time.time())
        if before.value != addresses or before.problem is not None:
            self._on_change(frozenset({name}))

    def _failed(self, name: str, problem: NameUnresolved) -> None:
        before = self._facts[name]
        self._facts[name] = before.failed(problem)
        if str(before.problem) != str(problem):
            self._on_change(frozenset({name}))

    async def _close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._users.pop(channel, None)
            await channel.close()


def _unresolved(name: str, why: str) -> NameUnresolved:
    return NameUnresolved(f"{name} cannot be resolved: {why}; check the name, and /etc/resolv.conf of this host")


def _text(address: str | bytes) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address


def _reachable(addresses: Iterable[str]) -> tuple[str, ...]:
    """Sort, IPv4 first, and leave out the family that this host has no route for, unless nothing would be left."""
    parsed = sorted({ipaddress.ip_address(address) for address in addresses}, key=lambda ip: (ip.version, int(ip)))
    routed = [ip for ip in parsed if _has_route(str(ip), ip.version)]
    return tuple(str(ip) for ip in routed or parsed)


def _has_route(address: str, version: int) -> bool:
    # Connecting a datagram socket sends nothing: it only asks the kernel for a route.
    try:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError as error:
        return error.errno not in _NO_ROUTE
    return True
