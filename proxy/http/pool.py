"""Connections to external services that are kept for the next request.

A connection belongs to one place (address and port) of one service, and to the TLS settings and the keepalive it was
made with: what was made under others is used no more, so that a changed CAFile or client certificate is never passed
by an older connection. Requests of different callers share connections: who may ask was decided before, for each
request.

Idle connections of HTTP/1 end after ``IDLE_S``. Servers end them, too, after a time of their own, and a request that
is sent at that moment is lost: 30 s is below the 60 s and more of most proxies and load balancers (nginx 75 s, cloud
balancers 60 s). Some servers wait for 5 s only (Node.js, Apache, uvicorn), so a request that may not be repeated
(RFC 9110 section 9.2.2) is given no connection of HTTP/1 that was idle for longer than ``FRESH_S``. One of HTTP/2 says
which requests it did not look at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from proxy.http.message import RequestHead
from proxy.http.streams import ClientConnection, Outgoing, OutgoingEvents
from proxy.model import Endpoint, Keepalive, ServiceName
from proxy.upstream.ejection import Place

if TYPE_CHECKING:
    from proxy.tls.context import UpstreamContext
    from proxy.upstream.dial import Target

IDLE_S = 30.0
FRESH_S = 4.0
_SWEEP_S = 5.0
_MOST_IDLE = 256
"""For each place: more come back from a burst than are needed next."""

Key = tuple[Place, "UpstreamContext | None", Keepalive | None]


def key_of(target: Target, endpoint: Endpoint) -> Key:
    return (endpoint.address, endpoint.port), target.tls, target.keepalive


class Member:
    """One connection of the pool; hears of it as :class:`proxy.http.streams.ClientEvents`."""

    __slots__ = ("_group", "connection", "endpoint", "free_since_s", "gone", "listed", "served")

    def __init__(self, group: _Group, endpoint: Endpoint) -> None:
        self._group = group
        self.connection: ClientConnection
        self.endpoint = endpoint
        self.served = 0
        """Requests that it was given."""
        self.free_since_s = 0.0
        self.listed = False
        """It is among those that take a request now."""
        self.gone = False

    def request(self, head: RequestHead, events: OutgoingEvents, *, end: bool) -> Outgoing:
        self.served += 1
        outgoing = self.connection.request(head, events, end=end)
        if self.listed and not self.connection.available:
            self._group.unlist(self)
        return outgoing

    def on_available(self, connection: ClientConnection) -> None:
        self._group.returned(self)

    def on_gone(self, connection: ClientConnection) -> None:
        self._group.lost(self)


class _Group:
    """The connections to one place under one set of settings."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self.all: set[Member] = set()
        self.free: list[Member] = []
        """Those that take a request; the one that was used last is last, so that the others grow old."""
        self.retired = False
        """Its settings are not in force any more."""

    def take(self, youngest_s: float) -> Member | None:
        """One that was given back after ``youngest_s``, of the clock of the event loop."""
        while self.free:
            member = self.free[-1]
            if not member.connection.available:
                self.unlist(member)
            elif (
                member.free_since_s >= youngest_s or member.connection.open_requests or member.connection.announces_end
            ):
                return member
            else:
                return None
        return None

    def unlist(self, member: Member) -> None:
        if member.listed:
            member.listed = False
            self.free.remove(member)

    def returned(self, member: Member) -> None:
        if member.gone or not member.connection.available:
            return
        if not member.connection.open_requests:
            if self.retired:
                self.close(member)
                return
            member.free_since_s = self._pools.now_s()
        if not member.listed and not self.retired:
            member.listed = True
            self.free.append(member)
            if len(self.free) > _MOST_IDLE and not self.free[0].connection.open_requests:
                self.close(self.free[0])

    def lost(self, member: Member) -> None:
        if not member.gone:
            member.gone = True
            self.unlist(member)
            self.all.discard(member)
            self._pools.ended()

    def close(self, member: Member) -> None:
        self.lost(member)
        member.connection.close()

    def idle(self) -> Iterator[Member]:
        """The oldest first."""
        return (member for member in self.free if not member.connection.open_requests)

    def close_idle(self, until_s: float) -> None:
        for member in [one for one in self.idle() if one.free_since_s <= until_s]:
            self.close(member)

    def retire(self) -> None:
        """Close what is idle now, and the others when their last request has ended."""
        self.retired = True
        self.close_idle(float("inf"))


class ServicePool:
    """Of one service."""

    def __init__(self, pools: Pools) -> None:
        self._pools = pools
        self._groups: dict[Key, _Group] = {}
        self._retired: list[_Group] = []
        self.dialling: dict[Key, object] = {}
        """Connections on their way that several requests wait for."""

    @property
    def connections(self) -> int:
        return sum(len(group.all) for group in self.groups())

    def groups(self) -> Iterator[_Group]:
        yield from self._groups.values()
        yield from self._retired

    def take(self, target: Target, endpoint: Endpoint, *, repeatable: bool) -> Member | None:
        """A connection that takes a request to ``endpoint`` now.

        :param repeatable: the request may be sent again if the connection turns out to have ended.
        """
        group = self._groups.get(key_of(target, endpoint))
        if group is None:
            return None
        return group.take(self._pools.now_s() - (IDLE_S if repeatable else FRESH_S))

    def add(
        self, target: Target, endpoint: Endpoint, made: Callable[[Member], ClientConnection], *, current: bool
    ) -> Member:
        """Take in a new connection, which ``made`` makes.

        :param current: false: the settings it was dialled with are not in force any more, it serves who waits for it.
        """
        key = key_of(target, endpoint)
        if current:
            group = self._groups.setdefault(key, _Group(self._pools))
        else:
            group = _Group(self._pools)
            group.retired = True
            self._retired.append(group)
        member = Member(group, endpoint)
        member.connection = made(member)
        member.free_since_s = self._pools.now_s()
        group.all.add(member)
        self._pools.began()
        if current and not member.gone and member.connection.available:
            member.listed = True
            group.free.append(member)
        return member

    def keep(self, keys: Iterable[Key]) -> None:
        """Everything under other keys is used no more."""
        wanted = set(keys)
        for key in [one for one in self._groups if one not in wanted]:
            group = self._groups.pop(key)
            group.retire()
            self._retired.append(group)
        self.tidy()

    def tidy(self) -> None:
        for key in [key for key, group in self._groups.items() if not group.all]:
            del self._groups[key]
        self._retired = [group for group in self._retired if group.all]


class Pools:
    """Of one worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        """``most`` connections at a time, of all services together."""
        self._loop = loop
        self._most = most
        self._open = 0
        self._services: dict[ServiceName, ServicePool] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.now_s = loop.time

    def __len__(self) -> int:
        return self._open

    def of(self, service: ServiceName) -> ServicePool:
        pool = self._services.get(service)
        if pool is None:
            pool = self._services[service] = ServicePool(self)
        return pool

    def has_room(self) -> bool:
        """Whether one more may be dialled; an idle one makes room for it."""
        if self._open < self._most:
            return True
        for pool in self._services.values():
            for group in pool.groups():
                for member in group.idle():
                    group.close(member)
                    return True
        return False

    def keep(self, service: ServiceName, targets: Iterable[Target]) -> None:
        """These are the targets of ``service`` that are in force; none when it is gone."""
        pool = self._services.get(service)
        if pool is not None:
            pool.keep(key_of(target, endpoint) for target in targets for endpoint in target.endpoints.endpoints)

    def close_idle(self) -> None:
        """The worker stops."""
        for pool in self._services.values():
            for group in list(pool.groups()):
                group.close_idle(float("inf"))

    def began(self) -> None:
        self._open += 1
        self._sweep_later()

    def ended(self) -> None:
        self._open -= 1
        if not self._open and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self) -> None:
        self._timer = None
        old_s = self.now_s() - IDLE_S
        for name, pool in list(self._services.items()):
            for group in list(pool.groups()):
                group.close_idle(old_s)
            pool.tidy()
            if not pool.connections and not pool.dialling:
                del self._services[name]
        if self._open:
            self._sweep_later()

    def _sweep_later(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(_SWEEP_S, self._sweep)
