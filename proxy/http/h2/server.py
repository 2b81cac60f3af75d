"""HTTP/2 towards the mesh client."""

from __future__ import annotations

import asyncio

from h2.errors import ErrorCodes

from proxy.http.errors import BadRequest, loss_of_client
from proxy.http.h2 import frames, heads
from proxy.http.h2.connection import (
    CONNECTION_WINDOW,
    FIRST_WINDOW,
    HEAD_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    STREAM_WINDOW,
    Multiplexer,
)
from proxy.http.h2.frames import LARGEST_WINDOW
from proxy.http.h2.heads import Malformed
from proxy.http.h2.limits import Flood, FloodError
from proxy.http.h2.stream import Stream
from proxy.http.message import Data, Headers, RequestHead, ResponseHead, Version
from proxy.http.streams import IncomingEvents, ServerEvents
from proxy.http.wire import Wire
from proxy.model import CloseReason

MOST_STREAMS = 100
"""At a time, on one connection (RFC 9113 section 6.5.2 recommends no fewer)."""
_DRAINING = b"draining"
"""Payload of the PING that tells when the client has read the first GOAWAY."""


class H2Stream(Stream):
    """An :class:`proxy.http.streams.Incoming`."""

    __slots__ = ("_events", "_server", "head", "responded")

    def __init__(self, server: H2Server, number: int, head: RequestHead) -> None:
        super().__init__(server, number)
        self._server = server
        self.head = head
        self.expected = head.length
        self._events: IncomingEvents | None = None
        """``None`` while the session is asked for them."""
        self.responded = False

    def start(self, events: IncomingEvents) -> None:
        self._events = events

    # --- from the client ------------------------------------------------------------------------------------------

    def on_data(self, data: Data) -> None:
        assert self._events is not None
        self._events.on_request_data(data)

    def on_end(self, trailers: Headers) -> None:
        assert self._events is not None
        self._events.on_request_end(trailers)

    def on_room(self) -> None:
        if self._events is not None:
            self._events.on_client_room()

    def on_lost(self, reason: CloseReason, detail: str) -> None:
        if self._events is not None:
            self._events.on_request_lost(reason, detail)

    # --- from the exchange ----------------------------------------------------------------------------------------

    def inform(self, head: ResponseHead) -> None:
        if not self.done and not self.responded:
            self._server.engine.headers(self.number, heads.fields_of_response(head), end=False)

    def respond(self, head: ResponseHead, *, end: bool) -> None:
        if self.done or self.responded:
            return
        self.responded = True
        self._server.engine.headers(self.number, heads.fields_of_response(head), end=end)
        if end:
            self._said_end()
        elif head.length > 0 and head.version is not Version.HTTP_2:
            # A body of known length has no trailers in HTTP/1: its last byte is the end, without a frame of its own.
            self.to_send = head.length

    def reset(self, reason: CloseReason, detail: str) -> None:
        self._server.reset(self, _CODES.get(reason, ErrorCodes.INTERNAL_ERROR))

    def on_said_end(self) -> None:
        """What may be left of the request is of no use to anybody (RFC 9113 section 8.1)."""
        if self.heard_end:
            self._server.ended(self)
        else:
            self._server.reset(self, ErrorCodes.NO_ERROR)


_CODES = {
    CloseReason.KILLED: ErrorCodes.CANCEL,
    CloseReason.REVOKED: ErrorCodes.CANCEL,
    CloseReason.TOKEN_EXPIRED: ErrorCodes.CANCEL,
    CloseReason.FLOOD: ErrorCodes.ENHANCE_YOUR_CALM,
    CloseReason.BAD_REQUEST: ErrorCodes.PROTOCOL_ERROR,
}


class H2Server(Multiplexer[H2Stream]):
    """A :class:`proxy.http.streams.ServerConnection`, and the owner of its wire."""

    def __init__(
        self,
        wire: Wire,
        events: ServerEvents,
        *,
        max_head_bytes: int = 60 * 1024,
        first_window: int = FIRST_WINDOW,
        window: int = STREAM_WINDOW,
        connection_window: int = CONNECTION_WINDOW,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        """
        :param max_head_bytes: of a request: names and values together.
        :param first_window: bytes of a request's body that may wait here when it begins; ``window``: what that may
            grow to.
        :param head_timeout_s: for the preface, and for each head from its first frame to its last, twice as much at
            most; and for the client to take notice of a drain.
        :param idle_timeout_s: without a request; 0 means never.
        """
        super().__init__(
            wire,
            client=False,
            longest_head=max_head_bytes,
            first_window=first_window,
            window=window,
            connection_window=connection_window,
            most_streams=MOST_STREAMS,
        )
        self._session = events
        self._draining = False
        self._last = LARGEST_WINDOW
        """Requests on later streams are refused."""
        self._reason: tuple[CloseReason, str] = (CloseReason.CLIENT_EOF, "")
        self._head_timeout_s = head_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._idle_since_s = self.now_s()
        self._begun = -1
        """How many heads were complete when one that is not was seen."""
        self._heads = 0
        self._timer: asyncio.TimerHandle | None = None
        self._drain_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self.open()
        self._look_later()

    def drain(self) -> None:
        """In two steps (RFC 9113 section 6.8): what the client sent before it knew is still answered."""
        if self._draining or self.closed:
            return
        self._draining = True
        self.emit(frames.goaway(LARGEST_WINDOW, ErrorCodes.NO_ERROR) + frames.ping(_DRAINING, ack=False))
        # A client that does not answer is not waited for.
        self._drain_timer = self.wire.after(self._head_timeout_s, self._refuse_more)

    def close(self, reason: CloseReason, detail: str) -> None:
        if self.closed:
            self.close_wire(reset=True)  # its last word was said
            return
        self._reason = (reason, detail)
        self.emit(frames.goaway(self.engine.highest_inbound_stream_id, ErrorCodes.NO_ERROR, str(reason)))
        self.closed = True
        self._lose_all(reason, detail)
        self.close_wire(reset=False)

    # --- requests -------------------------------------------------------------------------------------------------

    def on_block(self, number: int, block: bytes, *, end: bool) -> None:
        self._heads += 1
        stream = self.streams.get(number)
        if stream is not None:
            self._take_trailers(stream, block, end=end)
        elif number <= self.engine.highest_inbound_stream_id:
            self.budgets.spend(Flood.IDLE, self.now_s())
            self.engine.take_late_headers(number, block)
        else:
            self._take_request(number, block, end=end)

    def _take_request(self, number: int, block: bytes, *, end: bool) -> None:
        if self.congested:
            self.budgets.spend(Flood.UNREAD, self.now_s())
        _, fields = self.engine.take_headers(number, block, end=end)
        if self.open_requests >= MOST_STREAMS or number > self._last:
            self.budgets.spend(Flood.RESETS, self.now_s())
            self._refuse(number, ErrorCodes.REFUSED_STREAM, end=end)
            return
        try:
            head = heads.request_head(fields, end=end, longest=self.longest_head)
        except Malformed as malformed:
            self.budgets.spend(Flood.PROVOKED, self.now_s())
            self._refuse(number, ErrorCodes.PROTOCOL_ERROR, end=end)
            self._session.on_bad_request(400, str(malformed))
            return
        except BadRequest as error:
            self.budgets.spend(Flood.PROVOKED, self.now_s())
            self.engine.headers(number, [(b":status", b"%d" % error.status)], end=True)
            self._refuse(number, ErrorCodes.NO_ERROR, end=end)
            self._session.on_bad_request(error.status, str(error))
            return
        stream = H2Stream(self, number, head)
        stream.heard_end = end
        self.add(stream)
        stream.start(self._session.on_request(stream))
        if end and not stream.done:
            stream.on_end([])

    def _refuse(self, number: int, code: ErrorCodes, *, end: bool) -> None:
        """A stream that nobody was told of."""
        if not end:
            self._late += max(self.engine.unsent(number), 0)
        if code is not ErrorCodes.NO_ERROR or not end:
            self.engine.reset_stream(number, code)
        self.engine.forget(number)

    def _take_trailers(self, stream: H2Stream, block: bytes, *, end: bool) -> None:
        if stream.heard_end:
            self.take_headers_after_end(stream, block)
            return
        _, fields = self.engine.take_headers(stream.number, block, end=end)
        try:
            stream.take_trailers(heads.trailers(fields, self.longest_head))
        except Malformed as error:
            self.reset_malformed(stream, str(error))

    def on_stream_ended(self, stream: H2Stream) -> None:
        self._idle_since_s = self.now_s()
        self.budgets.earn(Flood.RESETS, 1)
        self._end_if_drained()

    def on_reset(self, stream: H2Stream, code: int) -> None:
        stream.on_lost(CloseReason.CLIENT_RESET, f"the client reset the stream ({name_of(code)})")
        self.budgets.spend(Flood.RESETS, self.now_s())
        self._end_if_drained()

    def on_malformed(self, stream: H2Stream, what: str) -> None:
        stream.on_lost(CloseReason.BAD_REQUEST, what)

    # --- time ------------------------------------------------------------------------------------------------------

    def _look_later(self) -> None:
        self._timer = self.wire.after(self._head_timeout_s, self._look)

    def _look(self) -> None:
        """Regularly: a deadline for each head would cost every request."""
        self._timer = None
        if self.closed:
            return
        if self.head_begun:
            if self._begun == self._heads:
                self._end(CloseReason.IDLE, f"no complete request head within {self._head_timeout_s:g} s")
                return
            self._begun = self._heads
        else:
            self._begun = -1
            idle_s = self.now_s() - self._idle_since_s
            if self._idle_timeout_s and not self.open_requests and idle_s >= self._idle_timeout_s:
                self._end(CloseReason.IDLE, f"no request for {self._idle_timeout_s:g} s")
                return
        self._look_later()

    def _end(self, reason: CloseReason, detail: str) -> None:
        self._reason = (reason, detail)
        self.say_last_word(ErrorCodes.NO_ERROR, detail)
        self._lose_all(reason, detail)

    # --- the end --------------------------------------------------------------------------------------------------

    def on_pong(self, payload: bytes) -> None:
        if self._draining and payload == _DRAINING:
            self._refuse_more()

    def _refuse_more(self) -> None:
        if self._last == LARGEST_WINDOW and not self.closed:
            self._last = self.engine.highest_inbound_stream_id
            self.emit(frames.goaway(self._last, ErrorCodes.NO_ERROR))
            self._end_if_drained()

    def on_goaway(self, last: int, code: int) -> None:
        """The client opens no more streams; those that are open end well."""
        self._last = self.engine.highest_inbound_stream_id
        self._draining = True
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._draining and not self.open_requests and self._last != LARGEST_WINDOW and not self.closed:
            self._reason = (CloseReason.DRAIN, "")
            self.say_last_word(ErrorCodes.NO_ERROR, "")

    def on_fault(self, error: Exception, what: str) -> None:
        reason = CloseReason.FLOOD if isinstance(error, FloodError) else CloseReason.BAD_REQUEST
        self._reason = (reason, what)
        self._lose_all(reason, what)

    def on_end(self, *, cut: bool) -> None:
        if self.streams:
            detail = "the client closed the connection before its requests were answered"
            self._over(CloseReason.CLIENT_RESET, detail, reset=True)
        else:
            self._over(CloseReason.CLIENT_EOF, "", reset=False)

    def on_lost(self, error: Exception) -> None:
        self._over(*loss_of_client(error), reset=True)

    def _over(self, reason: CloseReason, detail: str, *, reset: bool) -> None:
        self.closed = True
        self._reason = (reason, detail)
        self._lose_all(reason, detail)
        self.close_wire(reset=reset)

    def _lose_all(self, reason: CloseReason, detail: str) -> None:
        for stream in self.take_streams():
            stream.on_lost(reason, detail)

    def on_closed(self) -> None:
        for timer in (self._timer, self._drain_timer):
            if timer is not None:
                timer.cancel()
        self._session.on_closed(*self._reason)


def name_of(code: int) -> str:
    """``CANCEL``, ``REFUSED_STREAM`` ... (RFC 9113 section 7)."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
