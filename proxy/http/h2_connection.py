"""What both sides of HTTP/2 share: frames to streams, windows, answers, floods, and the end of a connection.

::

    wire -> FrameReader -> Multiplexer -> Engine (state machine) and Stream -> exchange

The peer is told why a connection ends by GOAWAY (RFC 9113 section 5.4.1), and has a moment to read it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Generic, TypeVar

from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError

from proxy.http import h2_frames as frames
from proxy.http.h1_ending import Ending
from proxy.http.h2_engine import Engine
from proxy.http.h2_frames import LARGEST_WINDOW, Fault, FrameReader, Kind
from proxy.http.h2_heads import Malformed
from proxy.http.h2_limits import Budgets, Flood, FloodError
from proxy.http.h2_stream import Stream
from proxy.http.wire import Wire

STREAM_WINDOW = 1024 * 1024
"""Bytes of one body that may wait here for a slow receiver."""
CONNECTION_WINDOW = 16 * 1024 * 1024
"""Bytes of all bodies together: so many streams have to stand still before they stop the others."""
_STANDARD_WINDOW = 65_535
_SLICE = 64 * 1024
"""Bytes that one stream may send before the next one's turn."""
HEAD_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 3600.0
_DETAILS = 100
"""Characters of a reason that the peer is told."""

AnyStream = TypeVar("AnyStream", bound=Stream)


class Multiplexer(Generic[AnyStream]):
    """Owner of a wire that carries HTTP/2."""

    def __init__(
        self,
        wire: Wire,
        *,
        client: bool,
        longest_head: int,
        window: int,
        connection_window: int,
        most_streams: int,
    ) -> None:
        """
        :param client: we are the client.
        :param longest_head: bytes of names and values of a message, and of the block that they come in.
        """
        self.open_requests = 0
        self.congested = False
        self.engine = Engine(client=client, window=window, longest_list=2 * longest_head, emit=self.emit)
        self.streams: dict[int, AnyStream] = {}
        self.longest_head = longest_head
        self.receiving = False
        """Frames are being taken: not the moment for what is best done once after all of them."""
        self.closed = False
        """Nothing is carried any more; the socket may still be open for the last word."""
        self.wire = wire
        wire.owner = self
        self._client = client
        self._window = window
        self._connection_window = connection_window
        self._most_streams = most_streams
        self._reader = FrameReader(preface=not client)
        self.now_s = wire.loop.time
        self.budgets = Budgets(wire.loop.time())
        self._settled = False
        """The peer's first SETTINGS have come."""
        self._block: tuple[int, int] | None = None
        """Stream and flags of a list of headers that is not complete."""
        self._fragments = bytearray()
        self._late = 0
        """Bytes that the peer may have sent on streams before it heard of their end."""
        self._waiting: dict[int, AnyStream] = {}
        self._ending: Ending | None = None
        self._told = False
        self._handlers: dict[int, Callable[[int, int, memoryview], None]] = {
            Kind.DATA: self._on_data,
            Kind.HEADERS: self._on_headers,
            Kind.PRIORITY: self._on_idle_frame,
            Kind.RST_STREAM: self._on_rst_stream,
            Kind.SETTINGS: self._on_settings,
            Kind.PUSH_PROMISE: self._on_push,
            Kind.PING: self._on_ping,
            Kind.GOAWAY: self._on_goaway,
            Kind.WINDOW_UPDATE: self._on_window_update,
            Kind.CONTINUATION: self._on_continuation,
        }

    # --- for the side to say what it means ------------------------------------------------------------------------

    def on_block(self, number: int, block: bytes, *, end: bool) -> None:
        """A whole list of headers."""
        raise NotImplementedError

    def on_reset(self, stream: AnyStream, code: int) -> None:
        """The peer has reset it; it is finished off."""
        raise NotImplementedError

    def on_malformed(self, stream: AnyStream, what: str) -> None:
        """It was reset, since what came on it is none of HTTP; it is finished off."""
        raise NotImplementedError

    def on_goaway(self, last: int, code: int) -> None:
        raise NotImplementedError

    def on_pong(self, payload: bytes) -> None:
        """An answer to a PING of ours."""

    def on_settings(self) -> None:
        """The peer's settings have changed."""

    def on_stream_ended(self, stream: AnyStream) -> None:
        """In both directions, or by a reset of ours."""

    def on_fault(self, error: Exception, what: str) -> None:
        """The connection is over, and the peer is told; streams are to be told."""
        raise NotImplementedError

    def on_closed(self) -> None:
        """Once, when the socket is closed."""

    # --- the wire -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Say the first word, and listen."""
        preface = frames.PREFACE if self._client else b""
        settings = {4: self._window, 6: self.longest_head}
        if self._client:
            settings[2] = 0  # no push
        else:
            settings[3] = self._most_streams
        self.emit(preface + frames.settings(settings))
        if (more := self._connection_window - _STANDARD_WINDOW) > 0:
            self.engine.increment_flow_control_window(more)
        self.wire.listen()

    @property
    def head_begun(self) -> bool:
        """The peer owes the rest of its first words, or of a list of headers; of a body it may take its time."""
        if not self._settled or self._block is not None:
            return True
        return self._reader.incomplete and not self.open_requests

    def emit(self, data: bytes) -> None:
        if not self.closed and not self.wire.write(data):
            self.congested = True

    def _answer(self, data: bytes) -> None:
        """What the peer makes us say. A peer that does not read is not answered without end."""
        if self.congested:
            self.budgets.spend(Flood.UNREAD, self.now_s())
        self.emit(data)

    def later(self, callback: Callable[[], None]) -> None:
        self.wire.soon(callback)

    def on_bytes(self, data: memoryview) -> None:
        self.receiving = True
        try:
            self._take(data)
        except Fault as fault:
            self.fail(fault, fault.code)
        except DenialOfServiceError as error:
            self.fail(error, ErrorCodes.ENHANCE_YOUR_CALM)
        except ProtocolError as error:
            self.fail(error, error.error_code)
        finally:
            self.receiving = False

    def _take(self, data: memoryview) -> None:
        for kind, flags, number, payload in self._reader.feed(data):
            self._on_frame(kind, flags, number, payload)
            if self.closed:
                return

    def on_end(self, *, cut: bool) -> None:
        raise NotImplementedError

    def on_lost(self, error: Exception) -> None:
        raise NotImplementedError

    def on_room(self) -> None:
        self.congested = False
        self.budgets.earn(Flood.UNREAD, LARGEST_WINDOW)
        self.pump()

    # --- frames ---------------------------------------------------------------------------------------------------

    def _on_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        if self._block is not None and (kind != Kind.CONTINUATION or number != self._block[0]):
            raise Fault(ErrorCodes.PROTOCOL_ERROR, "another frame within a list of headers")
        if not self._settled:
            if kind != Kind.SETTINGS or flags & frames.ACK:
                raise Fault(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._settled = True
        self._handlers.get(kind, self._on_idle_frame)(flags, number, payload)

    def _on_idle_frame(self, _flags: int, number: int, _payload: memoryview) -> None:
        self.budgets.spend(Flood.IDLE, self.now_s())

    def _on_push(self, _flags: int, _number: int, _payload: memoryview) -> None:
        raise Fault(ErrorCodes.PROTOCOL_ERROR, "PUSH_PROMISE, which was refused")

    def _on_data(self, flags: int, number: int, payload: memoryview) -> None:
        data = frames.unpadded(flags, payload)
        end = bool(flags & frames.END_STREAM)
        if not data and not end:
            self.budgets.spend(Flood.EMPTY, self.now_s())
        stream = self.streams.get(number)
        if stream is None:
            self._on_late_data(number, len(payload))
            return
        if stream.heard_end:
            self._reset_peer(stream, ErrorCodes.STREAM_CLOSED, "DATA after the end")
            self.engine.take_late_data(len(payload))
            return
        self.engine.take_data(number, len(payload), end=end)
        try:
            stream.take_data(data, len(payload), end=end)
        except Malformed as error:
            self._reset_peer(stream, ErrorCodes.PROTOCOL_ERROR, str(error))
            return

    def _on_late_data(self, number: int, length: int) -> None:
        """On its way when the stream was reset: ignored (section 5.1), but it counts in the connection's window."""
        self._check_known(number, "DATA")
        self._late -= length
        if self._late < 0:
            raise Fault(ErrorCodes.STREAM_CLOSED, "DATA on a stream that has ended")
        if not length:
            self.budgets.spend(Flood.EMPTY, self.now_s())
        self.engine.take_late_data(length)

    def _on_headers(self, flags: int, number: int, payload: memoryview) -> None:
        payload = frames.unpadded(flags, payload)
        if flags & frames.PRIORITY:  # deprecated (section 5.3)
            if len(payload) < 5:
                raise Fault(ErrorCodes.FRAME_SIZE_ERROR, "HEADERS without the priority that it announces")
            payload = payload[5:]
        if flags & frames.END_HEADERS:
            self.on_block(number, bytes(payload), end=bool(flags & frames.END_STREAM))
            return
        self._block = (number, flags)
        self._fragments += payload

    def _on_continuation(self, flags: int, number: int, payload: memoryview) -> None:
        if self._block is None:
            raise Fault(ErrorCodes.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        self.budgets.spend(Flood.CONTINUATION, self.now_s())
        if not payload:
            self.budgets.spend(Flood.EMPTY, self.now_s())
        self._fragments += payload
        if len(self._fragments) > 2 * self.longest_head:
            # What is not decoded leaves the two tables of headers different: nothing can follow on this connection.
            raise Fault(ErrorCodes.ENHANCE_YOUR_CALM, f"a list of headers of more than {2 * self.longest_head} bytes")
        if flags & frames.END_HEADERS:
            (_, first), block = self._block, bytes(self._fragments)
            self._block, self._fragments = None, bytearray()
            self.on_block(number, block, end=bool(first & frames.END_STREAM))

    def _on_rst_stream(self, _flags: int, number: int, payload: memoryview) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number, "RST_STREAM")
            self.budgets.spend(Flood.IDLE, self.now_s())
            return
        self._finish_off(stream)
        self.on_reset(stream, frames.word_of(payload))

    def _on_settings(self, flags: int, _number: int, payload: memoryview) -> None:
        if flags & frames.ACK:
            if payload:
                raise Fault(ErrorCodes.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with content")
            self.budgets.spend(Flood.IDLE, self.now_s())
            return
        if len(payload) % 6:
            raise Fault(ErrorCodes.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        self.budgets.spend(Flood.ANSWERS, self.now_s())
        if self.congested:
            self.budgets.spend(Flood.UNREAD, self.now_s())
        self.engine.take_settings([(code, value) for code, value in struct.iter_unpack(">HL", payload)])
        self.on_settings()
        self.pump()

    def _on_ping(self, flags: int, _number: int, payload: memoryview) -> None:
        if flags & frames.ACK:
            self.budgets.spend(Flood.IDLE, self.now_s())
            self.on_pong(bytes(payload))
            return
        self.budgets.spend(Flood.ANSWERS, self.now_s())
        self._answer(frames.ping(bytes(payload), ack=True))

    def _on_goaway(self, _flags: int, _number: int, payload: memoryview) -> None:
        if len(payload) < 8:
            raise Fault(ErrorCodes.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self.budgets.spend(Flood.IDLE, self.now_s())
        self.on_goaway(frames.word_of(payload) & LARGEST_WINDOW, frames.word_of(payload[4:]))

    def _on_window_update(self, _flags: int, number: int, payload: memoryview) -> None:
        self.budgets.spend(Flood.WINDOWS, self.now_s())
        increment = frames.word_of(payload) & LARGEST_WINDOW
        engine = self.engine
        if not number:
            if not increment:
                raise Fault(ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            engine.outbound_flow_control_window += increment
            if engine.outbound_flow_control_window > LARGEST_WINDOW:
                raise Fault(ErrorCodes.FLOW_CONTROL_ERROR, "the window of the connection exceeds 2^31 - 1")
            self.pump()
            return
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number, "WINDOW_UPDATE")
            return
        if not increment:
            self._reset_peer(stream, ErrorCodes.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            return
        engine.streams[number].outbound_flow_control_window += increment
        if engine.streams[number].outbound_flow_control_window > LARGEST_WINDOW:
            self._reset_peer(stream, ErrorCodes.FLOW_CONTROL_ERROR, "the window of the stream exceeds 2^31 - 1")
        elif number in self._waiting:
            self._pump_one(stream)

    def _check_known(self, number: int, what: str) -> None:
        """:raises Fault: when the stream was never opened."""
        theirs = number % 2 != self._client
        highest = self.engine.highest_inbound_stream_id if theirs else self.engine.highest_outbound_stream_id
        if number > highest:
            raise Fault(ErrorCodes.PROTOCOL_ERROR, f"{what} on a stream that is not open")

    # --- sending --------------------------------------------------------------------------------------------------

    def wait_for_room(self, stream: Stream) -> None:
        self._waiting[stream.number] = self.streams[stream.number]

    def pump(self) -> None:
        """Send what streams hold, each some, in turn."""
        engine = self.engine
        while self._waiting and not self.congested and not self.closed:
            before = engine.outbound_flow_control_window
            for stream in list(self._waiting.values()):
                if engine.outbound_flow_control_window <= 0 and stream.is_held:
                    return  # whoever is first now has the next turn
                self._pump_one(stream)
            if engine.outbound_flow_control_window == before:
                return

    def _pump_one(self, stream: AnyStream) -> None:
        if self.congested or self.closed or self._waiting.pop(stream.number, None) is None:
            return
        if stream.pump(_SLICE) and not stream.done:
            self._waiting[stream.number] = stream  # behind the others

    # --- the end of streams ---------------------------------------------------------------------------------------

    def add(self, stream: AnyStream) -> None:
        self.streams[stream.number] = stream
        self.open_requests += 1
        earn = self.budgets.earn
        for flood, amount in _EARNED:
            earn(flood, amount)

    def ended(self, stream: Stream) -> None:
        known = self.streams.get(stream.number)
        if known is not None:
            self._finish_off(known)
            self.on_stream_ended(known)

    def reset(self, stream: Stream, code: ErrorCodes) -> None:
        """By us: RST_STREAM."""
        known = self.streams.get(stream.number)
        if known is None:
            return
        if not known.heard_end:
            self._late += max(self.engine.unsent(known.number), 0)
        if not self.engine.streams[known.number].closed:  # or both have said that it has ended
            self.engine.reset_stream(known.number, code)
        self._finish_off(known)
        self.on_stream_ended(known)

    def _reset_peer(self, stream: AnyStream, code: ErrorCodes, what: str) -> None:
        """Because of what the peer did."""
        self.budgets.spend(Flood.PROVOKED, self.now_s())
        self.reset(stream, code)
        self.on_malformed(stream, what)

    def take_headers_after_end(self, stream: AnyStream, block: bytes) -> None:
        self.engine.drop_headers(block)
        self._reset_peer(stream, ErrorCodes.STREAM_CLOSED, "HEADERS after the end")

    def reset_malformed(self, stream: AnyStream, what: str) -> None:
        self._reset_peer(stream, ErrorCodes.PROTOCOL_ERROR, what)

    def _finish_off(self, stream: AnyStream) -> None:
        if self.streams.pop(stream.number, None) is None:
            return
        self._waiting.pop(stream.number, None)
        self.open_requests -= 1
        stream.finish_off()
        self.engine.forget(stream.number)

    def take_streams(self) -> list[AnyStream]:
        """All that are open; they are finished off."""
        streams = list(self.streams.values())
        for stream in streams:
            self._finish_off(stream)
        return streams

    # --- the end of the connection --------------------------------------------------------------------------------

    def fail(self, error: Exception, code: ErrorCodes) -> None:
        if self.closed:
            return
        what = str(error.flood) if isinstance(error, FloodError) else str(error)
        self.say_last_word(code, what)
        self.on_fault(error, what)

    def say_last_word(self, code: ErrorCodes, what: str) -> None:
        """GOAWAY, then nothing more; the socket is closed when the peer has ended, or soon."""
        self.emit(frames.goaway(self.engine.highest_inbound_stream_id, code, what[:_DETAILS]))
        self.closed = True
        self._ending = Ending(self.wire, self._tell_closed, ended=False)

    def close_wire(self, *, reset: bool) -> None:
        """Now. Something of ours that was not sent is lost."""
        self.closed = True
        if self._ending is not None:
            self._ending.stop()
        self.wire.close(reset=reset)
        self._tell_closed()

    def _tell_closed(self) -> None:
        if not self._told:
            self._told = True
            self.on_closed()


_EARNED = (
    (Flood.WINDOWS, 10),
    (Flood.IDLE, 4),
    (Flood.EMPTY, 2),
    (Flood.ANSWERS, 1),
    (Flood.CONTINUATION, 8),
)
"""What a request allows beside it."""
