"""Any bytes in any chunks are frames or FrameError, the same however they are cut, and a frame survives being sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fuzz.draw import Draw
from proxy.errors import FrameError
from proxy.frames import ControlFrames, WorkerFrames, encode
from proxy.messages import ToControl, ToWorker

CODE = ("proxy.frames",)


def run(data: bytes) -> None:
    draw = Draw(data)
    reader: Callable[[], WorkerFrames | ControlFrames] = ControlFrames if draw.truth() else WorkerFrames
    cuts = [1 + draw.below(64) for _ in range(draw.below(8))]
    content = draw.rest()
    cut, whole = _read(reader(), _chunks(content, cuts)), _read(reader(), [content])
    assert repr(cut) == repr(whole)  # not ==: a number that is not one equals nothing
    frames, _ = whole
    sent = b"".join(map(encode, frames))
    assert repr(_read(reader(), [sent])) == repr((frames, False))


def _read(reader: WorkerFrames | ControlFrames, chunks: Iterable[bytes]) -> tuple[list[ToWorker | ToControl], bool]:
    """The frames before the first error, and whether there was one."""
    frames: list[ToWorker | ToControl] = []
    try:
        for chunk in chunks:
            frames.extend(reader.feed(chunk))
    except FrameError:
        return frames, True
    return frames, False


def _chunks(content: bytes, cuts: list[int]) -> Iterable[bytes]:
    for length in cuts:
        yield content[:length]
        content = content[length:]
    yield content
