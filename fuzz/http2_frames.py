"""Frames of HTTP/2 out of the bytes of a fuzz input: some made of what messages are made of, some of any bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hpack.hpack import Encoder

from fuzz.draw import Draw
from proxy.http.h2.frames import Kind, header

Fields = Sequence[tuple[bytes, tuple[bytes, ...]]]
"""Names, and values from which one is chosen. The first ones are those that a message begins with."""

COMMON: Fields = (
    (b"content-length", (b"0", b"5", b"05", b"+5", b"5, 5")),
    (b"te", (b"trailers", b"gzip")),
    (b"cookie", (b"a=b", b"c=d; e=f")),
    (b"transfer-encoding", (b"chunked",)),
    (b"x-name", (b"value", b"", b" padded ", b"two\r\nlines", b"tab\tbed", b"\xc3\xa9", b"x" * 600)),
)
_KINDS = (
    Kind.HEADERS, Kind.DATA, Kind.HEADERS, Kind.DATA, Kind.CONTINUATION, Kind.RST_STREAM, Kind.WINDOW_UPDATE,
    Kind.SETTINGS, Kind.PING, Kind.PRIORITY, Kind.GOAWAY, Kind.PUSH_PROMISE,
)  # fmt: skip


def frames(draw: Draw, fields: Fields, first: int) -> Iterator[bytes]:
    """``first``: so many of ``fields`` begin a good message."""
    encoder = Encoder()
    while draw.left and draw.below(32):
        kind, flags = draw.choice(_KINDS), draw.take(1).ljust(1, b"\x05")[0]
        stream = draw.below(8)
        if kind is Kind.HEADERS and draw.below(4):
            payload, flags = encoder.encode(_message(draw, fields, first)), flags & 0x05
        elif kind is Kind.DATA and draw.truth():
            payload, flags = b"hello", flags & 0x01
        else:
            payload = draw.take(draw.choice((0, 4, 5, 6, 8, 9, 30)))
        yield header(kind, flags, stream, len(payload)) + payload
    yield draw.rest()


def _message(draw: Draw, fields: Fields, first: int) -> list[tuple[bytes, bytes]]:
    begin = draw.choice((first, first, first, first - 1, first + 1, 0))
    message = [(name, values[0]) for name, values in fields[:begin]]
    for _ in range(draw.below(4)):
        name, values = draw.choice(fields)
        message.insert(draw.choice((len(message), 0, 2)), (name, draw.choice(values)))
    return message


def pieces(content: bytes, cuts: Sequence[int]) -> Iterator[bytes]:
    for length in cuts:
        if content[:length]:
            yield content[:length]
        content = content[length:]
    if content:
        yield content
