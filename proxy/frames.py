"""How :mod:`proxy.messages` travel between the control process and a worker.

A frame is a four-byte big-endian length and that many bytes of msgpack, a struct tagged with its ``type``. This
module is pure: bytes in, values out; whoever calls it owns the socket.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from proxy.errors import FrameError
from proxy.messages import ToControl, ToWorker

MAX_FRAME = 512 * 1024 * 1024
"""Bytes. A full update of 10,000 services is about 60 MiB; more is a peer that has lost its mind."""

_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises; the last one for arrays within arrays without end."""


def encode(value: ToWorker | ToControl) -> bytes:
    body = _encoder.encode(value)
    if len(body) > MAX_FRAME:
        raise FrameError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


class _FrameReader:
    """Cuts a byte stream into frame bodies."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def _bodies(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > MAX_FRAME:
                raise FrameError(f"the peer announced a frame of {length} bytes, over the limit of {MAX_FRAME}")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield body


class WorkerFrames(_FrameReader):
    """Reads what a control process sends."""

    _decoder = msgspec.msgpack.Decoder(ToWorker)

    def feed(self, data: bytes) -> Iterator[ToWorker]:
        """Yield every complete frame. :raises FrameError: when the bytes are not frames for a worker."""
        for body in self._bodies(data):
            try:
                frame = self._decoder.decode(body)
            except _UNREADABLE as error:
                raise FrameError(f"not a frame for a worker: {error}") from error
            yield frame


class ControlFrames(_FrameReader):
    """Reads what a worker sends."""

    _decoder = msgspec.msgpack.Decoder(ToControl)

    def feed(self, data: bytes) -> Iterator[ToControl]:
        """Yield every complete frame. :raises FrameError: when the bytes are not frames of a worker."""
        for body in self._bodies(data):
            try:
                frame = self._decoder.decode(body)
            except _UNREADABLE as error:
                raise FrameError(f"not a frame of a worker: {error}") from error
            yield frame
