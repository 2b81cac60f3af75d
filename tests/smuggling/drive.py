"""Sends one message and the marker after it, and reads what comes back until the connection ends or falls silent."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.smuggling.case import HOST, MARKER, Case, Fields, StreamCase
from tests.support.eventually import SCALE

_SILENCE_S = 1.0
_DEADLINE_S = 20.0
_READ = 65_536
_MARKER = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % (MARKER, HOST)
_MARKER_FIELDS: Fields = ((b":method", b"GET"), (b":scheme", b"https"), (b":authority", HOST), (b":path", MARKER))
_NO_BODY = frozenset({204, 304})
_FRAME = 16_384


@dataclass(slots=True)
class Answer:
    """What the client got."""

    client: str
    """``ip:port`` of its end."""
    ended: bool = False
    """By the gateway."""
    received: bytes = b""
    statuses: list[int] = field(default_factory=list)
    """Final ones: of HTTP/1.1 in order; of HTTP/2 that of the message, then that of the marker; 0 for a stream that
    was reset or not answered."""


async def send(
    port: int, context: ssl.SSLContext, server_name: str, case: Case | StreamCase, local_address: str
) -> Answer:
    opening = asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=server_name, local_addr=(local_address, 0)
    )
    reader, writer = await asyncio.wait_for(opening, _DEADLINE_S * SCALE)
    address, number = writer.get_extra_info("sockname")[:2]
    answer = Answer(f"{address}:{number}")
    try:
        if isinstance(case, Case):
            writer.write(case.sent + _MARKER)
            await _read(reader, answer)
        else:
            await _Streams(reader, writer, answer).run(case)
    finally:
        writer.transport.abort()
    return answer


async def _read(reader: asyncio.StreamReader, answer: Answer) -> None:
    """The marker ends the connection, and so does a refusal; only a message that takes the marker in falls silent."""
    with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError):
        while data := await asyncio.wait_for(reader.read(_READ), _SILENCE_S * SCALE):
            answer.received += data
        answer.ended = True


def responses(received: bytes, methods: Sequence[str]) -> Iterator[int]:
    """The final statuses in a stream of HTTP/1.1, whose requests had these methods.

    :raises ValueError: when its bytes are not exactly such responses.
    """
    rest = received
    for method in (*methods, *["GET"] * len(received)):
        status = 100
        while status < 200 and status != 101:
            if not rest:
                return
            head, end, rest = rest.partition(b"\r\n\r\n")
            if not end or not head.startswith(b"HTTP/1.1 "):
                raise ValueError(f"no response: {head[:80]!r}")
            status = int(head.split()[1])
        yield status
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        if method == "HEAD" or status in _NO_BODY or status == 101:
            continue
        if b"transfer-encoding" in fields:
            rest = _after_chunks(rest)
        else:
            length = int(fields[b"content-length"])
            if len(rest) < length:
                raise ValueError("a body that is too short")
            rest = rest[length:]


def _after_chunks(rest: bytes) -> bytes:
    while True:
        size, end, rest = rest.partition(b"\r\n")
        if not end:
            raise ValueError("chunks without end")
        length = int(size.partition(b";")[0], 16)
        if not length:
            break
        if rest[length : length + 2] != b"\r\n":
            raise ValueError("a chunk without end")
        rest = rest[length + 2 :]
    while True:  # trailers
        line, _, rest = rest.partition(b"\r\n")
        if not line:
            return rest


class _Streams:
    """HTTP/2 by hand: no library would send what is in the corpus."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader, self._writer, self._answer = reader, writer, answer
        self._encoder, self._decoder = Encoder(), Decoder()
        self._answer.statuses = [0, 0]
        self._open = {1, 3}
        self._block = b""

    async def run(self, case: StreamCase) -> None:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
        message = self._message(1, case.fields, case.data, case.trailers)
        marker = self._message(3, _MARKER_FIELDS, (), ())
        self._writer.write(preface + message + marker)
        with contextlib.suppress(TimeoutError, ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            while self._open:
                self._take(await asyncio.wait_for(self._frame(), _SILENCE_S * 3 * SCALE))
            return
        self._answer.ended = self._reader.at_eof()

    def _message(self, stream: int, fields: Fields, data: Sequence[bytes], trailers: Fields) -> bytes:
        frames = self._headers(stream, fields, last=not data and not trailers)
        for number, part in enumerate(data, 1):
            frame = DataFrame(stream, data=part)
            if number == len(data) and not trailers:
                frame.flags.add("END_STREAM")
            frames += frame.serialize()
        return frames + (self._headers(stream, trailers, last=True) if trailers else b"")

    def _headers(self, stream: int, fields: Fields, *, last: bool) -> bytes:
        block = self._encoder.encode(fields)
        parts = [block[at : at + _FRAME] for at in range(0, len(block), _FRAME)] or [b""]
        first = HeadersFrame(stream, data=parts[0], flags=["END_STREAM"] if last else [])
        frames: list[Frame] = [first, *(ContinuationFrame(stream, data=part) for part in parts[1:])]
        frames[-1].flags.add("END_HEADERS")
        return b"".join(frame.serialize() for frame in frames)

    async def _frame(self) -> Frame:
        frame, length = Frame.parse_frame_header(memoryview(await self._reader.readexactly(9)))
        frame.parse_body(memoryview(await self._reader.readexactly(length)))
        return frame

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._writer.write(SettingsFrame(0, flags=["ACK"]).serialize())
        elif isinstance(frame, HeadersFrame | ContinuationFrame):
            self._block += bytes(frame.data)
            if "END_HEADERS" in frame.flags:
                block, self._block = self._block, b""
                fields = dict(self._decoder.decode(block, raw=True))
                if status := int(fields.get(b":status", b"0")):
                    self._answer.statuses[frame.stream_id // 2] = status
        elif isinstance(frame, DataFrame) and frame.flow_controlled_length:
            self._writer.write(WindowUpdateFrame(0, window_increment=frame.flow_controlled_length).serialize())
        elif isinstance(frame, GoAwayFrame) and frame.error_code:
            self._open.clear()
            self._answer.ended = True
        if isinstance(frame, RstStreamFrame) or "END_STREAM" in frame.flags:
            self._open.discard(frame.stream_id)
