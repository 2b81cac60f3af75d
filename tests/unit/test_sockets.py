from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from plugin.addresses import HostPort
from plugin.errors import StartError
from plugin.workers.sockets import bound_address, can_bind, is_listening, listen, provide

ANY = HostPort("127.0.0.1", 0)


@pytest.fixture
def first() -> Iterator[socket.socket]:
    with listen(ANY) as listener:
        yield listener


def closed(*sets: tuple[socket.socket, ...]) -> None:
    for one in sets:
        for listener in one:
            listener.close()


def test_every_set_has_every_address_and_port_0_is_chosen_once() -> None:
    sets = provide((ANY, HostPort("::1", 0)), 3, (), ())
    addresses = [tuple(map(bound_address, one)) for one in sets]
    assert len(set(addresses)) == 1
    assert all(is_listening(listener) for one in sets for listener in one)
    closed(*sets)


def test_inherited_sockets_are_used_first(first: socket.socket) -> None:
    sets = provide((bound_address(first),), 2, [first], ())
    assert sets[0] == (first,)
    assert bound_address(sets[1][0]) == bound_address(first)
    closed(*sets)


def test_inherited_sockets_of_other_addresses_are_closed(first: socket.socket) -> None:
    sets = provide((ANY,), 1, [first], ())
    assert first.fileno() == -1
    closed(*sets)


def test_an_address_that_our_own_workers_share_is_not_in_use(first: socket.socket) -> None:
    sets = provide((bound_address(first),), 1, (), [first])
    assert sets[0][0] is not first
    closed(*sets)


def test_a_foreign_listener_is_an_error_even_if_it_would_share(first: socket.socket) -> None:
    with pytest.raises(StartError, match="another process listens there"):
        provide((bound_address(first),), 1, (), ())


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
