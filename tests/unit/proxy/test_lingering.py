"""Refused clients read why, and hold nothing for long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from proxy.sockets.lingering import Lingering
from proxy.sockets.poller import Poller
from tests.support.eventually import eventually

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture
def poller() -> Iterator[Poller]:
    poller = Poller()
    yield poller
    poller.loop.close()


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
    accepted.setblocking(False)
    client.settimeout(10)
    return accepted, client


def run(poller: Poller, scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(scenario)


def test_last_words_are_read_although_the_client_goes_on_sending(poller: Poller) -> None:
    async def scenario() -> None:
        lingering = Lingering(poller, 10)
        ours, client = pair()
        with client:
            client.sendall(b"x" * 100_000)
            ours.send(b"because")
            lingering.add(ours)
            await eventually(lambda: len(lingering) == 1)
            received = await asyncio.to_thread(lambda: client.recv(100) + client.recv(100))
            assert received == b"because"
        await eventually(lambda: len(lingering) == 0)
        assert ours.fileno() == -1

    run(poller, scenario())


def test_who_never_closes_is_closed(poller: Poller) -> None:
    async def scenario() -> None:
        lingering = Lingering(poller, 10)
        held = [pair() for _ in range(3)]
        for ours, _ in held:
            lingering.add(ours)
        await eventually(lambda: len(lingering) == 0)
        assert all(ours.fileno() == -1 for ours, _ in held)
        for _, client in held:
            client.close()

    run(poller, scenario())


def test_a_flood_of_refused_clients_holds_no_more_than_so_many_sockets(poller: Poller) -> None:
    async def scenario() -> None:
        lingering = Lingering(poller, 2)
        held = [pair() for _ in range(5)]
        for ours, _ in held:
            lingering.add(ours)
        assert [ours.fileno() == -1 for ours, _ in held] == [True, True, True, False, False]
        await eventually(lambda: len(lingering) == 0)
        for _, client in held:
            client.close()

    run(poller, scenario())
