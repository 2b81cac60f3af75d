"""Endpoints that answer with errors alone are left out, a tenth of all of them at most."""

from __future__ import annotations

import pytest

from proxy.model import Balance, BalancePolicy, Endpoint
from proxy.upstream.balance import EndpointSet
from proxy.upstream.failing import ERRORS, FIRST_S, LONGEST_S, Failing
from tests.support.clock import Clock

ALL = tuple(Endpoint(f"10.0.0.{number}", 80) for number in range(1, 21))
A, B, C = ALL[:3]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def failing(clock: Clock) -> Failing:
    return Failing(clock)


def fail(failing: Failing, endpoint: Endpoint, times: int = ERRORS, of: int = 20) -> float | None:
    return [failing.failed(endpoint, of) for _ in range(times)][-1]


def test_errors_in_a_row_take_one_out_for_a_while(failing: Failing, clock: Clock) -> None:
    assert fail(failing, A, ERRORS - 1) is None
    assert not failing.out(A)
    assert failing.failed(A, 20) == FIRST_S
    assert [failing.out(one) for one in (A, B)] == [True, False]
    assert failing.failed(A, 20) is None
    clock.now_s += FIRST_S
    assert not failing.out(A)


def test_another_answer_between_them_begins_the_count_anew(failing: Failing) -> None:
    fail(failing, A, ERRORS - 1)
    failing.succeeded(A)
    assert fail(failing, A, ERRORS - 1) is None


def test_no_more_than_a_tenth_is_out(failing: Failing, clock: Clock) -> None:
    assert fail(failing, A) == fail(failing, B) == FIRST_S
    assert fail(failing, C) is None
    clock.now_s += FIRST_S
    assert fail(failing, C) == FIRST_S
    for few in range(1, 10):
        assert fail(Failing(clock), A, of=few) is None
    assert fail(Failing(clock), A, of=10) == FIRST_S


def test_each_further_time_is_longer_until_it_has_worked_for_long(failing: Failing, clock: Clock) -> None:
    for time in range(1, 13):
        left_out_s = fail(failing, A)
        assert left_out_s == min(FIRST_S * time, LONGEST_S)
        clock.now_s += left_out_s
    failing.succeeded(A)
    clock.now_s += LONGEST_S + 1
    failing.succeeded(A)
    assert not failing
    assert fail(failing, A) == FIRST_S


def test_what_is_gone_is_forgotten(failing: Failing) -> None:
    fail(failing, A)
    fail(failing, B)
    failing.keep({("10.0.0.2", 80)})
    assert [failing.out(one) for one in (A, B)] == [False, True]


@pytest.mark.parametrize("policy", [BalancePolicy.ROUND_ROBIN, BalancePolicy.RANDOM, BalancePolicy.LEAST_REQUEST])
def test_requests_go_elsewhere_meanwhile(clock: Clock, policy: BalancePolicy) -> None:
    endpoints = EndpointSet(ALL[:10], Balance(policy), now=clock)
    assert endpoints.learns_from_answers
    assert sum(endpoints.answered(A, failed=True) for _ in range(ERRORS)) == 1
    assert endpoints.left_out() == (A,)
    assert A not in {endpoints.first("") for _ in range(200)}
    changed = EndpointSet(ALL[:11], Balance(policy), now=clock)
    changed.take_over(endpoints)
    assert changed.left_out() == (A,)
    few = EndpointSet(ALL[:9], Balance(policy), now=clock)
    few.take_over(changed)
    assert not few.learns_from_answers
    assert few.left_out() == ()
    clock.now_s += FIRST_S
    assert A in {changed.first("") for _ in range(500)}
