"""Endpoints that cannot be reached are left out for growing times, and come back by themselves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model import Endpoint
from proxy.upstream.ejection import FAILURES, FIRST_S, FORGET_S, LONGEST_S, TRIAL_S, Ejections
from tests.support.clock import Clock

A, B, C = (Endpoint(f"10.0.0.{number}", 80) for number in (1, 2, 3))
ALL = (A, B, C)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ejections(clock: Clock) -> Ejections:
    """Without chance: the longest time is drawn."""
    return Ejections(clock, uniform=lambda low, high: high)


def fail(ejections: Ejections, endpoint: Endpoint, times: int = FAILURES) -> float | None:
    return [ejections.failed(endpoint, ALL) for _ in range(times)][-1]


def test_failures_in_a_row_take_an_endpoint_out(ejections: Ejections) -> None:
    assert fail(ejections, A, FAILURES - 1) is None
    assert not ejections.out(A)
    assert ejections.failed(A, ALL) == FIRST_S
    assert [ejections.out(endpoint) for endpoint in ALL] == [True, False, False]


def test_a_success_between_them_starts_the_count_anew(ejections: Ejections) -> None:
    fail(ejections, A, FAILURES - 1)
    assert not ejections.succeeded(A)
    assert fail(ejections, A, FAILURES - 1) is None
    assert not ejections.out(A)


def test_failures_of_connections_that_were_under_way_do_not_prolong_it(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.now_s += FIRST_S / 2
    assert ejections.failed(A, ALL) is None
    clock.now_s += FIRST_S / 2
    assert not ejections.out(A)


def test_when_its_time_is_over_one_connection_tries_it_and_others_keep_away(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.now_s += FIRST_S
    assert not ejections.out(A)
    ejections.tried(A)
    assert ejections.out(A)
    assert ejections.succeeded(A)
    assert not ejections.out(A)


def test_a_trial_without_a_result_is_followed_by_another(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.now_s += FIRST_S
    ejections.tried(A)
    clock.now_s += TRIAL_S
    assert not ejections.out(A)


def test_a_failed_trial_doubles_the_time_up_to_the_longest(ejections: Ejections, clock: Clock) -> None:
    times = [fail(ejections, A)]
    for _ in range(7):
        clock.now_s += times[-1] or 0.0
        ejections.tried(A)
        times.append(ejections.failed(A, ALL))
    assert times == [5.0, 10.0, 20.0, 40.0, 80.0, LONGEST_S, LONGEST_S, LONGEST_S]


def test_one_that_comes_and_goes_is_out_for_longer_each_time(ejections: Ejections, clock: Clock) -> None:
    fail(ejections, A)
    clock.now_s += FIRST_S
    ejections.succeeded(A)
    clock.now_s += 1.0
    assert fail(ejections, A) == 2 * FIRST_S


@pytest.mark.parametrize("used_meanwhile", [True, False])
def test_one_that_has_worked_for_long_starts_with_the_first_time(
    ejections: Ejections, clock: Clock, used_meanwhile: bool
) -> None:
    fail(ejections, A)
    clock.now_s += FIRST_S
    ejections.succeeded(A)
    clock.now_s += FORGET_S + 1.0
    if used_meanwhile:
        ejections.succeeded(A)
        assert not ejections
    assert fail(ejections, A) == FIRST_S


def test_the_last_usable_one_is_never_taken_out(ejections: Ejections, clock: Clock) -> None:
    assert fail(ejections, A) is not None
    assert fail(ejections, B) is not None
    assert fail(ejections, C, 100) is None
    assert not ejections.out(C)
    clock.now_s += FIRST_S
    ejections.succeeded(A)
    assert ejections.failed(C, ALL) is not None, "it is not the last any more"


def test_an_unusable_endpoint_does_not_count_as_an_alternative(ejections: Ejections) -> None:
    assert [ejections.failed(A, (A,)) for _ in range(FAILURES)][-1] is None


def test_the_same_place_twice_is_no_alternative(ejections: Ejections) -> None:
    twin = Endpoint(A.address, A.port, instance="other")
    assert [ejections.failed(A, (A, twin)) for _ in range(FAILURES)][-1] is None


def test_a_change_of_weight_or_health_is_no_pardon(ejections: Ejections) -> None:
    fail(ejections, A)
    assert ejections.out(Endpoint(A.address, A.port, weight=7, healthy=False))
    assert not ejections.out(Endpoint(A.address, A.port + 1))


def test_endpoints_that_are_gone_are_forgotten(ejections: Ejections) -> None:
    fail(ejections, A)
    fail(ejections, B)
    ejections.keep((A,))
    assert (ejections.out(A), ejections.out(B)) == (True, False)


def test_times_are_drawn_so_that_workers_do_not_come_back_together(clock: Clock) -> None:
    drawn = []
    for _ in range(50):
        ejections = Ejections(clock)
        drawn.append(fail(ejections, A) or 0.0)
    assert min(drawn) >= FIRST_S * 0.75
    assert max(drawn) <= FIRST_S
    assert len(set(drawn)) > 40


STEPS = st.lists(
    st.tuples(st.sampled_from(ALL), st.sampled_from(["failed", "succeeded", "tried"]), st.floats(0.0, 60.0)),
    max_size=80,
)


@given(STEPS)
def test_whatever_happens_one_is_left_to_dial_and_every_one_comes_back(
    steps: list[tuple[Endpoint, str, float]],
) -> None:
    clock = Clock()
    ejections = Ejections(clock)
    for endpoint, event, pause_s in steps:
        out_before = {one for one in ALL if ejections.out(one)}
        if event == "failed":
            left_out_s = ejections.failed(endpoint, ALL)
            if left_out_s is not None:
                assert 0.0 < left_out_s <= LONGEST_S
                assert any(not ejections.out(one) for one in ALL)
            assert {one for one in ALL if ejections.out(one)} <= out_before | {endpoint}
        elif event == "succeeded":
            ejections.succeeded(endpoint)
            assert not ejections.out(endpoint)
        else:
            ejections.tried(endpoint)
        clock.now_s += pause_s
    clock.now_s += LONGEST_S
    assert not any(ejections.out(one) for one in ALL)
