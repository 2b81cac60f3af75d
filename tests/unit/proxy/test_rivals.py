"""In which order the addresses of a hostname are tried."""

from __future__ import annotations

from proxy.model import Endpoint
from proxy.upstream.rivals import AT_ONCE, SLOW_FOR_S, Rivals


def host(*addresses: str, hostname: str = "db.example", instance: str = "node/db") -> tuple[Endpoint, ...]:
    return tuple(Endpoint(address, 5432, hostname, instance=instance) for address in addresses)


def addresses(line: tuple[Endpoint, ...]) -> list[str]:
    return [endpoint.address for endpoint in line]


def test_families_take_turns_after_the_chosen_address() -> None:
    endpoints = host("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")
    rivals = Rivals(endpoints)
    assert addresses(rivals.line_up(endpoints[0], 0.0)) == ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"]
    assert addresses(rivals.line_up(endpoints[3], 0.0)) == ["2001:db8::2", "192.0.2.1", "2001:db8::1", "192.0.2.2"]


def test_addresses_of_one_family_follow_their_neighbour_and_are_bounded() -> None:
    endpoints = host(*(f"192.0.2.{last}" for last in range(1, 9)))
    rivals = Rivals(endpoints)
    assert addresses(rivals.line_up(endpoints[7], 0.0)) == ["192.0.2.8", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
    assert {len(rivals.line_up(endpoint, 0.0)) for endpoint in endpoints} == {AT_ONCE}


def test_other_hostnames_other_instances_and_plain_addresses_are_no_rivals() -> None:
    (one,) = host("192.0.2.1")
    (other_name,) = host("192.0.2.2", hostname="other.example")
    (other_instance,) = host("192.0.2.3", instance="node-2/db")
    (plain,) = host("192.0.2.4", hostname="")
    rivals = Rivals((one, other_name, other_instance, plain))
    for endpoint in (one, other_name, other_instance, plain):
        assert rivals.line_up(endpoint, 0.0) == (endpoint,)


def test_an_address_that_lost_comes_last_for_a_while() -> None:
    endpoints = host("192.0.2.1", "2001:db8::1")
    four, six = endpoints
    rivals = Rivals(endpoints)
    rivals.lost(six, 100.0)
    assert rivals.line_up(six, 100.0 + SLOW_FOR_S - 0.1) == (four, six)
    assert rivals.line_up(four, 101.0) == (four, six)
    assert rivals.line_up(six, 100.0 + SLOW_FOR_S) == (six, four)


def test_when_all_have_lost_the_chosen_one_is_first_again() -> None:
    endpoints = host("192.0.2.1", "2001:db8::1")
    rivals = Rivals(endpoints)
    for endpoint in endpoints:
        rivals.lost(endpoint, 0.0)
    assert rivals.line_up(endpoints[1], 1.0) == (endpoints[1], endpoints[0])


def test_an_endpoint_that_is_not_of_the_set_is_tried_alone() -> None:
    rivals = Rivals(host("192.0.2.1", "192.0.2.2"))
    (stranger,) = host("192.0.2.3")
    assert rivals.line_up(stranger, 0.0) == (stranger,)
