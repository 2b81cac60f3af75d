"""How the comparison keeps to its deadline."""

from __future__ import annotations

import pytest

from bench.pace import OVERHEAD_S, Clock, Cost, Pace, slower

WANTED = Pace(5, 2.0)
ONE = Cost(10.0)
"""A part that takes 120 s at the wanted pace."""


def clock(deadline_s: float, **costs: Cost) -> Clock:
    return Clock(WANTED, costs, now_s=0.0, deadline_s=deadline_s)


def test_seconds_go_before_rounds_and_three_rounds_stay() -> None:
    assert [str(pace) for pace in slower(WANTED)] == [
        *("5 rounds of 2 s", "5 rounds of 1.5 s", "5 rounds of 1 s"),
        *("4 rounds of 1 s", "3 rounds of 1 s"),
    ]


def test_a_cost_is_of_rounds_with_their_overhead_and_of_what_is_fixed() -> None:
    assert Cost(10.0, 7.0).at(Pace(5, 2.0)) == pytest.approx(10 * 5 * (2.0 + OVERHEAD_S) + 7.0)
    assert Cost(1.0, 2.0) + Cost(3.0, 4.0) == Cost(4.0, 6.0)


def test_with_time_enough_nothing_is_shortened() -> None:
    timed = clock(241.0, first=ONE, second=ONE)
    assert timed.begin("first", 0.0) == WANTED
    timed.end(120.0)
    assert timed.begin("second", 120.0) == WANTED


def test_what_is_still_to_come_shortens_the_first_part_already() -> None:
    assert clock(200.0, first=ONE, second=ONE).begin("first", 0.0) == Pace(5, 1.5)
    assert clock(145.0, first=ONE, second=ONE).begin("first", 0.0) == Pace(5, 1.0)
    assert clock(90.0, first=ONE, second=ONE).begin("first", 0.0) == Pace(3, 1.0)


def test_a_machine_that_is_slower_than_planned_is_given_less_to_do() -> None:
    timed = clock(400.0, first=ONE, second=ONE)
    assert timed.begin("first", 0.0) == WANTED
    timed.end(240.0)
    # 160 s are left, in which this machine does what was planned for 80.
    assert timed.begin("second", 240.0) == Pace(5, 1.0)


def test_a_part_for_which_no_time_is_left_is_left_out() -> None:
    timed = clock(100.0, first=ONE, last=Cost(0.0, 30.0))
    assert timed.begin("first", 0.0) == Pace(5, 1.0)
    timed.end(95.0)
    assert timed.begin("last", 95.0) is None
