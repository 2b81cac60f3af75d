"""A coroutine that waits for sockets: resumed, timed out, cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from proxy.sockets.poller import Poller
from proxy.sockets.steps import Cancelled, DeadlineExpired, Steps
from tests.support.eventually import eventually

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


class Story:
    """What a coroutine did, and how it ended."""

    def __init__(self, poller: Poller) -> None:
        self.ended: list[BaseException | None] = []
        self.heard = b""
        self.steps = Steps(poller, self.ended.append)

    async def listen(self, source: socket.socket) -> None:
        await self.steps.readable(source)
        self.heard = source.recv(9)

    async def fill(self, sink: socket.socket) -> None:
        try:
            while True:
                sink.send(bytes(65_536))
        except BlockingIOError:
            await self.steps.writable(sink)
        self.heard = b"room"


def run(poller: Poller, scene: object) -> None:
    with asyncio.Runner(loop_factory=lambda: poller.loop) as runner:
        runner.run(scene)  # type: ignore[arg-type]


def test_it_goes_on_when_bytes_come_and_when_there_is_room(pair: Pair) -> None:
    poller = Poller()

    async def scene() -> None:
        reading, writing = Story(poller), Story(poller)
        reading.steps.run(reading.listen(pair[1]))
        assert not reading.ended
        pair[0].send(b"hello")
        await eventually(lambda: reading.ended == [None])
        assert reading.heard == b"hello"
        writing.steps.run(writing.fill(pair[0]))
        assert not writing.ended

        def make_room() -> bool:
            try:
                pair[1].recv(65_536)
            except BlockingIOError:
                pass
            return writing.ended == [None]

        await eventually(make_room)

    run(poller, scene())


def test_a_deadline_ends_the_wait_and_a_lifted_one_does_not(pair: Pair) -> None:
    poller = Poller()

    async def scene() -> None:
        late, patient = Story(poller), Story(poller)
        patient.steps.deadline(0.01)
        late.steps.deadline(0.02)
        patient.steps.no_deadline()
        patient.steps.run(patient.listen(pair[1]))
        late.steps.run(late.listen(pair[0]))
        await eventually(lambda: late.ended)
        assert isinstance(late.ended[0], DeadlineExpired)
        assert not patient.ended
        pair[0].send(b"x")
        await eventually(lambda: patient.ended == [None])

    run(poller, scene())


def test_cancelling_ends_it_once_and_leaves_nothing_behind(pair: Pair) -> None:
    poller = Poller()

    async def scene() -> None:
        story = Story(poller)
        story.steps.deadline(60)
        story.steps.run(story.listen(pair[1]))
        story.steps.cancel()
        story.steps.cancel()
        assert [type(error) for error in story.ended] == [Cancelled]
        pair[0].send(b"too late")
        await asyncio.sleep(0.05)
        assert story.heard == b""

    run(poller, scene())


def test_what_it_raises_is_handed_on(pair: Pair) -> None:
    poller = Poller()

    async def scene() -> None:
        story = Story(poller)

        async def fail() -> None:
            raise ZeroDivisionError

        story.steps.run(fail())
        assert [type(error) for error in story.ended] == [ZeroDivisionError]

    run(poller, scene())


def test_the_first_of_several_that_is_ready_is_told_and_the_others_are_let_go(pair: Pair) -> None:
    poller = Poller()

    async def scene() -> None:
        story = Story(poller)
        found: list[socket.socket | None] = []
        filled, idle = pair
        with contextlib.suppress(BlockingIOError):
            while True:
                filled.send(bytes(65_536))

        async def wait() -> None:
            found.append(await story.steps.first_writable((filled, idle), None))
            found.append(await story.steps.first_writable((filled,), 0.01))
            found.append(await story.steps.first_writable((filled, idle), 60.0))

        story.steps.run(wait())
        await eventually(lambda: story.ended)
        assert story.ended == [None]
        assert found == [idle, None, idle]
        idle.recv(1 << 20)
        await asyncio.sleep(0.05)
        assert len(found) == 3, "who is not waited for any more is not reported"

    run(poller, scene())


@pytest.mark.parametrize("ending", [DeadlineExpired, Cancelled])
def test_waiting_for_several_ends_as_waiting_for_one_does(pair: Pair, ending: type[BaseException]) -> None:
    poller = Poller()

    async def scene() -> None:
        story = Story(poller)
        filled, other = pair
        with contextlib.suppress(BlockingIOError):
            while True:
                filled.send(bytes(65_536))

        async def wait() -> None:
            await story.steps.first_writable((filled,), 60.0)

        story.steps.deadline(0.02 if ending is DeadlineExpired else 60.0)
        story.steps.run(wait())
        if ending is Cancelled:
            story.steps.cancel()
        await eventually(lambda: story.ended)
        assert isinstance(story.ended[0], ending)
        other.recv(1 << 20)
        await asyncio.sleep(0.05)
        assert len(story.ended) == 1

    run(poller, scene())


def test_what_was_not_the_first_disturbs_no_later_wait(pair: Pair) -> None:
    """Neither a socket that becomes ready too late, nor the time that was not used up."""
    poller = Poller()

    async def scene() -> None:
        story = Story(poller)
        filled, idle = pair
        with contextlib.suppress(BlockingIOError):
            while True:
                filled.send(bytes(65_536))
        silent, speaker = socket.socketpair()
        heard: list[bytes] = []

        async def wait() -> None:
            assert await story.steps.first_writable((filled, idle), 0.05) is idle
            await story.steps.readable(silent)
            heard.append(silent.recv(9))

        with silent, speaker:
            silent.setblocking(False)
            story.steps.run(wait())
            await asyncio.sleep(0)
            idle.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    idle.recv(1 << 20)
            await asyncio.sleep(0.2)
            assert not story.ended
            speaker.send(b"hello")
            await eventually(lambda: story.ended)
            assert (story.ended, heard) == ([None], [b"hello"])

    run(poller, scene())
