"""Readiness callbacks on real socket pairs."""

from __future__ import annotations

import asyncio
import functools
import socket
import struct
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from proxy.sockets.poller import Poller
from tests.support.eventually import eventually

Pair = tuple[socket.socket, socket.socket]
Test = Callable[[Poller, Pair], Coroutine[Any, Any, None]]


def in_its_loop(test: Test) -> Callable[[Pair], None]:
    """Run ``test`` in the event loop that the poller brings."""

    def run(pair: Pair) -> None:
        poller = Poller()
        with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
            runner.run(test(poller, pair))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


@in_its_loop
async def test_a_reader_is_called_until_the_bytes_are_taken(poller: Poller, pair: Pair) -> None:
    calls: list[int] = []
    poller.on_readable(pair[0].fileno(), lambda: calls.append(1))
    pair[1].send(b"x")
    await eventually(lambda: len(calls) >= 3)
    pair[0].recv(1)
    await asyncio.sleep(0)
    seen = len(calls)
    pair[1].send(b"y")
    await eventually(lambda: len(calls) > seen)


@in_its_loop
async def test_an_ignored_descriptor_spins_nothing_and_comes_back(poller: Poller, pair: Pair) -> None:
    """Also when the other end is gone: errors are reported without being asked for."""
    loop = asyncio.get_running_loop()
    calls: list[int] = []
    poller.on_readable(pair[0].fileno(), lambda: calls.append(1))
    poller.ignore_readable(pair[0].fileno())
    pair[1].send(b"x")
    pair[1].close()
    other, writer = socket.socketpair()
    turns = 0

    def count() -> None:
        nonlocal turns
        turns += 1
        other.recv(1)

    writer.send(b"x")
    loop.add_reader(other.fileno(), count)
    await eventually(lambda: turns == 1)
    await eventually(lambda: not poller._epoll.poll(0))
    assert calls == []
    poller.on_readable(pair[0].fileno(), lambda: calls.append(1))
    await eventually(lambda: calls)
    loop.remove_reader(other.fileno())
    other.close()
    writer.close()


@in_its_loop
async def test_a_number_that_comes_back_is_another_socket(poller: Poller, pair: Pair) -> None:
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
    seen: list[int] = []
    poller.on_readable(reading.fileno(), lambda: seen.append(len(reading.recv(9))))
    await eventually(lambda: seen == [1])
    for one in (again, writer):
        poller.close_socket(one)


@in_its_loop
async def test_who_closes_a_socket_while_it_is_reported_is_not_called_for_it_again(poller: Poller, pair: Pair) -> None:
    """Readable and writable are reported together. The number is then free for another socket, which must be heard."""
    number = pair[0].fileno()
    called: list[str] = []

    def reads() -> None:
        called.append("reader")
        poller.close_socket(pair[0])

    poller.on_readable(number, reads)
    poller.on_writable(number, lambda: called.append("writer"))
    pair[1].send(b"x")
    await eventually(lambda: called)
    await asyncio.sleep(0)
    assert called == ["reader"]


@in_its_loop
async def test_what_the_kernel_did_not_take_is_not_taken_for_registered(poller: Poller, pair: Pair) -> None:
    number = pair[0].fileno()
    pair[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        poller.on_readable(number, lambda: None)
    again, writer = socket.socketpair()
    assert number in (again.fileno(), writer.fileno())
    reading, writing = (again, writer) if again.fileno() == number else (writer, again)
    writing.send(b"x")
    seen: list[bytes] = []
    poller.on_readable(number, lambda: seen.append(reading.recv(9)))
    await eventually(lambda: seen == [b"x"])
    for one in (again, writer):
        poller.close_socket(one)


@in_its_loop
async def test_a_bug_in_one_callback_ends_what_it_belongs_to_and_nothing_else(poller: Poller, pair: Pair) -> None:
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
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
    assert reported == [], "whoever supervises it reports it"


@in_its_loop
async def test_a_reset_is_told_once_when_nobody_reads_or_writes(poller: Poller, pair: Pair) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    told: list[str] = []
    near.setblocking(False)
    poller.supervise(near.fileno(), lambda error: told.append(str(error)), lambda: told.append("lost"))
    poller.on_readable(near.fileno(), lambda: poller.ignore_readable(near.fileno()))
    far.send(b"nobody reads this")
    calls: list[int] = []
    poller.on_readable(pair[1].fileno(), lambda: calls.append(len(pair[1].recv(9))))
    await eventually(lambda: poller._interests[near.fileno()].reader is None)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    far.close()
    await eventually(lambda: told)
    # The loop goes round a few times more.
    for rounds in (1, 2, 3):
        pair[0].send(b"x")
        await eventually(functools.partial(lambda rounds: len(calls) == rounds, rounds))
    assert told == ["lost"]
    poller.close_socket(near)


@in_its_loop
async def test_a_bug_in_a_callback_that_nobody_supervises_is_reported(poller: Poller, pair: Pair) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    bug = ZeroDivisionError("a bug")

    def fail() -> None:
        raise bug

    poller.on_readable(pair[0].fileno(), fail)
    pair[1].send(b"x")
    await eventually(lambda: reported == [bug])


@in_its_loop
async def test_what_is_run_at_once_is_supervised_too(poller: Poller, pair: Pair) -> None:
    broken: list[Exception] = []
    poller.supervise(pair[0].fileno(), broken.append)
    bug = MemoryError()

    def fail() -> None:
        raise bug

    poller.run(pair[0].fileno(), fail)
    assert broken == [bug]
