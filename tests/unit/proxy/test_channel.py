from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from plugin.workers.channel import Channel
from proxy.frames import encode
from proxy.messages import Applied, ToControl
from tests.support.eventually import eventually


class Ends:
    """A channel, what it told us, and the worker's end of the socket."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.frames: list[ToControl] = []
        self.closed: list[str] = []
        self.writable = 0

    async def open(self) -> Channel:
        return await Channel.open(
            self.ours, on_frame=self.frames.append, on_writable=self._on_writable, on_closed=self.closed.append
        )

    def _on_writable(self) -> None:
        self.writable += 1


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    made = Ends()
    yield made
    made.theirs.close()


async def test_frames_arrive_whole_however_they_are_cut(ends: Ends) -> None:
    await ends.open()
    for byte in encode(Applied(1)) + encode(Applied(2)):
        ends.theirs.send(bytes([byte]))
    await eventually(lambda: ends.frames == [Applied(1), Applied(2)])


async def test_what_is_no_frame_closes_it_with_a_reason(ends: Ends) -> None:
    channel = await ends.open()
    ends.theirs.send(b"\xff\xff\xff\xff")
    await eventually(lambda: ends.closed)
    assert "over the limit" in ends.closed[0]
    assert not channel.open_for_frames


async def test_the_end_is_told_once(ends: Ends) -> None:
    channel = await ends.open()
    ends.theirs.close()
    await eventually(lambda: ends.closed == [""])
    channel.close()
    channel.send(b"swallowed")
    assert ends.closed == [""]


async def test_a_slow_reader_makes_it_busy_and_is_told_of_when_it_reads_again(ends: Ends) -> None:
    channel = await ends.open()
    sent = b"x" * 4_000_000
    channel.send(sent)
    assert channel.busy
    ends.theirs.setblocking(False)
    received = 0

    def read_all() -> bool:
        nonlocal received
        try:
            received += len(ends.theirs.recv(1_000_000))
        except BlockingIOError:
            return False
        return received == len(sent)

    await eventually(read_all)
    await eventually(lambda: ends.writable == 1)
    assert not channel.busy


async def test_a_descriptor_travels_with_its_frame_and_waits_for_what_is_before_it(ends: Ends) -> None:
    channel = await ends.open()
    reading, writing = os.pipe()
    assert channel.send_descriptors(b"frame", [writing])
    data, (received,), _, _ = await asyncio.to_thread(socket.recv_fds, ends.theirs, 100, 1)
    assert data == b"frame"
    os.write(received, b"through it")
    assert os.read(reading, 100) == b"through it"
    channel.send(b"x" * 10_000_000)
    assert not channel.send_descriptors(b"frame", [writing])
    for descriptor in (reading, writing, received):
        os.close(descriptor)


async def test_a_closed_channel_swallows_a_descriptor(ends: Ends) -> None:
    channel = await ends.open()
    channel.close()
    assert channel.send_descriptors(b"frame", [0])
