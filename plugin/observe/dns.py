"""The addresses behind the hostnames of external services, kept up to date for as long as their TTL says.

IPv4 and IPv6 are asked for together and the hosts file counts. The last answer stays known when a later question
fails, however long, for each family by itself; a name is asked again for ever. Workers never resolve: they get these
addresses. Names are looked up as c-ares does for Envoy: a name with a dot is asked for as it is, and with the search
domains of /etc/resolv.conf only when it does not exist.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import random
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import aiodns
import aiodns.error

from plugin.addresses import HostPort
from plugin.errors import NameUnresolved
from plugin.facts import Fact

_AT_ONCE = 32
"""Questions that were asked a moment ago and are not answered. Slow ones do not count, or names whose server is dead
would keep others waiting."""

_SLOW_S = 1.0
"""After this an answer that nothing is known without is missed in public."""

_ANSWERS = frozenset({aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA})
"""Failures that are answers: the servers work, the name is the problem."""

_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EHOSTUNREACH})


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Absent(NameUnresolved):
    """The name servers work and say that there is none."""


@dataclass(frozen=True, slots=True)
class _Answer:
    addresses: tuple[str, ...]
    ttl_s: float
    problem: NameUnresolved | None = None
    """Why some of ``addresses`` could not be confirmed."""


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
        timeout_s: float = 15.0,
    ) -> None:
        """``on_change`` gets the names whose fact changed. A TTL is raised to ``floor_s`` and lowered to ``ceiling_s``;
        ``retry_s`` is the first and the longest pause after failures; ``timeout_s`` bounds one question. How often
        and how patiently each name server is asked is said in /etc/resolv.conf."""
        self._on_change = on_change
        self._make_channel = make_channel
        self._floor_s = floor_s
        self._ceiling_s = ceiling_s
        self._retry_s = retry_s
        self._timeout_s = timeout_s
        self._facts: dict[str, Fact[tuple[str, ...]]] = {}
        self._former: dict[str, Fact[tuple[str, ...]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._channel: aiodns.DNSResolver | None = None
        self._channel_since_s = 0.0
        self._channel_age_s = min(ceiling_s, retry_s[1])
        self._users: dict[aiodns.DNSResolver, int] = {}
        self._free = asyncio.Semaphore(_AT_ONCE)

    @property
    def addresses(self) -> Mapping[str, Fact[tuple[str, ...]]]:
        """The fact of every name in use: its addresses, sorted, IPv4 first."""
        return MappingProxyType(self._facts)

    def fact(self, name: str) -> Fact[tuple[str, ...]]:
        return self._facts.get(name, Fact())

    def know(self, facts: Mapping[str, Fact[tuple[str, ...]]]) -> None:
        """Begin with these for names that come into use, until the first answer."""
        self._former.update(facts)

    def set_names(self, names: Iterable[str]) -> None:
        """Keep exactly these names resolved; new ones are asked for at once."""
        wanted = frozenset(names)
        for name in self._facts.keys() - wanted:
            del self._facts[name]
            if task := self._tasks.pop(name, None):
                task.cancel()
        for name in sorted(wanted - self._facts.keys()):
            self._facts[name] = self._former.pop(name, Fact())
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
            former, self._channel = self._channel, None
            await self._close_unused(former)

    def _start(self, name: str) -> None:
        if self._group is not None:
            self._tasks[name] = self._group.create_task(self._keep(name), name=f"resolve {name}")

    async def _keep(self, name: str) -> None:
        failures = 0
        while True:
            try:
                answer = await self._ask(name)
            except NameUnresolved as problem:
                self._note(name, self._facts[name].failed(problem))
                failures, pause_s = failures + 1, self._retry_pause_s(failures)
            else:
                learned = self._facts[name].learned(answer.addresses, at_s=time.time())
                self._note(name, learned.failed(answer.problem) if answer.problem else learned)
                pause_s = min(max(answer.ttl_s, self._floor_s), self._ceiling_s)
                if answer.problem is not None:
                    pause_s = min(pause_s, self._retry_pause_s(failures))
                failures = failures + 1 if answer.problem else 0
            # Names that were learned together should not be asked for together for ever; none before its TTL is over.
            await asyncio.sleep(pause_s * random.uniform(1.0, 1.1))

    def _retry_pause_s(self, failures: int) -> float:
        first_s, longest_s = self._retry_s
        return min(first_s * 2.0 ** min(failures, 16), longest_s)

    async def _ask(self, name: str) -> _Answer:
        """:raises NameUnresolved: when there is no usable answer."""
        async with self._turn(name):
            found, ttl_s = await self._question(name, socket.AF_UNSPEC)
            # One family's failure is hidden by the other's success, and looks as if there were no such addresses.
            lost = {ip.version for ip in self._last(name)} - {ip.version for ip in found}
            problem = None
            for version in lost:
                try:
                    alone, alone_ttl_s = await self._question(name, _FAMILY[version])
                    found, ttl_s = found | alone, min(ttl_s, alone_ttl_s)
                except _Absent:
                    continue
                except NameUnresolved as failure:
                    found |= {ip for ip in self._last(name) if ip.version == version}
                    problem = failure
        return _Answer(_reachable(found), ttl_s, problem)

    def _last(self, name: str) -> set[_Address]:
        return {ipaddress.ip_address(address) for address in self._facts[name].value or ()}

    async def _question(self, name: str, family: socket.AddressFamily) -> tuple[set[_Address], float]:
        """Return the addresses, at least one, and the TTL in seconds: of the alias, if that is shorter."""
        try:
            async with self._borrowed_channel() as channel, asyncio.timeout(self._timeout_s):
                answer = await channel.getaddrinfo(name, family=family, type=socket.SOCK_STREAM)
        except aiodns.error.DNSError as error:
            kind = _Absent if _is_answer(error) else NameUnresolved
            raise _unresolved(name, str(error.args[-1] if error.args else error), kind) from error
        except TimeoutError as error:
            raise _unresolved(name, f"no answer within {self._timeout_s:g} s") from error
        except (UnicodeError, ValueError) as error:
            raise NameUnresolved(f"{name!r} is not a hostname; correct the address in the catalog") from error
        found = {ipaddress.ip_address(_text(node.addr[0])) for node in answer.nodes}
        if not found:
            raise _unresolved(name, "the answer holds no address", _Absent)
        ttls_s = [node.ttl for node in answer.nodes] + [alias.ttl for alias in answer.cnames]
        return found, float(min(ttls_s))

    @contextlib.asynccontextmanager
    async def _turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a turn to ask, and give it back when the answer has come or is slow to come."""
        await self._free.acquire()
        given_back = False

        def slow() -> None:
            nonlocal given_back
            given_back = True
            self._free.release()
            fact = self._facts.get(name)
            if fact is not None and not fact.known and fact.problem is None:
                self._note(name, fact.failed(_unresolved(name, f"no answer for {_SLOW_S:g} s, and none yet")))

        timer = asyncio.get_running_loop().call_later(_SLOW_S, slow)
        try:
            yield
        finally:
            timer.cancel()
            if not given_back:
                self._free.release()

    @contextlib.asynccontextmanager
    async def _borrowed_channel(self) -> AsyncIterator[aiodns.DNSResolver]:
        """A channel that failed is given up, so that the next one reads /etc/resolv.conf as it is then. So is an old
        one: it remembers answers for as long as their TTL says, also beyond the ceiling, and for an hour that a name
        has no address. A channel that was given up is closed when the last question that it carries has ended."""
        now_s = time.monotonic()
        former, channel = self._channel, self._channel
        if channel is None or now_s - self._channel_since_s >= self._channel_age_s:
            channel = self._channel = self._make_channel()
            self._channel_since_s = now_s
        self._users[channel] = self._users.get(channel, 0) + 1
        try:
            if former is not channel:
                await self._close_unused(former)
            yield channel
        except (aiodns.error.DNSError, TimeoutError) as error:
            if channel is self._channel and not (isinstance(error, aiodns.error.DNSError) and _is_answer(error)):
                self._channel = None
            raise
        finally:
            self._users[channel] -= 1
            if channel is not self._channel:
                await self._close_unused(channel)

    def _note(self, name: str, fact: Fact[tuple[str, ...]]) -> None:
        before, self._facts[name] = self._facts[name], fact
        if (before.value, str(before.problem)) != (fact.value, str(fact.problem)):
            self._on_change(frozenset({name}))

    async def _close_unused(self, channel: aiodns.DNSResolver | None) -> None:
        if channel is not None and self._users.get(channel) == 0:
            del self._users[channel]
            await channel.close()


def channels(servers: Sequence[HostPort]) -> Callable[[], aiodns.DNSResolver]:
    """Make channels to ``servers``, or to those of /etc/resolv.conf when there are none."""
    return functools.partial(aiodns.DNSResolver, [str(server) for server in servers] or None)


def _is_answer(error: aiodns.error.DNSError) -> bool:
    return bool(error.args) and error.args[0] in _ANSWERS


def _unresolved(name: str, why: str, kind: type[NameUnresolved] = NameUnresolved) -> NameUnresolved:
    return kind(f"{name} cannot be resolved: {why}; check the name, and /etc/resolv.conf of this host")


def _text(address: str | bytes) -> str:
    return address.decode("ascii") if isinstance(address, bytes) else address


def _reachable(addresses: Iterable[_Address]) -> tuple[str, ...]:
    """Sort, IPv4 first, and leave out the family that this host has no route for, unless nothing would be left."""
    ordered = sorted(addresses, key=lambda ip: (ip.version, int(ip)))
    routed = [ip for ip in ordered if _has_route(str(ip), ip.version)]
    return tuple(str(ip) for ip in routed or ordered)


def _has_route(address: str, version: int) -> bool:
    # Connecting a datagram socket sends nothing: it only asks the kernel for a route.
    try:
        with socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError as error:
        return error.errno not in _NO_ROUTE
    return True
