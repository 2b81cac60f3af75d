from __future__ import annotations

import logging

import pytest

from plugin.consul.poller import WatchState
from plugin.observe import freshness
from plugin.observe.freshness import Freshness, wait_s


def watch(name: str, age_s: float | None) -> WatchState:
    return WatchState(name=name, index=1, age_s=age_s, problem="", requests=1)


def healthy(age_s: float = 1.0) -> list[WatchState]:
    names = ("linked services", "terminating-gateway entry", "roots", "mesh", "intentions", "instances of db")
    return [watch(name, age_s) for name in names]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(freshness, "time", clock)
    return clock


def test_the_kind_that_was_confirmed_longest_ago_decides() -> None:
    assert Freshness(lambda: [*healthy(2.0), watch("service-resolver", 40.0)]).age_s() == 40.0


def test_what_is_asked_for_rarely_is_shown_and_does_not_decide() -> None:
    tracked = Freshness(lambda: [*healthy(), watch("leaf of db", 9_000.0), watch("default intention action", 170.0)])
    assert tracked.age_s() == 1.0
    assert (tracked.ages_s()["leaves"], tracked.ages_s()["default action"]) == (9_000.0, 170.0)


def test_one_service_that_may_not_be_read_makes_no_state_old() -> None:
    states = [*healthy(), watch("instances of secret", 5_000.0), watch("instances of never", None)]
    assert Freshness(lambda: states).age_s() == 1.0


def test_nothing_known_has_no_age(clock: Clock) -> None:
    told: list[bool] = []
    tracked = Freshness(lambda: [watch("roots", None)], max_age_s=10.0, stale=told.append)
    tracked.look()
    assert (tracked.age_s(), tracked.ages_s(), told) == (None, {}, [])


def test_what_was_restored_counts_on_until_consul_confirms_it(clock: Clock) -> None:
    states = [watch("roots", None), watch("intentions", None), watch("linked services", None)]
    tracked = Freshness(lambda: states)
    tracked.restored({"roots": 30.0, "intentions": 70.0, "links": 10.0})
    clock.now_s += 5.0
    assert tracked.age_s() == 75.0
    states[1] = watch("intentions", 0.5)
    assert tracked.age_s() == 35.0


def test_an_old_state_is_warned_of_once_and_its_end_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ages_s = [1.0, 121.0, 500.0, 2.0, 3.0]
    tracked = Freshness(lambda: healthy(ages_s[0]))
    while ages_s:
        tracked.look()
        del ages_s[0]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_the_maximum_is_told_when_it_is_passed_and_when_it_no_longer_is() -> None:
    told: list[bool] = []
    ages_s = [1.0, 29.0, 31.0, 60.0, 0.1, 0.2]
    tracked = Freshness(lambda: healthy(ages_s[0]), max_age_s=30.0, stale=told.append)
    while ages_s:
        tracked.look()
        del ages_s[0]
    assert told == [True, False]


def test_without_a_maximum_nothing_is_too_old() -> None:
    told: list[bool] = []
    tracked = Freshness(lambda: healthy(1e9), stale=told.append)
    tracked.look()
    assert (told, tracked.too_old) == ([], False)


@pytest.mark.parametrize(("maximum_s", "expected_s"), [(0.0, 55.0), (30.0, 10.0), (3600.0, 55.0)])
def test_questions_are_held_shorter_than_the_maximum(maximum_s: float, expected_s: float) -> None:
    assert wait_s(maximum_s) == expected_s
