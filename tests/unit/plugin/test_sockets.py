from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from plugin.addresses import HostPort
from plugin.errors import StartError
from plugin.workers.sockets import allot, bound_address, can_bind, distinct, is_listening, listen

ANY = HostPort("127.0.0.1", 0)


@pytest.fixture
def first() -> Iterator[socket.socket]:
    with listen(ANY) as listener:
        yield listener


def closed(*sets: tuple[socket.socket, ...]) -> None:
    for one in sets:
        for listener in one:
            listener.close()


def test_every_worker_has_every_address_and_port_0_is_chosen_once() -> None:
    allotted = allot((ANY, HostPort("::1", 0)), [(), (), ()])
    addresses = [tuple(map(bound_address, one)) for one in allotted.places]
    assert len(set(addresses)) == 1
    assert all(is_listening(listener) for one in allotted.places for listener in one)
    closed(*allotted.places)


def test_what_is_there_is_used_first(first: socket.socket) -> None:
    allotted = allot((bound_address(first),), [(), ()], [first])
    assert allotted.places[0] == (first,)
    assert bound_address(allotted.places[1][0]) == bound_address(first)
    closed(*allotted.places)


def test_a_worker_keeps_its_own(first: socket.socket) -> None:
    with listen(bound_address(first)) as second:
        allotted = allot((bound_address(first),), [(), (first,)], [second])
        assert allotted.places == [(second,), (first,)]


def test_a_socket_too_many_goes_to_a_worker_as_well(first: socket.socket) -> None:
    """Closed, it would reset the connections in its queue."""
    with listen(bound_address(first)) as second, listen(bound_address(first)) as third:
        allotted = allot((bound_address(first),), [(first,)], [second, third])
        assert allotted.places == [(first, second, third)]


def test_sockets_of_other_addresses_are_named(first: socket.socket) -> None:
    allotted = allot((ANY,), [()], [first])
    assert allotted.unwanted == [first]
    closed(*allotted.places)


def test_an_address_that_is_taken_does_not_keep_the_others_away(first: socket.socket) -> None:
    """Even if its owner would share it."""
    allotted = allot((bound_address(first), ANY), [(), ()])
    assert [len(place) for place in allotted.places] == [1, 1]
    assert "another process listens there" in str(allotted.problems[0])
    closed(*allotted.places)


def test_several_descriptors_of_one_socket_are_one(first: socket.socket) -> None:
    again = first.dup()
    assert distinct([first, again]) == [first]
    assert again.fileno() == -1


def test_an_address_of_another_host_is_an_error() -> None:
    with pytest.raises(StartError, match="this host has no such address"):
        listen(HostPort("192.0.2.1", 0))


def test_a_connected_socket_is_not_listening(first: socket.socket) -> None:
    with socket.create_connection(first.getsockname()) as client:
        assert not is_listening(client)


def test_whether_an_address_is_one_of_this_host() -> None:
    assert can_bind("127.0.0.1")
    assert can_bind("::1")
    assert not can_bind("192.0.2.1")  # TEST-NET-1 of RFC 5737
    assert not can_bind("0.0.0.0")
