"""Timers that share one of the event loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.sockets.timers import Timers

SLICE_S = 0.1


class Loop(asyncio.SelectorEventLoop):
    """Its clock is set by hand, and it is turned by hand."""

    now_s = 1_000.0

    def time(self) -> float:
        return self.now_s

    def pass_time(self, seconds: float) -> None:
        """In small steps, with everything called that is due."""
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            self.now_s = min(self.now_s + SLICE_S / 4, until_s)
            for _ in range(2):
                self.call_soon(self.stop)
                self.run_forever()

    def set_timers(self) -> int:
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return sum(not one.cancelled() for one in scheduled)


@pytest.fixture
def loop() -> Iterator[Loop]:
    one = Loop()
    yield one
    one.close()


class Calls:
    """When what was called."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.timers = Timers(loop)
        self.made: list[tuple[float, Any]] = []

    def after(self, seconds: float, name: str) -> Any:
        return self.timers.call_later(seconds, self._call, name)

    def _call(self, name: str) -> None:
        self.made.append((self.loop.now_s, name))

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.made]


@pytest.fixture
def calls(loop: Loop) -> Calls:
    return Calls(loop)


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1.0, 1.04, 5.0, 31.99])
def test_a_timer_is_never_early_and_hardly_late(loop: Loop, calls: Calls, seconds: float) -> None:
    began_s = loop.now_s
    calls.after(seconds, "it")
    loop.pass_time(seconds + 1)
    ((at_s, _),) = calls.made
    assert seconds - 0.000_001 <= at_s - began_s <= seconds + SLICE_S + SLICE_S / 2


def test_they_come_in_order_whatever_the_order_they_were_set_in(loop: Loop, calls: Calls) -> None:
    for seconds in (7.0, 2.0, 30.0, 2.5, 1.2):
        calls.after(seconds, f"{seconds}")
    loop.pass_time(40)
    assert calls.names == ["1.2", "2.0", "2.5", "7.0", "30.0"]


def test_thousands_cost_the_loop_one_timer(loop: Loop, calls: Calls) -> None:
    for number in range(3_000):
        calls.after(5.0 + number / 100, "it")
    assert loop.set_timers() == 1


def test_a_cancelled_one_is_not_called_and_may_be_cancelled_again(loop: Loop, calls: Calls) -> None:
    first, _ = calls.after(2.0, "first"), calls.after(2.0, "second")
    first.cancel()
    first.cancel()
    loop.pass_time(5)
    first.cancel()
    assert calls.names == ["second"]


def test_the_loop_is_not_woken_for_what_was_cancelled(loop: Loop, calls: Calls) -> None:
    first = calls.after(2.0, "first")
    for seconds in (10.0, 20.0, 30.0):
        calls.after(seconds, "cancelled").cancel()
    calls.after(40.0, "last")
    first.cancel()
    loop.pass_time(3)
    (wake,) = [one for one in loop._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
    assert wake.when() > loop.now_s + 35
    loop.pass_time(45)
    assert calls.names == ["last"]
    assert loop.set_timers() == 0


def test_one_of_a_slice_may_cancel_the_other(loop: Loop, calls: Calls) -> None:
    others: list[Any] = []
    calls.timers.call_later(2.0, lambda: others[0].cancel())
    others.append(calls.after(2.0, "other"))
    loop.pass_time(5)
    assert calls.names == []


def test_one_that_is_called_may_set_the_next(loop: Loop, calls: Calls) -> None:
    def again() -> None:
        calls.made.append((loop.now_s, "again"))
        if len(calls.made) < 3:
            calls.timers.call_later(2.0, again)

    calls.timers.call_later(2.0, again)
    loop.pass_time(20)
    assert calls.names == ["again"] * 3


def test_what_one_does_wrong_is_no_others_concern(loop: Loop, calls: Calls) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    calls.timers.call_later(2.0, [].pop)
    calls.after(2.0, "other")
    loop.pass_time(5)
    assert calls.names == ["other"]
    assert [type(context["exception"]) for context in told] == [IndexError]
