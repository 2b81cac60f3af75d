"""A client's connection that speaks HTTP/1.1: one request after the other.

What comes behind a request waits until that one is answered, unread but for what came with it. A connection goes on
only while it is certain where the next request begins: after a response that was given before its request was complete
it does not, nor after anything malformed. A client that ends its direction has gone, as for Envoy and nginx; only in a
tunnel (after 101) is one direction ended alone.
"""

from __future__ import annotations

import re

from proxy.http.ending import Ending
from proxy.http.errors import BadRequest, loss_of_client
from proxy.http.h1.body import BadBody, BodyReader, ChunkedBody, CountedBody
from proxy.http.h1.deadline import Deadline
from proxy.http.h1.fields import out_of_place
from proxy.http.h1.head import NOTHING, HeadBuffer, HeadTooLong
from proxy.http.h1.incoming import H1Incoming
from proxy.http.h1.request import read_request
from proxy.http.h1.text import refusal_text
from proxy.http.streams import ServerEvents
from proxy.http.wire import Wire
from proxy.model import CloseReason

HEAD_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 3600.0
_REQUESTS_PER_TURN = 16
"""Of those that came at once and are answered at once; then other connections get their turn."""
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")


class H1Server:
    """See :class:`proxy.http.streams.ServerConnection`. It is its wire's owner from the beginning."""

    __slots__ = (
        "_client_ended",
        "_current",
        "_deadline",
        "_ending",
        "_events",
        "_head",
        "_head_late",
        "_head_timeout_s",
        "_held",
        "_idle_timeout_s",
        "_paused",
        "_reason",
        "_taking",
        "_told",
        "closing",
        "open_requests",
        "wire",
    )

    def __init__(
        self,
        wire: Wire,
        events: ServerEvents,
        *,
        max_head_bytes: int = 60 * 1024,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        """:param head_timeout_s: from a head's first byte to its last.
        :param idle_timeout_s: without a request; 0 means never.
        """
        wire.owner = self
        self.wire = wire
        self.open_requests = 0
        self.closing = False
        """The next response is the last one."""
        self._events = events
        self._head_timeout_s = head_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._current: H1Incoming | None = None
        self._head = HeadBuffer(max_head_bytes)
        """Of the next request."""
        self._head_late = False
        """It has begun, and its deadline is set."""
        self._held: memoryview | None = None
        """What came behind the current request: bytes of our own."""
        self._taking = False
        self._paused = False
        """By the exchange; only while the current request is not complete."""
        self._client_ended = False
        self._reason = CloseReason.CLIENT_EOF, ""
        self._ending: Ending | None = None
        self._told = False
        self._deadline = Deadline(wire, self._too_late)
        """Lifted while a request is open."""

    # --- for the session -------------------------------------------------------------------------------------

    def start(self) -> None:
        self._wait()
        self.wire.listen()

    def drain(self) -> None:
        if self._told or self._ending is not None:
            return
        self._reason = CloseReason.DRAIN, ""
        if self._current is None:
            self._end()
        else:
            self.closing = True

    def close(self, reason: CloseReason, detail: str) -> None:
        if self._told:
            return
        if self._current is not None:
            self._current.lost(reason, detail)
        self.wire.close(reset=True)
        self._tell(reason, detail)

    # --- for the request ---------------------------------------------------------------------------------------

    def pause(self, incoming: H1Incoming) -> None:
        if incoming is self._current:
            self._paused = True
            self.wire.pause()

    def resume(self, incoming: H1Incoming) -> None:
        if incoming is self._current:
            self._unpause()

    def answered(self, incoming: H1Incoming) -> None:
        """The response is complete."""
        assert incoming is self._current
        if self.closing or incoming.tunnel or incoming.reader is not None:
            self._end()
            return
        self._current = None
        self.open_requests = 0
        if self._taking:
            return
        if self._held is None:
            self._wait()
        else:
            self.wire.soon(self._go_on)

    def tunnelled(self) -> None:
        """The current request has opened a tunnel."""
        if self._held is not None:
            self.wire.soon(self._go_on)

    def abort(self, reason: CloseReason, detail: str) -> None:
        """The response is given up. Nobody is called before this returns."""
        self.wire.close(reset=True)
        self.wire.loop.call_soon(self._tell, reason, detail)

    def break_off(self, incoming: H1Incoming, detail: str) -> None:
        """The response is not what it announced; what was sent of it must not look complete."""
        incoming.open = False
        self.wire.close(reset=True)
        self.wire.loop.call_soon(self._broken_off, incoming, detail)

    def _broken_off(self, incoming: H1Incoming, detail: str) -> None:
        assert incoming.events is not None
        incoming.events.on_request_lost(CloseReason.BAD_RESPONSE, detail)
        self._tell(CloseReason.BAD_RESPONSE, detail)

    # --- for the wire --------------------------------------------------------------------------------------------

    def on_bytes(self, data: memoryview) -> None:
        self._receive(data, own=False)

    def on_end(self, *, cut: bool) -> None:
        self._client_ended = True
        current = self._current
        if current is None:
            self._end()
        elif current.tunnel and not cut:
            current.ended([])
        else:
            self._lose(CloseReason.CLIENT_RESET, "the client closed the connection before its request was answered")

    def on_lost(self, error: Exception) -> None:
        self._lose(*loss_of_client(error))

    def on_room(self) -> None:
        current = self._current
        if current is not None and current.open and current.events is not None:
            current.events.on_client_room()

    # --- receiving ---------------------------------------------------------------------------------------------

    def _receive(self, data: memoryview, *, own: bool) -> None:
        """:param own: ``data`` stays valid."""
        if self._held is not None:
            self._held = memoryview(b"".join((self._held, data)))
            return
        self._taking = True
        try:
            rest = self._take(data)
        except BadRequest as error:
            self._refuse(error.status, str(error), CloseReason.BAD_REQUEST)
            return
        finally:
            self._taking = False
        if self.wire.closed or self._ending is not None:
            return
        if rest:
            self._held = rest if own else memoryview(bytes(rest))
            self.wire.pause()
            if self._current is None:
                self.wire.soon(self._go_on)
        elif self._current is None:
            self._wait()

    def _go_on(self) -> None:
        """With what came behind a request that is answered now, or behind one that has opened a tunnel."""
        held = self._held
        current = self._current
        if held is None or (current is not None and current.reader is None) or self._ending is not None:
            return
        self._held = None
        self._receive(held, own=True)
        self._listen_if_nothing_waits()

    def _listen_if_nothing_waits(self) -> None:
        if self._held is None and not self._paused and self._ending is None:
            self.wire.listen()

    def _take(self, data: memoryview) -> memoryview:
        """:returns: what has to wait."""
        heads = 0
        while data and self._ending is None and not self.wire.closed:
            current = self._current
            if current is None:
                if heads == _REQUESTS_PER_TURN:
                    return data
                heads += 1
                data = self._take_head(data)
            elif (reader := current.reader) is not None:
                data = self._take_body(current, reader, data)
            else:
                return data
        return NOTHING

    def _take_head(self, data: memoryview) -> memoryview:
        before = len(self._head.begun)
        try:
            raw, rest = self._head.take(data)
        except HeadTooLong:
            raise BadRequest(431, f"a request head of more than {self._head.limit} bytes") from None
        if raw:
            self._head_late = False
            self._begin(raw)
        else:
            self._check_begun(before)
        return rest

    def _check_begun(self, before: int) -> None:
        """Who does not speak HTTP/1 is told at once, not when the time for a head is over."""
        head = self._head.begun
        if not before and not 0x41 <= head[0] <= 0x5A:
            raise BadRequest(400, "the request line does not begin with a method")
        if _BARE_LINE_FEED.search(head, before):
            raise BadRequest(400, "a line that does not end with CR LF")

    def _begin(self, raw: bytes) -> None:
        head, close = read_request(raw)
        if close:
            self.closing = True
        reader: BodyReader | None = None
        if head.length > 0:
            reader = CountedBody(head.length)
        elif head.length:
            reader = ChunkedBody(extensions=False)
        incoming = self._current = H1Incoming(self, head, reader)
        self.open_requests = 1
        self._deadline.lift()
        incoming.events = self._events.on_request(incoming)
        if reader is None and not incoming.tunnel:
            incoming.ended([])

    def _take_body(self, current: H1Incoming, reader: BodyReader, data: memoryview) -> memoryview:
        try:
            taken = reader.read(data, current.deliver)
        except BadBody as error:
            self._bad_body(current, str(error))
            return NOTHING
        if reader.done and self._current is current and current.open:
            if any(out_of_place(name) for name, _ in reader.trailers):
                self._bad_body(current, "a trailer that is only a header")
                return NOTHING
            current.ended(reader.trailers)
            self._unpause()
        return data[taken:]

    def _unpause(self) -> None:
        if self._paused:
            self._paused = False
            if self._held is None:
                self.wire.listen()

    # --- ends ----------------------------------------------------------------------------------------------------

    def _bad_body(self, current: H1Incoming, what: str) -> None:
        if self._current is not current or not current.open:
            return
        if current.started:
            self._lose(CloseReason.BAD_REQUEST, what)
        else:
            current.lost(CloseReason.BAD_REQUEST, what)
            self.wire.write(refusal_text(400, what))
            self._reason = CloseReason.BAD_REQUEST, what
            self._end()

    def _refuse(self, status: int, what: str, reason: CloseReason) -> None:
        self.wire.write(refusal_text(status, what))
        self._reason = reason, what
        self._end()
        self._events.on_bad_request(status, what)

    def _lose(self, reason: CloseReason, detail: str) -> None:
        if self._current is not None:
            self._current.lost(reason, detail)
        self.wire.close(reset=True)
        self._tell(reason, detail)

    def _end(self) -> None:
        """After everything that was written; for ``_reason``."""
        self._current = None
        self.open_requests = 0
        self._held = None
        self._deadline.stop()
        self._ending = Ending(self.wire, self._ended, ended=self._client_ended)

    def _ended(self) -> None:
        self._tell(*self._reason)

    def _tell(self, reason: CloseReason, detail: str) -> None:
        if self._told:
            return
        self._told = True
        self._current = None
        self.open_requests = 0
        self._held = None
        self._deadline.stop()
        if self._ending is not None:
            self._ending.stop()
        self._events.on_closed(reason, detail)

    # --- time ----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """For a request, or for the rest of its head."""
        if not self._head.begun:
            if self._idle_timeout_s:
                self._deadline.set(self._idle_timeout_s)
        elif not self._head_late:
            self._head_late = True
            self._deadline.set(self._head_timeout_s)

    def _too_late(self) -> None:
        if self._head_late:
            what = f"no complete request head within {self._head_timeout_s:g} s"
            self._refuse(408, what, CloseReason.IDLE)
        else:
            self._reason = CloseReason.IDLE, f"no request for {self._idle_timeout_s:g} s"
            self._end()
