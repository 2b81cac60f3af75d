"""Readiness callbacks on real socket pairs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from proxy.poller import Poller
from tests.support.eventually import eventually


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


async def test_a_reader_is_called_until_the_bytes_are_taken(pair: tuple[socket.socket, socket.socket]) -> None:
    poller = Poller(asyncio.get_running_loop())
    calls: list[int] = []
    poller.on_readable(pair[0].fileno(), lambda: calls.append(1))
    pair[1].send(b"x")
    await eventually(lambda: len(calls) >= 3)
    pair[0].recv(1)
    await asyncio.sleep(0)
    seen = len(calls)
    pair[1].send(b"y")
    await eventually(lambda: len(calls) > seen)
    poller.close()


async def test_an_ignored_descriptor_spins_nothing_and_comes_back(pair: tuple[socket.socket, socket.socket]) -> None:
    """Also when the other end is gone: errors are reported without being asked for."""
    loop = asyncio.get_running_loop()
    poller = Poller(loop)
    calls: list[int] = []
    poller.on_readable(pair[0].fileno(), lambda: calls.append(1))
    poller.ignore_readable(pair[0].fileno())
    pair[1].send(b"x")
    pair[1].close()
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1

    other, writer = socket.socketpair()
    writer.send(b"x")
    loop.add_reader(other.fileno(), lambda: (count(), other.recv(1)))
    await eventually(lambda: turns == 1)
    assert not poller._epoll.poll(0)
    assert calls == []
    poller.on_readable(pair[0].fileno(), lambda: calls.append(1))
    await eventually(lambda: calls)
    loop.remove_reader(other.fileno())
    other.close()
    writer.close()
    poller.close()


async def test_a_number_that_comes_back_is_another_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    poller = Poller(asyncio.get_running_loop())
    first, second = socket.socketpair()
    first.setblocking(False)
    poller.on_readable(first.fileno(), lambda: pytest.fail("the old callback was called"))
    number = first.fileno()
    poller.close_socket(first)
    second.close()
    again, writer = socket.socketpair()
    assert number in (again.fileno(), writer.fileno())
    reading, writing = (again, writer) if again.fileno() == number else (writer, again)
    writing.send(b"x")
    async with asyncio.timeout(20):
        await poller.readable(reading)
    for one in (again, writer):
        poller.close_socket(one)
    poller.close()


async def test_a_bug_in_one_callback_ends_what_it_belongs_to_and_nothing_else(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    poller = Poller(loop)
    broken: list[Exception] = []
    bug = ZeroDivisionError("a bug")

    def fail() -> None:
        raise bug

    poller.on_readable(pair[0].fileno(), fail)
    poller.supervise(pair[0].fileno(), broken.append)
    pair[1].send(b"x")
    pair[0].send(b"y")
    calls: list[int] = []
    poller.on_readable(pair[1].fileno(), lambda: calls.append(len(pair[1].recv(9))))
    await eventually(lambda: broken and calls)
    assert broken == [bug]
    assert reported == [bug]
    poller.close()


async def test_waiting_for_room_ends_when_there_is_room(pair: tuple[socket.socket, socket.socket]) -> None:
    poller = Poller(asyncio.get_running_loop())
    with contextlib.suppress(BlockingIOError):
        while True:
            pair[0].send(bytes(65_536))
    waiting = asyncio.get_running_loop().create_task(poller.writable(pair[0]))
    await asyncio.sleep(0)
    assert not waiting.done()
    with contextlib.suppress(BlockingIOError):
        while True:
            pair[1].recv(65_536)
    async with asyncio.timeout(20):
        await waiting
    poller.close()
