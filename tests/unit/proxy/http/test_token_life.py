"""When a token ends a request, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest

from proxy.http.token_life import GRACE_S, TokenLife
from proxy.sockets.timers import Timers


class Stage:
    """Timers of which each one is run when its time has come."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.ended_s: list[float] = []
        self._timers: list[tuple[float, Any, asyncio.TimerHandle]] = []
        self._loop = asyncio.new_event_loop()

    def call_later(self, seconds: float, callback: Any) -> asyncio.TimerHandle:
        handle = self._loop.call_later(1e6, lambda: None)
        self._timers.append((self.now_s + seconds, callback, handle))
        return handle

    def life(self, valid_until_s: float, *, lasting: bool) -> TokenLife:
        return TokenLife(cast(Timers, self), valid_until_s, lambda: self.ended_s.append(self.now_s), lasting=lasting)

    def passes(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while due := [one for one in self._timers if one[0] <= until_s and not one[2].cancelled()]:
            first = min(due, key=lambda one: one[0])
            self._timers.remove(first)
            self.now_s = max(self.now_s, first[0])
            first[1]()
        self.now_s = until_s

    def close(self) -> None:
        self._loop.close()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    made = Stage()
    monkeypatch.setattr("proxy.http.token_life.time.time", lambda: made.now_s)
    yield made
    made.close()


def test_a_stream_ends_with_its_token(stage: Stage) -> None:
    stage.life(1_500.0, lasting=True)
    stage.passes(499.0)
    assert stage.ended_s == []
    stage.passes(2.0)
    assert stage.ended_s == [1_500.0]
    stage.passes(GRACE_S * 2)
    assert stage.ended_s == [1_500.0]


def test_anything_else_ends_an_hour_later(stage: Stage) -> None:
    stage.life(1_500.0, lasting=False)
    stage.passes(500.0 + GRACE_S - 1.0)
    assert stage.ended_s == []
    stage.passes(2.0)
    assert stage.ended_s == [1_500.0 + GRACE_S]


def test_what_turns_out_to_be_a_stream_ends_as_one(stage: Stage) -> None:
    one = stage.life(1_500.0, lasting=False)
    stage.passes(100.0)
    one.lasts()
    one.lasts()
    stage.passes(500.0)
    assert stage.ended_s == [1_500.0]
    late = stage.life(1_500.0, lasting=False)
    late.lasts()
    assert len(stage.ended_s) == 1, "not in the same turn"
    stage.passes(0.0)
    assert len(stage.ended_s) == 2


def test_a_clock_that_is_set_counts_within_a_minute(stage: Stage) -> None:
    stage.life(100_000.0, lasting=True)
    stage.passes(10.0)
    stage.now_s = 100_001.0
    stage.passes(0.0)
    assert len(stage.ended_s) == 1


def test_what_has_ended_before_is_left_alone(stage: Stage) -> None:
    stage.life(1_500.0, lasting=True).stop()
    stage.passes(GRACE_S)
    assert stage.ended_s == []
