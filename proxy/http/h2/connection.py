"""What both sides of HTTP/2 share: streams and their windows, whose turn it is to send, and the end of a connection.

::

    wire -> FrameReader -> Receiver, Multiplexer -> Engine (state machine) and Stream -> exchange

The peer is told why a connection ends by GOAWAY (RFC 9113 section 5.4.1), and has a moment to read it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from h2.errors import ErrorCodes

from proxy.http.ending import Ending
from proxy.http.h2 import frames
from proxy.http.h2.frames import LARGEST_WINDOW, Fault, Kind
from proxy.http.h2.heads import Malformed
from proxy.http.h2.limits import Flood, FloodError
from proxy.http.h2.receiver import Receiver
from proxy.http.h2.stream import Stream
from proxy.http.wire import Wire

FIRST_WINDOW = 64 * 1024
"""Bytes of one body that may wait here before anybody has taken some of it."""
STREAM_WINDOW = 1024 * 1024
"""What that may grow to while they are taken as they come."""
CONNECTION_WINDOW = 16 * 1024 * 1024
"""Bytes of all bodies together: so many streams have to stand still before they stop the others."""
_UPDATED_EACH = 4 * 1024
"""Bytes of DATA for which a peer may send one more WINDOW_UPDATE."""
_SLICE = 64 * 1024
"""Bytes that one stream may send before the next one's turn."""
HEAD_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 3600.0
_DETAILS = 100
"""Characters of a reason that the peer is told."""

AnyStream = TypeVar("AnyStream", bound=Stream)


class Multiplexer(Receiver, Generic[AnyStream]):
    """Requests side by side on one wire."""

    def __init__(
        self,
        wire: Wire,
        *,
        client: bool,
        longest_head: int,
        first_window: int,
        window: int,
        connection_window: int,
        most_streams: int,
    ) -> None:
        """:param connection_window: of all streams together, in bytes. Others: see :class:`Receiver`."""
        super().__init__(
            wire, client=client, longest_head=longest_head, window=min(first_window, window), largest_window=window
        )
        self.streams: dict[int, AnyStream] = {}
        self._connection_window = connection_window
        self._most_streams = most_streams
        self._late = 0
        """Bytes that the peer may have sent on streams before it heard of their end."""
        self._waiting: dict[int, AnyStream] = {}
        self._ending: Ending | None = None
        self._told = False
        wire.owner = self

    # --- for the side to say what it means ------------------------------------------------------------------------

    def on_reset(self, stream: AnyStream, code: int) -> None:
        """The peer has reset it; it is finished off."""
        raise NotImplementedError

    def on_malformed(self, stream: AnyStream, what: str) -> None:
        """It was reset, since what came on it is none of HTTP; it is finished off."""
        raise NotImplementedError

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
        self.greet(self._connection_window, self._most_streams)

    def later(self, callback: Callable[[], None]) -> None:
        self.wire.soon(callback)

    def on_end(self, *, cut: bool) -> None:
        raise NotImplementedError

    def on_lost(self, error: Exception) -> None:
        raise NotImplementedError

    def on_settings(self) -> None:
        """Windows may have grown."""
        self.pump()

    def on_room(self) -> None:
        self.congested = False
        self.budgets.earn(Flood.UNREAD, LARGEST_WINDOW)
        self.pump()

    # --- frames ---------------------------------------------------------------------------------------------------

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

    def _on_rst_stream(self, _flags: int, number: int, payload: memoryview) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number, "RST_STREAM")
            self.budgets.spend(Flood.IDLE, self.now_s())
            return
        self._finish_off(stream)
        self.on_reset(stream, frames.word_of(payload))

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

    def hold(self, change: int) -> None:
        self.wire.hold(change)

    def give_back(self, number: int, length: int) -> None:
        """To the peer's windows; ``number`` is 0 where only the connection goes on."""
        self.engine.give_back(number, length, grow=not self.wire.short)

    def send_data(self, number: int, data: memoryview, *, end: bool) -> None:
        """For which there is room. Who is sent much has much to say about windows, and measures the way to us."""
        self.emit(self.engine.data(number, data, end=end))
        self.budgets.earn(Flood.WINDOWS, 4 + len(data) // _UPDATED_EACH)
        self.budgets.earn(Flood.ANSWERS, 1)

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
        self.budgets.earn_for_request()

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


Multiplexer.HANDLERS = {
    **Receiver.HANDLERS,
    Kind.DATA: Multiplexer._on_data,
    Kind.RST_STREAM: Multiplexer._on_rst_stream,
    Kind.WINDOW_UPDATE: Multiplexer._on_window_update,
}
