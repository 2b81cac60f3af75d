"""Sockets of the service manager: taken once, by the process they are for, and only where they fit."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.addresses import HostPort
from plugin.errors import StartError
from plugin.process import activation
from plugin.workers.sockets import bound_address, listen

FIRST = 500
"""Descriptors from here on stand for those from 3 on, which are the test's own."""


@pytest.fixture(autouse=True)
def high_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation, "_FIRST", FIRST)


@pytest.fixture
def two() -> Iterator[list[socket.socket]]:
    first = listen(HostPort("127.0.0.1", 0))
    both = [first, listen(bound_address(first))]
    for place, one in enumerate(both):
        os.dup2(one.fileno(), FIRST + place)
    yield both
    for one in both:
        one.close()


def variables(number: str = "2", pid: int | None = None) -> dict[str, str]:
    return {"LISTEN_PID": str(pid or os.getpid()), "LISTEN_FDS": number, "LISTEN_FDNAMES": "mesh:mesh", "OTHER": "x"}


def test_they_are_taken_once(two: list[socket.socket]) -> None:
    environment = variables()
    given = activation.receive(environment)
    assert environment == {"OTHER": "x"}
    assert [bound_address(one) for one in given] == [bound_address(one) for one in two]
    assert not any(one.getblocking() or os.get_inheritable(one.fileno()) for one in given)
    assert activation.receive(environment) == []
    for one in given:
        one.close()


def test_those_of_another_process_are_not_ours() -> None:
    environment = variables(pid=1)
    assert activation.receive(environment) == []
    assert environment == {"OTHER": "x"}
    assert activation.receive({}) == []


def test_what_is_no_listening_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"descriptor 500 \(mesh\) of systemd is no listening TCP socket"):
        activation.receive(variables("1"))
    with socket.socket() as deaf:
        os.dup2(deaf.fileno(), FIRST)
        with pytest.raises(StartError, match=r"ListenStream=IP:PORT and Accept=no"):
            activation.receive(variables("1"))
        os.close(FIRST)
    with pytest.raises(StartError, match="LISTEN_FDS='many' is no number"):
        activation.receive(variables("many"))


def test_there_are_as_many_workers_as_sockets(two: list[socket.socket]) -> None:
    address = bound_address(two[0])
    assert activation.for_each_worker(two, (address,), 0) == 2
    assert activation.for_each_worker(two, (address, HostPort("127.0.0.1", 1)), 2) == 2
    assert activation.for_each_worker(two, (address,), 1) == 2
    assert activation.for_each_worker((), (address,), 5) == 0
    with pytest.raises(StartError, match=r"systemd has 2 socket\(s\) for .* write ListenStream=.* 3 times"):
        activation.for_each_worker(two, (address,), 3)
    with pytest.raises(StartError, match=r"systemd listens on .*, and the gateway on 127.0.0.1:1: make"):
        activation.for_each_worker(two, (HostPort("127.0.0.1", 1),), 0)
