"""Frames of one connection, either side: what concerns the connection itself is answered here, the rest is handed on.

Lists of headers are put together, settings taken, questions answered; what costs and brings nothing is counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, ClassVar

from h2.errors import ErrorCodes
from h2.exceptions import DenialOfServiceError, ProtocolError

from proxy.http.h2 import frames
from proxy.http.h2.engine import Engine
from proxy.http.h2.frames import LARGEST_WINDOW, Fault, FrameReader, Kind
from proxy.http.h2.limits import Budgets, Flood
from proxy.http.wire import Wire

_STANDARD_WINDOW = 65_535
_SETTING = ">HL"
_ENABLE_PUSH, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_HEADER_LIST_SIZE = 2, 3, 4, 6

Handler = Callable[[Any, int, int, memoryview], None]


class Receiver:
    """Owner of a wire that carries HTTP/2."""

    HANDLERS: ClassVar[dict[int, Handler]] = {}
    """By kind of frame: what is called with its flags, its stream and its payload."""

    def __init__(self, wire: Wire, *, client: bool, longest_head: int, window: int, largest_window: int) -> None:
        """
        :param client: we are the client.
        :param longest_head: bytes of names and values of a message, and half of those of the list that they come in.
        :param window: of each stream when it begins, in bytes; ``largest_window``: what it may grow to.
        """
        self.wire = wire
        self.longest_head = longest_head
        self.engine = Engine(
            client=client,
            window=window,
            largest_window=largest_window,
            longest_list=2 * longest_head,
            emit=self.emit,
        )
        self.now_s = wire.loop.time
        self.budgets = Budgets(self.now_s())
        self.open_requests = 0
        self.congested = False
        self.receiving = False
        """Frames are being taken: not the moment for what is best done once after all of them."""
        self.closed = False
        """Nothing is carried any more; the socket may still be open for the last word."""
        self._client = client
        self._window = window
        self._reader = FrameReader(preface=not client)
        self._settled = False
        """The peer's first SETTINGS have come."""
        self._block: tuple[int, int] | None = None
        """Stream and flags of a list of headers that is not complete."""
        self._fragments = bytearray()

    # --- for the side to say what it means ------------------------------------------------------------------------

    def on_block(self, number: int, block: bytes, *, end: bool) -> None:
        """A whole list of headers."""
        raise NotImplementedError

    def on_goaway(self, last: int, code: int) -> None:
        raise NotImplementedError

    def on_pong(self, payload: bytes) -> None:
        """An answer to a PING of ours."""

    def on_settings(self) -> None:
        """The peer's settings have changed."""

    def fail(self, error: Exception, code: ErrorCodes) -> None:
        """The connection is over."""
        raise NotImplementedError

    # --- the wire -------------------------------------------------------------------------------------------------

    def greet(self, connection_window: int, most_streams: int) -> None:
        """Say the first word, and listen."""
        preface = frames.PREFACE if self._client else b""
        settings = {_INITIAL_WINDOW_SIZE: self._window, _MAX_HEADER_LIST_SIZE: self.longest_head}
        if self._client:
            settings[_ENABLE_PUSH] = 0
        else:
            settings[_MAX_CONCURRENT_STREAMS] = most_streams
        self.emit(preface + frames.settings(settings))
        if (more := connection_window - _STANDARD_WINDOW) > 0:
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

    def on_bytes(self, data: memoryview) -> None:
        self.receiving = True
        try:
            self._take(data)
        except Fault as fault:
            self.fail(fault, fault.code)
        except DenialOfServiceError as flood:
            self.fail(flood, ErrorCodes.ENHANCE_YOUR_CALM)
        except ProtocolError as error:
            self.fail(error, error.error_code)
        finally:
            self.receiving = False

    def _take(self, data: memoryview) -> None:
        for kind, flags, number, payload in self._reader.feed(data):
            self._on_frame(kind, flags, number, payload)
            if self.closed:
                return

    # --- frames ---------------------------------------------------------------------------------------------------

    def _on_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        if self._block is not None and (kind != Kind.CONTINUATION or number != self._block[0]):
            raise Fault(ErrorCodes.PROTOCOL_ERROR, "another frame within a list of headers")
        if not self._settled:
            if kind != Kind.SETTINGS or flags & frames.ACK:
                raise Fault(ErrorCodes.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._settled = True
        self.HANDLERS.get(kind, Receiver.on_idle_frame)(self, flags, number, payload)

    def on_idle_frame(self, _flags: int, number: int, _payload: memoryview) -> None:
        self.budgets.spend(Flood.IDLE, self.now_s())

    def _on_push(self, _flags: int, _number: int, _payload: memoryview) -> None:
        raise Fault(ErrorCodes.PROTOCOL_ERROR, "PUSH_PROMISE, which was refused")

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
        self.engine.take_settings([(code, value) for code, value in struct.iter_unpack(_SETTING, payload)])
        self.on_settings()

    def _on_ping(self, flags: int, _number: int, payload: memoryview) -> None:
        if flags & frames.ACK:
            self.budgets.spend(Flood.IDLE, self.now_s())
            self.on_pong(bytes(payload))
            return
        self.budgets.spend(Flood.ANSWERS, self.now_s())
        if self.congested:
            self.budgets.spend(Flood.UNREAD, self.now_s())
        self.emit(frames.ping(bytes(payload), ack=True))

    def _on_goaway(self, _flags: int, _number: int, payload: memoryview) -> None:
        if len(payload) < 8:
            raise Fault(ErrorCodes.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self.budgets.spend(Flood.IDLE, self.now_s())
        self.on_goaway(frames.word_of(payload) & LARGEST_WINDOW, frames.word_of(payload[4:]))


Receiver.HANDLERS = {
    Kind.HEADERS: Receiver._on_headers,
    Kind.SETTINGS: Receiver._on_settings,
    Kind.PUSH_PROMISE: Receiver._on_push,
    Kind.PING: Receiver._on_ping,
    Kind.GOAWAY: Receiver._on_goaway,
    Kind.CONTINUATION: Receiver._on_continuation,
}
