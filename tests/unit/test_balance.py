"""Endpoints are chosen by health, weight and policy."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balance import ATTEMPTS, EndpointSet
from proxy.model import Balance, BalancePolicy, Endpoint


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


@pytest.mark.parametrize("policy", [BalancePolicy.RING_HASH, BalancePolicy.MAGLEV])
def test_hashing_sends_a_client_to_one_place_and_moves_few_when_one_leaves(policy: BalancePolicy) -> None:
    clients = [f"10.1.{n // 250}.{n % 250}" for n in range(1_000)]
    all_of_them, fewer = endpoints(1, 1, 1, 1), endpoints(1, 1, 1)

    def places(available: tuple[Endpoint, ...]) -> dict[str, str]:
        chosen = EndpointSet(available, Balance(policy))
        return {client: next(chosen.order(client)).address for client in clients}

    before, again, after = places(all_of_them), places(all_of_them), places(fewer)
    assert before == again
    moved = sum(before[client] != after[client] for client in clients)
    assert moved == sum(place == "10.0.0.3" for place in before.values())
    assert min(Counter(before.values()).values()) > 150


def test_hashing_keeps_the_weights() -> None:
    chosen = EndpointSet(endpoints(3, 1), Balance(BalancePolicy.MAGLEV))
    counts = Counter(next(chosen.order(f"c{n}")).address[-1] for n in range(4_000))
    assert 2.6 < counts["0"] / counts["1"] < 3.4
