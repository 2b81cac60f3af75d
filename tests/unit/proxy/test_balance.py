"""Endpoints are chosen by health, weight and policy."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamError
from proxy.model import Balance, BalancePolicy, CloseReason, Endpoint, HashPolicy, HashSource
from proxy.upstream.balance import ATTEMPTS, EndpointSet
from proxy.upstream.ejection import FAILURES, FIRST_S, TRIAL_S
from tests.support.clock import Clock

SOURCE_IP = (HashPolicy(HashSource.SOURCE_IP),)
FAILURE = UpstreamError(CloseReason.DIAL_FAILED, "Connection refused")
HASHING = pytest.mark.parametrize("policy", [BalancePolicy.RING_HASH, BalancePolicy.MAGLEV])
POLICIES = [
    *(Balance(policy) for policy in BalancePolicy),
    *(Balance(policy, hash_policies=SOURCE_IP) for policy in (BalancePolicy.RING_HASH, BalancePolicy.MAGLEV)),
]
EVERY_POLICY = pytest.mark.parametrize("balance", POLICIES, ids=lambda one: f"{one.policy}-{len(one.hash_policies)}")


def endpoints(*weights: int, unhealthy: tuple[int, ...] = ()) -> tuple[Endpoint, ...]:
    return tuple(
        Endpoint(f"10.0.0.{number}", 80, weight=weight, healthy=number not in unhealthy)
        for number, weight in enumerate(weights)
    )


def first_choices(chosen: EndpointSet, count: int, client: str = "") -> Counter[str]:
    return Counter(next(chosen.order(client)).address[-1] for _ in range(count))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_round_robin_keeps_the_weights_exactly(weights: list[int]) -> None:
    chosen = EndpointSet(endpoints(*weights), Balance())
    rounds = sum(weights)
    assert first_choices(chosen, rounds * 3) == {str(n): weight * 3 for n, weight in enumerate(weights)}


def test_heavy_endpoints_are_not_chosen_in_bursts() -> None:
    chosen = EndpointSet(endpoints(3, 1, 1), Balance())
    order = [next(chosen.order("")).address[-1] for _ in range(50)]
    longest = max(len(run) for run in "".join(order).replace("1", " ").replace("2", " ").split())
    assert longest <= 3


def test_unhealthy_ones_are_left_out_until_none_else_is_left() -> None:
    some = EndpointSet(endpoints(1, 1, 1, unhealthy=(1,)), Balance())
    assert set(first_choices(some, 30)) == {"0", "2"}
    none = EndpointSet(endpoints(1, 1, unhealthy=(0, 1)), Balance())
    assert set(first_choices(none, 30)) == {"0", "1"}


def test_nothing_to_choose_from() -> None:
    assert list(EndpointSet((), Balance()).order("")) == []


def test_an_attempt_never_repeats_an_endpoint() -> None:
    chosen = EndpointSet(endpoints(5, 1, 1, 1, 1), Balance(BalancePolicy.RANDOM))
    for _ in range(50):
        attempts = list(chosen.order(""))
        assert len(attempts) == ATTEMPTS
        assert len(set(attempts)) == ATTEMPTS


def test_least_request_prefers_the_one_with_fewer_connections() -> None:
    chosen = EndpointSet(endpoints(1, 1), Balance(BalancePolicy.LEAST_REQUEST, choice_count=8))
    busy = chosen.endpoints[0]
    for _ in range(10):
        chosen.opened(busy)
    assert first_choices(chosen, 100)["1"] > 90
    for _ in range(10):
        chosen.closed(busy)
    assert chosen.load(busy) == 0


def test_counting_goes_on_when_the_set_is_replaced() -> None:
    former = EndpointSet(endpoints(1, 1), Balance())
    former.opened(former.endpoints[0])
    fresh = EndpointSet(endpoints(1), Balance())
    fresh.take_over(former)
    assert fresh.load(fresh.endpoints[0]) == 1


def test_a_change_of_weight_or_health_keeps_the_count() -> None:
    former = EndpointSet(endpoints(1), Balance())
    former.opened(former.endpoints[0])
    fresh = EndpointSet(endpoints(7, unhealthy=(0,)), Balance())
    fresh.take_over(former)
    assert fresh.load(fresh.endpoints[0]) == 1
    fresh.closed(former.endpoints[0])
    assert fresh.load(fresh.endpoints[0]) == 0


@HASHING
def test_hashing_sends_a_client_to_one_place_and_moves_few_when_one_leaves(policy: BalancePolicy) -> None:
    clients = [f"10.1.{n // 250}.{n % 250}" for n in range(1_000)]
    all_of_them, fewer = endpoints(1, 1, 1, 1), endpoints(1, 1, 1)

    def places(available: tuple[Endpoint, ...]) -> dict[str, str]:
        chosen = EndpointSet(available, Balance(policy, hash_policies=SOURCE_IP))
        return {client: next(chosen.order(client)).address for client in clients}

    before, again, after = places(all_of_them), places(all_of_them), places(fewer)
    assert before == again
    moved = sum(before[client] != after[client] for client in clients)
    assert moved == sum(place == "10.0.0.3" for place in before.values())
    assert min(Counter(before.values()).values()) > 150


def test_hashing_keeps_the_weights() -> None:
    chosen = EndpointSet(endpoints(3, 1), Balance(BalancePolicy.MAGLEV, hash_policies=SOURCE_IP))
    counts = Counter(next(chosen.order(f"c{n}")).address[-1] for n in range(4_000))
    assert 2.6 < counts["0"] / counts["1"] < 3.4


@HASHING
def test_a_client_whose_endpoint_cannot_be_reached_always_goes_on_to_the_same_one(policy: BalancePolicy) -> None:
    chosen = EndpointSet(endpoints(1, 1, 1, 1, 1), Balance(policy, hash_policies=SOURCE_IP))
    assert len({tuple(chosen.order("10.1.0.1")) for _ in range(20)}) == 1


@HASHING
@pytest.mark.parametrize(
    "policies", [(), (HashPolicy(HashSource.HEADER, "x-user"),), (HashPolicy(HashSource.COOKIE, "id", terminal=True),)]
)
def test_hashing_what_a_connection_does_not_have_is_random(
    policy: BalancePolicy, policies: tuple[HashPolicy, ...]
) -> None:
    chosen = EndpointSet(endpoints(1, 1, 1), Balance(policy, hash_policies=policies))
    counts = first_choices(chosen, 600, chosen.key_of_address("10.1.0.1"))
    assert set(counts) == {"0", "1", "2"}
    assert min(counts.values()) > 120


@HASHING
def test_the_source_address_counts_beside_what_a_connection_does_not_have(policy: BalancePolicy) -> None:
    policies = (HashPolicy(HashSource.HEADER, "x-user", terminal=True), *SOURCE_IP)
    chosen = EndpointSet(endpoints(1, 1, 1), Balance(policy, hash_policies=policies))
    assert len(first_choices(chosen, 50, chosen.key_of_address("10.1.0.1"))) == 1


def test_a_hash_policy_counts_only_for_policies_that_hash() -> None:
    chosen = EndpointSet(endpoints(1, 1), Balance(BalancePolicy.RANDOM, hash_policies=SOURCE_IP))
    assert len(first_choices(chosen, 100, "10.1.0.1")) == 2


@pytest.mark.parametrize("policy", [BalancePolicy.RANDOM, BalancePolicy.LEAST_REQUEST])
def test_random_choices_follow_the_weights(policy: BalancePolicy) -> None:
    counts = first_choices(EndpointSet(endpoints(3, 1), Balance(policy)), 4_000)
    assert 2.5 < counts["0"] / counts["1"] < 3.5


def test_great_weights_and_many_endpoints_are_no_more_work() -> None:
    many = tuple(Endpoint(f"10.0.{n // 256}.{n % 256}", 80, weight=65_535 - n % 3) for n in range(5_000))
    for balance in POLICIES:
        chosen = EndpointSet(many, balance)
        assert len(set(chosen.order("10.1.0.1"))) == ATTEMPTS
    turns = EndpointSet(many, Balance())
    assert len({next(turns.order("")) for _ in range(5_000)}) > 4_900


def ejected(chosen: EndpointSet, *out: int) -> None:
    for number in out:
        for _ in range(FAILURES):
            chosen.dialled(None, {chosen.endpoints[number]: FAILURE})


@EVERY_POLICY
def test_what_is_left_out_comes_last(balance: Balance) -> None:
    chosen = EndpointSet(endpoints(9, 1, 1), balance)
    ejected(chosen, 0)
    for number in range(50):
        order = list(chosen.order(f"10.1.0.{number}"))
        assert order[-1] is chosen.endpoints[0]
        assert len(set(order)) == ATTEMPTS


@EVERY_POLICY
def test_what_is_left_out_comes_back_with_one_trial(balance: Balance) -> None:
    clock = Clock()
    chosen = EndpointSet(endpoints(1, 1), balance, now=clock)
    ejected(chosen, 0)
    clock.now_s += FIRST_S
    firsts = [next(chosen.order(f"10.1.0.{number}")).address[-1] for number in range(40)]
    assert firsts.count("0") == 1, "one connection tries it"
    chosen.dialled(chosen.endpoints[0], {})
    firsts = [next(chosen.order(f"10.1.0.{number}")).address[-1] for number in range(40)]
    assert firsts.count("0") > 5


@EVERY_POLICY
def test_when_all_are_left_out_one_is_tried_all_the_same(balance: Balance) -> None:
    """An update may take away the one that worked."""
    former = EndpointSet(endpoints(1, 1, 1), balance)
    ejected(former, 0, 1)
    left = EndpointSet(endpoints(1, 1), balance)
    left.take_over(former)
    assert len(list(left.order("10.1.0.1"))) == 2


def test_a_set_that_replaces_another_leaves_out_the_same() -> None:
    former = EndpointSet(endpoints(1, 1, 1), Balance())
    ejected(former, 1)
    fresh = EndpointSet(endpoints(5, 5), Balance())
    fresh.take_over(former)
    assert set(first_choices(fresh, 20)) == {"0"}


def test_only_endpoints_that_are_used_are_alternatives() -> None:
    chosen = EndpointSet(endpoints(1, 1, unhealthy=(1,)), Balance())
    ejected(chosen, 0)
    assert set(first_choices(chosen, 20)) == {"0"}


def test_an_ejection_and_a_return_are_logged_once_with_place_and_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    clock = Clock()
    one = Endpoint("2001:db8::1", 5432, "db.example", instance="vm1/db")
    chosen = EndpointSet((one, *endpoints(1)), Balance(), now=clock)
    for _ in range(3):
        ejected(chosen, 0)
    clock.now_s += FIRST_S + TRIAL_S
    for _ in range(3):
        chosen.dialled(one, {})
    (out, back) = caplog.records
    assert "[2001:db8::1]:5432 (db.example) is left out for" in out.getMessage()
    assert "Connection refused" in out.getMessage()
    assert vars(out)["event"] == "endpoint.ejected"
    assert vars(out)["instance"] == "vm1/db"
    assert vars(back)["event"] == "endpoint.returned"
