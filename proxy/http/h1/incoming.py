"""One request of a client over HTTP/1.1, and the response to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.h1.body import BodyReader, BodyUntilEnd
from proxy.http.h1.sender import CHUNKED, NO_BODY, RAW, H1Sender
from proxy.http.h1.text import last_chunk, response_text
from proxy.http.message import UNKNOWN_LENGTH, Data, Headers, RequestHead, ResponseHead
from proxy.http.streams import IncomingEvents
from proxy.model import CloseReason

if TYPE_CHECKING:
    from proxy.http.h1.server import H1Server

_SWITCHING = 101
_NO_CONTENT = (204, 304)


class H1Incoming(H1Sender):
    """Made by :class:`proxy.http.h1.server.H1Server`."""

    __slots__ = ("_finished", "_server", "events", "head", "reader", "started", "tunnel")

    def __init__(self, server: H1Server, head: RequestHead, reader: BodyReader | None) -> None:
        super().__init__(server.wire, NO_BODY)
        self.head = head
        self.events: IncomingEvents | None = None
        self.reader = reader
        """Of the body, or of what comes through a tunnel; ``None`` once it is complete."""
        self.started = False
        """The head of the final response was sent."""
        self.tunnel = False
        self._finished = False
        """In a tunnel: our direction was ended."""
        self._server = server

    # --- the exchange answers --------------------------------------------------------------------------------

    def inform(self, head: ResponseHead) -> None:
        if self.open and not self.started and head.status != _SWITCHING:
            self._wire.write(response_text(head, b"", close=False))

    def respond(self, head: ResponseHead, *, end: bool) -> None:
        if not self.open:
            return
        assert not self.started, "a second final response"
        framing = self._frame(head, end=end)
        if framing is None:
            self._server.break_off(self, "the response ends before its announced length")
            return
        server = self._server
        if self.reader is not None and not self.tunnel:
            # The rest of the request may never come, or for long; nobody can wait behind it.
            server.closing = True
        text = response_text(head, framing, close=server.closing)
        self.started = True
        self._wire.write(text)
        if self.tunnel:
            server.tunnelled()
        elif end:
            self._done()

    def _frame(self, head: ResponseHead, *, end: bool) -> bytes | None:
        """The line that frames the body (RFC 9112 section 6); ``None`` when it cannot be right."""
        status, length = head.status, head.length
        if status == _SWITCHING:
            assert self.reader is None, "a protocol is switched in the middle of a request"
            assert not end, "a tunnel that ends before it begins"
            self.tunnel = True
            self.reader = BodyUntilEnd()
            self._left = RAW
            return b""
        if status in _NO_CONTENT or self.head.method == b"HEAD":
            announced = head.announced_length
            return b"" if announced is None or status == 204 else b"content-length: %d\r\n" % announced
        if length == UNKNOWN_LENGTH and not end:
            self._left = CHUNKED
            return b"transfer-encoding: chunked\r\n"
        if end and length > 0:
            return None
        self._left = max(length, 0)
        return b"content-length: %d\r\n" % self._left

    def _surplus(self) -> None:
        self._server.break_off(self, "the response goes on after its announced length")

    def finish(self, trailers: Headers) -> None:
        if not self.open:
            return
        assert self.started, "a response without a head"
        left = self._left
        if left > 0:
            self._server.break_off(self, "the response ends before its announced length")
            return
        if left == CHUNKED:
            self._wire.write(last_chunk(trailers))
        if self.tunnel and self.reader is not None:
            self._finished = True
            self._left = NO_BODY
            self._wire.finish()
        else:
            self._done()

    def _done(self) -> None:
        self.open = False
        self._server.answered(self)

    def reset(self, reason: CloseReason, detail: str) -> None:
        if self.open:
            self.open = False
            self._server.abort(reason, detail)

    def pause(self) -> None:
        if self.reader is not None and self.open:
            self._server.pause(self)

    def resume(self) -> None:
        self._server.resume(self)

    # --- the connection tells --------------------------------------------------------------------------------

    def deliver(self, data: Data) -> None:
        if self.open:
            assert self.events is not None
            self.events.on_request_data(data)

    def ended(self, trailers: Headers) -> None:
        """The client has sent everything."""
        self.reader = None
        if self.open:
            assert self.events is not None
            self.events.on_request_end(trailers)
            if self._finished and self.open:
                self._done()

    def lost(self, reason: CloseReason, detail: str) -> None:
        if self.open:
            self.open = False
            if self.events is not None:
                self.events.on_request_lost(reason, detail)
