"""HTTP/2 as frames (RFC 9113 section 4): cutting what arrives, and the small frames that the gateway writes itself.

The library sees frames that are complete and whose header has been checked. What one connection may keep of an
incomplete frame is bounded by the largest frame that it announces.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

from h2.errors import ErrorCodes

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (section 3.4)."""
HEADER_SIZE = 9
LARGEST_FRAME = 16_384
"""Bytes: ``SETTINGS_MAX_FRAME_SIZE``, which is not announced, so that its first value stands (section 6.5.2)."""
LARGEST_WINDOW = 2**31 - 1

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

_HEADER = struct.Struct(">HBBBL")
_WORD = struct.Struct(">L")


class Kind(enum.IntEnum):
    """Of frames (section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


_SIZES = {Kind.PRIORITY: 5, Kind.RST_STREAM: 4, Kind.PING: 8, Kind.WINDOW_UPDATE: 4}
_OF_A_STREAM = {Kind.DATA, Kind.HEADERS, Kind.PRIORITY, Kind.RST_STREAM, Kind.PUSH_PROMISE, Kind.CONTINUATION}
_OF_THE_CONNECTION = {Kind.SETTINGS, Kind.PING, Kind.GOAWAY}

Frame = tuple[int, int, int, memoryview]
"""Its kind (perhaps an unknown one), its flags, its stream, its payload: valid until the next one is asked for."""


class Fault(Exception):
    """The peer has broken the protocol: the connection ends with GOAWAY (section 5.4.1)."""

    def __init__(self, code: ErrorCodes, what: str) -> None:
        super().__init__(what)
        self.code = code


class FrameReader:
    """Bytes in any pieces to whole frames."""

    __slots__ = ("_partial", "_preface")

    def __init__(self, *, preface: bool) -> None:
        """``preface``: the peer is a client, and begins with it."""
        self._preface = PREFACE if preface else b""
        self._partial = bytearray()

    def feed(self, data: memoryview) -> Iterator[Frame]:
        """The frames that ``data`` completes.

        :raises Fault: when the peer does not speak HTTP/2, or a frame is too large or cannot be where it is.
        """
        if self._preface:
            data = self._skip_preface(data)
        if self._partial:
            data = self._complete(data)
            if not self._is_whole():
                return
            whole, self._partial = memoryview(self._partial), bytearray()
            kind, flags, stream, _ = _header_of(whole)
            yield kind, flags, stream, whole[HEADER_SIZE:]
        start, end = 0, len(data)
        while end - start >= HEADER_SIZE:
            kind, flags, stream, length = _header_of(data[start : start + HEADER_SIZE])
            if end - start < HEADER_SIZE + length:
                break
            start += HEADER_SIZE
            yield kind, flags, stream, data[start : start + length]
            start += length
        if start < end:
            self._partial += data[start:]

    @property
    def incomplete(self) -> bool:
        """Part of a frame has come."""
        return bool(self._partial)

    def _skip_preface(self, data: memoryview) -> memoryview:
        part = bytes(data[: len(self._preface)])
        if not self._preface.startswith(part):
            raise Fault(ErrorCodes.PROTOCOL_ERROR, "the connection does not begin with the preface of HTTP/2")
        self._preface = self._preface[len(part) :]
        return data[len(part) :]

    def _complete(self, data: memoryview) -> memoryview:
        """Add what the incomplete frame lacks, at most; returns the rest."""
        for _ in range(2):  # its header, then its payload
            lacking = self._lacking()
            self._partial += data[:lacking]
            data = data[lacking:]
        return data

    def _lacking(self) -> int:
        have = len(self._partial)
        if have < HEADER_SIZE:
            return HEADER_SIZE - have
        return HEADER_SIZE + _header_of(memoryview(self._partial)[:HEADER_SIZE])[3] - have

    def _is_whole(self) -> bool:
        return len(self._partial) >= HEADER_SIZE and self._lacking() == 0


def _header_of(data: memoryview) -> tuple[int, int, int, int]:
    """Kind, flags, stream and length."""
    upper, lower, kind, flags, stream = _HEADER.unpack_from(data)
    length = upper << 8 | lower
    stream &= LARGEST_WINDOW
    if length > LARGEST_FRAME:
        raise Fault(ErrorCodes.FRAME_SIZE_ERROR, f"a frame of {length} bytes; {LARGEST_FRAME} at most are announced")
    if kind in _SIZES and length != _SIZES[kind]:
        raise Fault(ErrorCodes.FRAME_SIZE_ERROR, f"a frame {Kind(kind).name} of {length} bytes")
    if (kind in _OF_A_STREAM) if not stream else (kind in _OF_THE_CONNECTION):
        raise Fault(ErrorCodes.PROTOCOL_ERROR, f"a frame {Kind(kind).name} on stream {stream}")
    return kind, flags, stream, length


def unpadded(flags: int, payload: memoryview) -> memoryview:
    """Without its padding (section 6.1). :raises Fault: when that is longer than the frame."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise Fault(ErrorCodes.PROTOCOL_ERROR, "the padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]


def word_of(payload: memoryview) -> int:
    """The first four bytes, as a number."""
    number: int = _WORD.unpack_from(payload)[0]
    return number


def header(kind: Kind, flags: int, stream: int, length: int) -> bytes:
    return _HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream)


def ping(payload: bytes, *, ack: bool) -> bytes:
    return header(Kind.PING, ACK if ack else 0, 0, 8) + payload


def goaway(last_stream: int, code: int, text: str = "") -> bytes:
    """``text`` is for whoever debugs the peer."""
    debug = text.encode("ascii", "replace")
    return header(Kind.GOAWAY, 0, 0, 8 + len(debug)) + _WORD.pack(last_stream) + _WORD.pack(code) + debug


def window_update(stream: int, increment: int) -> bytes:
    return header(Kind.WINDOW_UPDATE, 0, stream, 4) + _WORD.pack(increment)


def rst_stream(stream: int, code: int) -> bytes:
    return header(Kind.RST_STREAM, 0, stream, 4) + _WORD.pack(code)


def settings(values: dict[int, int]) -> bytes:
    body = b"".join(struct.pack(">HL", code, value) for code, value in values.items())
    return header(Kind.SETTINGS, 0, 0, len(body)) + body
