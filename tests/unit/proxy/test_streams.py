"""Who counts as a stream, and that nobody waits for bytes that do not come."""

from __future__ import annotations

import asyncio

import pytest

from proxy.sockets.streams import ENOUGH, Pace, Streams

LARGE, SMALL = 64 * 1024, 100
PIECES = 64
"""Large ones that make a stream."""


class Direction:
    """What a relay's direction does when it is paced."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.waits: list[int] = []
        self.read = asyncio.Event()

    def wait_for(self, length: int) -> None:
        self.waits.append(length)

    def read_now(self) -> None:
        self.read.set()


@pytest.fixture
async def streams() -> Streams:
    return Streams(asyncio.get_running_loop())


def receive(streams: Streams, direction: Direction, length: int, times: int = 1) -> None:
    for _ in range(times):
        streams.note(direction, direction.pace, length)


async def test_much_in_a_row_makes_a_stream(streams: Streams) -> None:
    direction = Direction()
    receive(streams, direction, LARGE, PIECES - 1)
    assert direction.waits == []
    receive(streams, direction, LARGE, 3)
    assert direction.waits == [ENOUGH]


async def test_messages_make_no_stream(streams: Streams) -> None:
    direction = Direction()
    for _ in range(PIECES):
        receive(streams, direction, LARGE, PIECES - 1)
        receive(streams, direction, SMALL)
    assert direction.waits == []


async def test_a_quiet_stream_is_read_and_ordinary_again(streams: Streams) -> None:
    direction = Direction()
    receive(streams, direction, LARGE, PIECES)
    await asyncio.wait_for(direction.read.wait(), 10)
    assert direction.waits == [ENOUGH, 1]
    receive(streams, direction, LARGE, PIECES - 1)
    assert direction.waits == [ENOUGH, 1]
    receive(streams, direction, LARGE)
    assert direction.waits == [ENOUGH, 1, ENOUGH]


async def test_one_quiet_stream_does_not_disturb_the_others(streams: Streams) -> None:
    quiet, busy = Direction(), Direction()
    receive(streams, busy, LARGE, PIECES)
    receive(streams, quiet, LARGE, PIECES)
    async with asyncio.timeout(10):
        while not quiet.read.is_set():
            receive(streams, busy, LARGE)
            await asyncio.sleep(0)
    assert busy.waits == [ENOUGH]
    assert not busy.read.is_set()


async def test_what_has_ended_is_left_alone(streams: Streams) -> None:
    ended, other = Direction(), Direction()
    receive(streams, ended, LARGE, PIECES)
    streams.leave(ended, ended.pace)
    receive(streams, other, LARGE, PIECES)
    await asyncio.wait_for(other.read.wait(), 10)
    assert ended.waits == [ENOUGH]
    assert not ended.read.is_set()
