"""The other side of HTTP/2: the library itself, and frames made by hand for what it would not send."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import TypeVar

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event
from hpack.hpack import Decoder, Encoder
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, SettingsFrame

from proxy.http.h2.frames import PREFACE
from tests.support.http_sides import Bench

AnyEvent = TypeVar("AnyEvent", bound=Event)

GET = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"db.example"), (b":path", b"/")]
POST = [(b":method", b"POST"), *GET[1:]]
OK = [(b":status", b"200")]


class Peer:
    """Keeps every event that it was told of."""

    def __init__(self, bench: Bench, connected: socket.socket, *, client: bool) -> None:
        self.bench = bench
        self.socket = connected
        self.protocol = H2Connection(
            H2Configuration(
                client_side=client, header_encoding=None, validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )  # fmt: skip
        self.events: list[Event] = []
        self.received = 0
        self.ended = False
        self.reading = True
        self.acknowledge = True
        """Give the window back for what was received."""
        self._unsent = bytearray()

    def start(self) -> None:
        self.protocol.initiate_connection()
        self.flush()

    def flush(self, raw: bytes = b"") -> None:
        """Send what the protocol has to say, and ``raw``."""
        self._unsent += self.protocol.data_to_send() + raw
        while self._unsent:
            try:
                sent = self.socket.send(self._unsent)
            except BlockingIOError:
                return
            except OSError:
                self._unsent.clear()  # it is gone: that is read
                return
            del self._unsent[:sent]

    def send(self, *frames: Frame) -> None:
        self.flush(b"".join(frame.serialize() for frame in frames))

    def read(self) -> None:
        """What has come."""
        while self.reading and not self.ended:
            try:
                data = self.socket.recv(65_536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.ended = True
                break
            self.received += len(data)
            for event in self.protocol.receive_data(data):
                self.events.append(event)
                if self.acknowledge and isinstance(event, DataReceived) and event.flow_controlled_length:
                    self.protocol.acknowledge_received_data(event.flow_controlled_length, event.stream_id or 0)
        self.flush()

    def until(self, condition: Callable[[], object]) -> None:
        """Read until it holds."""

        def holds() -> object:
            self.read()
            return condition()

        self.bench.until(holds)

    def of(self, kind: type[AnyEvent]) -> list[AnyEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    def expect(self, kind: type[AnyEvent], number: int = 1) -> AnyEvent:
        """The ``number``-th event of its kind, when it has come."""
        self.until(lambda: len(self.of(kind)) >= number)
        return self.of(kind)[number - 1]

    def settle(self, turns: int = 20) -> None:
        """Let both sides say everything that they have to say now."""
        for _ in range(turns):
            self.read()
            self.bench.turns()

    def body(self, stream: int) -> bytes:
        return b"".join(event.data or b"" for event in self.of(DataReceived) if event.stream_id == stream)


def block(headers: Iterable[tuple[bytes, bytes]], stream: int = 1, *flags: str, size: int = 16_384) -> list[Frame]:
    """HEADERS and CONTINUATION frames, whatever is in them; nothing is put into the table of headers."""
    encoder = Encoder()
    data = encoder.encode([(name, value, True) for name, value in headers], huffman=False)
    first = HeadersFrame(stream, data[:size], flags=flags)
    frames: list[Frame] = [first]
    frames += [ContinuationFrame(stream, data[at : at + size]) for at in range(size, len(data), size)]
    frames[-1].flags.add("END_HEADERS")
    return frames


AnyFrame = TypeVar("AnyFrame", bound=Frame)


class RawPeer:
    """Sends frames as they are, and keeps those that come: for a peer that does what the library would not do."""

    def __init__(self, bench: Bench, connected: socket.socket, *, client: bool) -> None:
        self.bench = bench
        self.socket = connected
        self.frames: list[Frame] = []
        self.ended = False
        self._decoder = Decoder()
        self._received = bytearray()
        self._preface = 0 if client else len(PREFACE)
        self._greeting = (PREFACE if client else b"") + SettingsFrame().serialize()

    def start(self) -> None:
        self.send_bytes(self._greeting)

    def send(self, *frames: Frame) -> None:
        self.send_bytes(b"".join(frame.serialize() for frame in frames))

    def send_bytes(self, data: bytes) -> None:
        """All of it, while the other side reads; what a side that is gone does not take is lost."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                self.bench.turns()
            except OSError:
                return

    def read(self) -> None:
        while not self.ended:
            try:
                data = self.socket.recv(65_536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            self.ended = not data
            self._received += data
        if self._preface and len(self._received) >= self._preface:
            del self._received[: self._preface]
            self._preface = 0
        while not self._preface and len(self._received) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(bytes(self._received[:9])))
            if len(self._received) < 9 + length:
                break
            frame.parse_body(memoryview(bytes(self._received[9 : 9 + length])))
            del self._received[: 9 + length]
            self.frames.append(frame)

    def of(self, kind: type[AnyFrame]) -> list[AnyFrame]:
        return [frame for frame in self.frames if isinstance(frame, kind)]

    def expect(self, kind: type[AnyFrame], number: int = 1) -> AnyFrame:
        """The ``number``-th frame of its kind, when it has come."""

        def has_come() -> bool:
            self.read()
            return len(self.of(kind)) >= number

        self.bench.until(has_come)
        return self.of(kind)[number - 1]

    def expect_end(self) -> None:
        def has_ended() -> bool:
            self.read()
            return self.ended

        self.bench.until(has_ended)

    def headers(self, frame: HeadersFrame) -> list[tuple[bytes, bytes]]:
        """In the order in which they came: they share a table."""
        return [(bytes(name), bytes(value)) for name, value in self._decoder.decode(frame.data, raw=True)]
