"""Frames survive any cut of the byte stream; what is no frame is refused as a whole."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import frames
from proxy.errors import FrameError
from proxy.frames import ControlFrames, WorkerFrames, encode
from proxy.messages import Applied, Drain, Listen, Ping, Query, ToWorker, Update

SENT: list[ToWorker] = [
    Update(generation=1),
    Drain(timeout_s=2.5, window_s=0.5),
    Query(id=3, after=4, limit=5),
    Listen(("127.0.0.1:1",)),
    Ping(6),
]
STREAM = b"".join(encode(frame) for frame in SENT)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_come_out_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    places = sorted({0, len(STREAM), *cuts})
    reader = WorkerFrames()
    received: list[ToWorker] = []
    for start, end in itertools.pairwise(places):
        received.extend(reader.feed(STREAM[start:end]))
    assert received == SENT


@given(st.binary(max_size=64))
def test_bytes_that_are_no_frame_are_refused(body: bytes) -> None:
    data = struct.pack(">I", len(body)) + body
    with pytest.raises(FrameError):
        list(WorkerFrames().feed(data))


def test_each_side_refuses_the_other_sides_frames() -> None:
    with pytest.raises(FrameError, match="worker"):
        list(WorkerFrames().feed(encode(Applied(1))))
    with pytest.raises(FrameError, match="worker"):
        list(ControlFrames().feed(encode(Drain(1.0))))


def test_an_absurd_length_is_refused_before_it_is_waited_for() -> None:
    with pytest.raises(FrameError, match=str(frames.MAX_FRAME)):
        list(WorkerFrames().feed(struct.pack(">I", frames.MAX_FRAME + 1)))


def test_arrays_within_arrays_without_end_are_refused() -> None:
    body = b"\x82\xa4type\xa5drain\xa1x" + b"\x91" * 100_000 + b"\0"
    with pytest.raises(FrameError, match="recursion"):
        list(WorkerFrames().feed(struct.pack(">I", len(body)) + body))
