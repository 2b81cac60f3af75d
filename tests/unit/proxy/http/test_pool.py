"""Which connections are kept, which are given away, and which are used no more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import ClassVar, cast

import pytest

from proxy.http.message import RequestHead, Version
from proxy.http.pool import FRESH_S, IDLE_S, Member, Pools
from proxy.http.streams import Outgoing, OutgoingEvents
from proxy.model import Balance, Endpoint, Keepalive, ServiceName
from proxy.tls.context import UpstreamContext
from proxy.upstream.balance import EndpointSet
from proxy.upstream.dial import Target
from proxy.upstream.rivals import Rivals

ONE, TWO = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)
DB, API = ServiceName("db"), ServiceName("api")
HEAD = RequestHead(b"GET", b"/", b"db", Version.HTTP_1_1)


class Connection:
    """As the pool sees it; ``most`` requests at a time."""

    announces_end: ClassVar[bool] = False

    def __init__(self, member: Member, most: int = 1) -> None:
        self.member = member
        self.most = most
        self.open_requests = 0
        self.closed = False

    @property
    def available(self) -> bool:
        return not self.closed and self.open_requests < self.most

    def request(self, head: RequestHead, events: OutgoingEvents, *, end: bool) -> Outgoing:
        self.open_requests += 1
        return cast(Outgoing, None)

    def close(self) -> None:
        self.closed = True
        self.member.on_gone(self)

    def answered(self) -> None:
        self.open_requests -= 1
        self.member.on_available(self)


class Bench:
    def __init__(self, most: int = 10) -> None:
        self.loop = asyncio.new_event_loop()
        self.now_s = 1_000.0
        self.pools = Pools(self.loop, most)
        self.pools.now_s = lambda: self.now_s

    def target(self, *endpoints: Endpoint, tls: object = None, keepalive: Keepalive | None = None) -> Target:
        return Target(
            endpoints=EndpointSet(endpoints, Balance()),
            rivals=Rivals(endpoints),
            connect_timeout_s=1.0,
            tls=cast(UpstreamContext, tls),
            keepalive=keepalive,
        )

    def add(self, target: Target, endpoint: Endpoint, *, most: int = 1, current: bool = True) -> Connection:
        def made(member: Member) -> Connection:
            return Connection(member, most)

        return cast(Connection, self.pools.of(DB).add(target, endpoint, made, current=current).connection)

    def take(self, target: Target, endpoint: Endpoint = ONE, *, repeatable: bool = True) -> Connection | None:
        member = self.pools.of(DB).take(target, endpoint, repeatable=repeatable)
        if member is None:
            return None
        member.request(HEAD, cast(OutgoingEvents, None), end=True)
        return cast(Connection, member.connection)


@pytest.fixture
def bench() -> Iterator[Bench]:
    one = Bench()
    yield one
    one.loop.close()


def test_a_connection_is_given_to_one_request_at_a_time(bench: Bench) -> None:
    target = bench.target(ONE)
    assert bench.take(target) is None
    connection = bench.add(target, ONE)
    assert bench.take(target) is connection
    assert bench.take(target) is None
    connection.answered()
    assert bench.take(target) is connection
    assert connection.member.served == 2


def test_one_of_http2_is_given_to_as_many_as_it_takes(bench: Bench) -> None:
    target = bench.target(ONE)
    connection = bench.add(target, ONE, most=2)
    assert [bench.take(target) for _ in range(3)] == [connection, connection, None]
    connection.answered()
    assert bench.take(target) is connection


def test_the_one_that_was_used_last_is_used_first(bench: Bench) -> None:
    target = bench.target(ONE)
    first, second = bench.add(target, ONE), bench.add(target, ONE)
    assert [bench.take(target), bench.take(target)] == [second, first]
    second.answered()
    first.answered()
    assert bench.take(target) is first


def test_a_place_and_settings_of_its_own_have_connections_of_their_own(bench: Bench) -> None:
    tls = object()
    plain, secured, kept = bench.target(ONE, TWO), bench.target(ONE, tls=tls), bench.target(ONE, keepalive=Keepalive(9))
    bench.add(plain, ONE)
    assert bench.take(plain, TWO) is None
    assert bench.take(secured) is None
    assert bench.take(bench.target(ONE, tls=object())) is None
    assert bench.take(kept) is None
    assert bench.pools.of(API).take(plain, ONE, repeatable=True) is None
    assert bench.take(bench.target(ONE)) is not None


def test_a_request_that_may_not_be_repeated_gets_a_fresh_one_only(bench: Bench) -> None:
    target = bench.target(ONE)
    connection = bench.add(target, ONE)
    bench.now_s += FRESH_S + 1
    assert bench.take(target, repeatable=False) is None
    assert bench.take(target) is connection
    connection.answered()
    assert bench.take(target, repeatable=False) is connection
    # One that carries others is known to live.
    several = bench.add(target, TWO, most=5)
    bench.take(target, TWO)
    bench.now_s += FRESH_S + 1
    assert bench.take(target, TWO, repeatable=False) is several


def test_one_of_http2_that_was_idle_is_fresh_enough(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    target = bench.target(ONE)
    connection = bench.add(target, ONE)
    monkeypatch.setattr(Connection, "announces_end", True)
    bench.now_s += FRESH_S + 1
    assert bench.take(target, repeatable=False) is connection


def test_idle_ones_end_after_a_while_and_busy_ones_do_not(bench: Bench) -> None:
    target = bench.target(ONE)
    busy, idle = bench.add(target, ONE), bench.add(target, ONE)
    assert bench.take(target) is idle
    assert bench.take(target) is busy
    bench.now_s += IDLE_S + 1
    idle.answered()
    bench.pools._sweep()
    assert (busy.closed, idle.closed) == (False, False)
    bench.now_s += IDLE_S + 1
    bench.pools._sweep()
    assert (busy.closed, idle.closed) == (False, True)
    busy.answered()
    assert bench.take(target) is busy


def test_changed_settings_end_what_is_idle_now_and_what_is_busy_later(bench: Bench) -> None:
    former = bench.target(ONE)
    busy, idle = bench.add(former, ONE), bench.add(former, ONE)
    assert bench.take(former) is idle
    busy, idle = idle, busy
    bench.pools.keep(DB, [bench.target(ONE, tls=object())])
    assert (busy.closed, idle.closed) == (False, True)
    assert bench.take(former) is None
    busy.answered()
    assert busy.closed
    assert len(bench.pools) == 0


def test_unchanged_settings_keep_what_is_there(bench: Bench) -> None:
    connection = bench.add(bench.target(ONE), ONE)
    bench.pools.keep(DB, [bench.target(TWO, ONE)])
    assert bench.take(bench.target(ONE)) is connection


def test_one_that_was_dialled_under_former_settings_serves_only_who_waited(bench: Bench) -> None:
    target = bench.target(ONE)
    late = bench.add(target, ONE, current=False)
    assert bench.take(target) is None
    late.member.request(HEAD, cast(OutgoingEvents, None), end=True)
    late.answered()
    assert late.closed


def test_one_that_has_gone_is_not_given_away(bench: Bench) -> None:
    target = bench.target(ONE)
    gone = bench.add(target, ONE)
    gone.member.on_gone(gone)
    assert bench.take(target) is None
    gone.member.on_available(gone)
    assert bench.take(target) is None
    assert len(bench.pools) == 0


def test_idle_ones_make_room(bench: Bench) -> None:
    target = bench.target(ONE)
    connections = [bench.add(target, ONE) for _ in range(10)]
    while bench.take(target):
        pass
    assert not bench.pools.has_room()
    connections[3].answered()
    assert bench.pools.has_room()
    assert connections[3].closed
    assert sum(one.closed for one in connections) == 1
