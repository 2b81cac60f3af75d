"""Handshakes by age: who loses the place, and one timer for all deadlines."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.carrier import Carrier
from proxy.connection import ConnectionLife
from proxy.model import CloseReason
from proxy.pending import PendingHandshakes


class Clock:
    """The part of an event loop that is used; time passes by :meth:`go`."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now_s

    def call_later(self, seconds: float, callback: Any) -> Any:
        self.timers.append((self.now_s + seconds, callback))
        return SimpleNamespace(cancel=lambda: None)

    def go(self, until_s: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= until_s]:
            timer = min(due, key=lambda one: one[0])
            self.timers.remove(timer)
            self.now_s = timer[0]
            timer[1]()
        self.now_s = until_s


class FakeCarrier:
    def __init__(self, number: int, now_s: float) -> None:
        self.life = ConnectionLife(number, "127.0.0.1:1", wall_s=0, monotonic_s=now_s)
        self.ended: list[CloseReason] = []

    def close(self, reason: CloseReason, _detail: str) -> None:
        self.ended.append(reason)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pending(clock: Clock) -> PendingHandshakes:
    return PendingHandshakes(cast(asyncio.AbstractEventLoop, clock), 10.0)


def add(pending: PendingHandshakes, clock: Clock, number: int) -> FakeCarrier:
    carrier = FakeCarrier(number, clock.now_s)
    pending.add(cast(Carrier, carrier))
    return carrier


def number(carrier: Carrier | None) -> int | None:
    return carrier.life.number if carrier else None


def test_the_oldest_silent_one_goes_before_the_oldest(pending: PendingHandshakes, clock: Clock) -> None:
    for one in (1, 2, 3):
        add(pending, clock, one)
    pending.heard(1)
    assert (number(pending.oldest()), number(pending.oldest_silent())) == (2, 2)
    pending.heard(2)
    pending.over(3)
    assert (number(pending.oldest()), number(pending.oldest_silent())) == (1, None)
    pending.over(1)
    pending.over(2)
    pending.over(2)
    assert (pending.oldest(), len(pending)) == (None, 0)


def test_each_has_its_whole_time_and_one_timer_serves_all(pending: PendingHandshakes, clock: Clock) -> None:
    first = add(pending, clock, 1)
    clock.go(4)
    second, finished = add(pending, clock, 2), add(pending, clock, 3)
    pending.heard(2)
    pending.over(3)
    assert len(clock.timers) == 1
    clock.go(9.9)
    assert first.ended == []
    clock.go(10.1)
    assert (first.ended, second.ended) == ([CloseReason.HANDSHAKE_TIMEOUT], [])
    clock.go(14.1)
    assert second.ended == [CloseReason.HANDSHAKE_TIMEOUT]
    assert finished.ended == []
    clock.go(100)
    assert (len(pending), clock.timers) == (0, [])


def test_the_timer_starts_again_after_a_pause(pending: PendingHandshakes, clock: Clock) -> None:
    add(pending, clock, 1)
    pending.over(1)
    clock.go(50)
    late = add(pending, clock, 2)
    clock.go(60)
    assert late.ended == [CloseReason.HANDSHAKE_TIMEOUT]
