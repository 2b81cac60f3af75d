"""A client's connection that speaks HTTP/1.1: one request after the other.

What comes behind a request waits until that one is answered, unread but for what came with it. A connection goes on
only while it is certain where the next request begins: after a response that was given before its request was complete
it does not, nor after anything malformed. A client that ends its direction has gone, as for Envoy and nginx; only in a
tunnel (after 101) is one direction ended alone.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from proxy.errors import PeerError
from proxy.http.errors import BadRequest
from proxy.http.h1_body import BadBody, BodyReader, ChunkedBody, CountedBody
from proxy.http.h1_ending import Ending
from proxy.http.h1_fields import HEAD_END, out_of_place
from proxy.http.h1_incoming import H1Incoming
from proxy.http.h1_request import read_request
from proxy.http.h1_text import refusal_text
from proxy.http.streams import ServerEvents
from proxy.http.wire import Wire
from proxy.model import CloseReason

HEAD_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 3600.0
_REQUESTS_PER_TURN = 16
"""Of those that came at once and are answered at once; then other connections get their turn."""
_NOTHING: Final = memoryview(b"")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")


class H1Server:
    """See :class:`proxy.http.streams.ServerConnection`. It is its wire's owner from the beginning."""

    __slots__ = (
        "_client_ended",
        "_current",
        "_deadline_s",
        "_ending",
        "_events",
        "_head",
        "_head_begun",
        "_head_timeout_s",
        "_held",
        "_idle_timeout_s",
        "_paused",
        "_reason",
        "_taking",
        "_timer",
        "_timer_at_s",
        "_told",
        "closing",
        "max_head_bytes",
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
        self.max_head_bytes = max_head_bytes
        self.closing = False
        """The next response is the last one."""
        self._events = events
        self._head_timeout_s = head_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._current: H1Incoming | None = None
        self._head = bytearray()
        """Of the next request, while it is not complete."""
        self._head_begun = False
        self._held: memoryview | None = None
        """What came behind the current request: bytes of our own."""
        self._taking = False
        self._paused = False
        """By the exchange."""
        self._client_ended = False
        self._reason = CloseReason.CLIENT_EOF, ""
        self._ending: Ending | None = None
        self._told = False
        # A timer is not set anew for each request: it looks at the deadline when it is due.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._deadline_s = 0.0
        """0 while a request is open."""

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
        if self.closing or incoming.tunnel:
            self._end()
            return
        self._current = None
        self.open_requests = 0
        if self._taking:
            return
        if self._held is None:
            self._wait()
            self._unpause()
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
        if isinstance(error, PeerError):
            self._lose(error.reason, str(error))
        elif isinstance(error, OSError):
            self._lose(CloseReason.CLIENT_RESET, error.strerror or str(error))
        else:
            self._lose(CloseReason.INTERNAL, f"{type(error).__name__}: {error}")

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
            self._unpause()

    def _go_on(self) -> None:
        """With what came behind a request that is answered now, or behind one that has opened a tunnel."""
        held = self._held
        current = self._current
        if held is None or (current is not None and current.reader is None) or self._ending is not None:
            return
        self._held = None
        self._receive(held, own=True)
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
        return _NOTHING

    def _take_head(self, data: memoryview) -> memoryview:
        kept, limit = self._head, self.max_head_bytes
        before = len(kept)
        if before:
            kept += data[: max(0, limit - before)]
            found = HEAD_END.search(kept, max(0, before - 3))
        else:
            found = HEAD_END.search(data, 0, limit)
        if found is None:
            if before + len(data) >= limit:
                raise BadRequest(431, f"a request head of more than {limit} bytes")
            if not before:
                kept += data
            self._check_begun(before)
            return _NOTHING
        end = found.end()
        if before:
            raw = bytes(kept[:end])
            self._head = bytearray()
        else:
            raw = bytes(data[:end])
        self._head_begun = False
        self._begin(raw)
        return data[end - before :]

    def _check_begun(self, before: int) -> None:
        """Who does not speak HTTP/1 is told at once, not when the time for a head is over."""
        head = self._head
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
        self._deadline_s = 0.0
        incoming.events = self._events.on_request(incoming)
        if reader is None and not incoming.tunnel:
            incoming.ended([])

    def _take_body(self, current: H1Incoming, reader: BodyReader, data: memoryview) -> memoryview:
        try:
            taken = reader.read(data, current.deliver)
        except BadBody as error:
            self._bad_body(current, str(error))
            return _NOTHING
        if reader.done and self._current is current and current.open:
            if any(out_of_place(name) for name, _ in reader.trailers):
                self._bad_body(current, "a trailer that is only a header")
                return _NOTHING
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
        self._stop_timer()
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
        self._stop_timer()
        if self._ending is not None:
            self._ending.stop()
        self._events.on_closed(reason, detail)

    # --- time ----------------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """For a request, or for the rest of its head."""
        if not self._head:
            self._deadline_s = self.wire.loop.time() + self._idle_timeout_s if self._idle_timeout_s else 0.0
        elif not self._head_begun:
            self._head_begun = True
            self._deadline_s = self.wire.loop.time() + self._head_timeout_s
        if self._deadline_s and (self._timer is None or self._deadline_s < self._timer_at_s):
            self._set_timer()

    def _set_timer(self) -> None:
        self._stop_timer()
        self._timer_at_s = self._deadline_s
        self._timer = self.wire.after(self._deadline_s - self.wire.loop.time(), self._on_time)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_time(self) -> None:
        self._timer = None
        if not self._deadline_s or self._ending is not None:
            return  # the end of the request that is open sets it
        if self._deadline_s > self.wire.loop.time():
            self._set_timer()
        elif self._head_begun:
            what = f"no complete request head within {self._head_timeout_s:g} s"
            self._refuse(408, what, CloseReason.IDLE)
        else:
            self._reason = CloseReason.IDLE, f"no request for {self._idle_timeout_s:g} s"
            self._end()
