"""A connection to an external service that speaks HTTP/1.1: one request at a time.

It is used again only while it is certain where the next response begins: not after a response whose end was that of the
connection, nor after one that came before its request was complete, nor once anything came that nobody asked for.
"""

from __future__ import annotations

from typing import ClassVar

from proxy.errors import PeerError, UpstreamError
from proxy.http.ending import Ending
from proxy.http.errors import BadResponse
from proxy.http.h1.body import BadBody, BodyUntilEnd, ChunkedBody, CountedBody
from proxy.http.h1.fields import members, out_of_place
from proxy.http.h1.head import NOTHING, HeadBuffer, HeadTooLong
from proxy.http.h1.mending import HEAD_END
from proxy.http.h1.outgoing import H1Outgoing
from proxy.http.h1.response import MAX_RESPONSE_HEAD_BYTES, ReceivedResponse, read_response
from proxy.http.h1.text import request_text
from proxy.http.message import RequestHead, ResponseHead
from proxy.http.streams import ClientEvents, OutgoingEvents
from proxy.http.wire import Wire
from proxy.model import CloseReason

_SWITCHING = 101
_FINAL = 200
_MOST_INTERIM = 32
"""Responses before the final one; each is parsed and passed on."""
_BEGINS = b"HTTP/1."


class H1Client:
    """See :class:`proxy.http.streams.ClientConnection`. It is its wire's owner from the beginning.

    ``events.on_gone`` is called once in the life of every connection, also from within :meth:`close`.
    """

    announces_end: ClassVar[bool] = False

    __slots__ = (
        "_closing",
        "_current",
        "_cut",
        "_ended",
        "_events",
        "_gone",
        "_head",
        "_interim",
        "_paused",
        "_silent",
        "open_requests",
        "wire",
    )

    def __init__(self, wire: Wire, events: ClientEvents) -> None:
        wire.owner = self
        self.wire = wire
        self.open_requests = 0
        self._events = events
        self._current: H1Outgoing | None = None
        self._head = HeadBuffer(MAX_RESPONSE_HEAD_BYTES, HEAD_END)
        self._interim = 0
        self._paused = False
        self._silent = True
        """Nothing has come since the request was sent."""
        self._closing = False
        """No request after this one."""
        self._cut = False
        """A request was left incomplete."""
        self._ended = False
        """The external service sends no more."""
        self._gone = False

    def start(self) -> None:
        """Listen, also to a connection that nobody uses yet: its end has to be seen."""
        self.wire.listen()

    @property
    def available(self) -> bool:
        return self._current is None and not (self._gone or self._closing)

    def request(self, head: RequestHead, events: OutgoingEvents, *, end: bool) -> H1Outgoing:
        assert self.available, "a request on a connection that takes none"
        text = request_text(head, end=end)
        outgoing = self._current = H1Outgoing(self, events, head.method, head.length, head.upgrade, end=end)
        self.open_requests = 1
        self._silent = True
        self._interim = 0
        self.wire.mark()
        self.wire.write(text)
        self.wire.listen()
        return outgoing

    def close(self) -> None:
        if self.wire.closed:
            return
        if self._current is None and not self._gone:
            self.wire.finish()
            self.wire.close(reset=False)
            self._leave()
        else:
            self._lose(UpstreamError(CloseReason.UPSTREAM_RESET, "the gateway closed the connection"))

    # --- for the request ---------------------------------------------------------------------------------------

    def pause(self, outgoing: H1Outgoing) -> None:
        if outgoing is self._current:
            self._paused = True
            self.wire.pause()

    def resume(self, outgoing: H1Outgoing) -> None:
        if outgoing is self._current and self._paused:
            self._paused = False
            self.wire.listen()

    def abort(self) -> None:
        """The request is given up. Nobody is called before this returns."""
        self._closing = True
        self._current = None
        self.open_requests = 0
        self.wire.close(reset=True)
        self.wire.loop.call_soon(self._leave)

    def break_off(self, outgoing: H1Outgoing, detail: str) -> None:
        """The request is not what it announced; what was sent of it must not look complete."""
        outgoing.open = False
        self.abort()
        error = UpstreamError(CloseReason.BAD_REQUEST, detail)
        self.wire.loop.call_soon(self._broken_off, outgoing, error)

    def _broken_off(self, outgoing: H1Outgoing, error: UpstreamError) -> None:
        outgoing.events.on_response_lost(error, unprocessed=False)

    def tunnel_finished(self, outgoing: H1Outgoing) -> None:
        """Our direction of it."""
        self.wire.finish()
        if outgoing.reader is None:
            self._end_tunnel(outgoing)

    def _end_tunnel(self, outgoing: H1Outgoing) -> None:
        outgoing.open = False
        self._current = None
        self.open_requests = 0
        Ending(self.wire, self._leave, ended=True)

    # --- for the wire --------------------------------------------------------------------------------------------

    def on_bytes(self, data: memoryview) -> None:
        try:
            self._take(data)
        except (BadResponse, BadBody) as error:
            self._lose(UpstreamError(CloseReason.BAD_RESPONSE, str(error)))

    def on_end(self, *, cut: bool) -> None:
        self._ended = True
        current = self._current
        if current is None:
            self.wire.close(reset=False)
            self._leave()
        elif current.tunnel and not cut:
            current.reader = None
            current.events.on_response_end([])
            if current.sent and current.open:
                self._end_tunnel(current)
        elif type(current.reader) is BodyUntilEnd and not current.tunnel and not cut:
            self._complete(current, NOTHING)
        elif self._silent:
            detail = "the external service closed the connection instead of a response"
            self._lose(UpstreamError(CloseReason.UPSTREAM_RESET, self._with_hint(detail)))
        else:
            detail = "the external service closed the connection before its response was complete"
            self._lose(UpstreamError(CloseReason.UPSTREAM_RESET, detail))

    def on_lost(self, error: Exception) -> None:
        if isinstance(error, UpstreamError):
            self._lose(error)
        elif isinstance(error, OSError | PeerError):
            detail = (error.strerror if isinstance(error, OSError) else "") or str(error)
            self._lose(UpstreamError(CloseReason.UPSTREAM_RESET, self._with_hint(detail)))
        else:
            self._lose(UpstreamError(CloseReason.INTERNAL, f"{type(error).__name__}: {error}"))

    def on_room(self) -> None:
        current = self._current
        if current is not None and current.open:
            current.events.on_upstream_room()

    def _with_hint(self, detail: str) -> str:
        hint = "" if self.wire.bytes_received else self.wire.hint()
        return f"{detail}; {hint}" if hint else detail

    # --- receiving ---------------------------------------------------------------------------------------------

    def _take(self, data: memoryview) -> None:
        self._silent = False
        if self.wire.untouched:
            raise BadResponse("a response to a request that was not sent yet")
        while data:
            current = self._current
            if current is None:
                if not self._gone:
                    self._lose(UpstreamError(CloseReason.BAD_RESPONSE, "bytes that nobody asked for"))
                return
            if current.reader is None:
                data = self._take_head(current, data)
            else:
                taken = current.reader.read(data, current.deliver)
                data = data[taken:]
                if current is self._current and current.reader.done:
                    self._complete(current, data)

    def _take_head(self, current: H1Outgoing, data: memoryview) -> memoryview:
        try:
            raw, rest = self._head.take(data)
        except HeadTooLong:
            raise BadResponse(f"a response head of more than {MAX_RESPONSE_HEAD_BYTES} bytes") from None
        if raw:
            self._begin(current, read_response(raw), rest)
        elif not self._head.begun.startswith(_BEGINS[: len(self._head.begun)]):
            raise BadResponse("the external service does not speak HTTP/1")
        return rest

    def _begin(self, current: H1Outgoing, received: ReceivedResponse, rest: memoryview) -> None:
        head = received.head
        if head.status == _SWITCHING:
            self._switch(current, head)
            return
        if head.status < _FINAL:
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise BadResponse(f"more than {_MOST_INTERIM} interim responses")
            current.events.on_informed(head)
            return
        if received.close:
            self._closing = True
        current.answered = True
        if current.method == b"HEAD":
            head.length = 0
        if head.length == 0:
            self._finish(current, rest)
            current.events.on_response(head, end=True)
            self._leave_or_stay()
        else:
            if received.chunked:
                current.reader = ChunkedBody(extensions=True)
            elif head.length > 0:
                current.reader = CountedBody(head.length)
            else:
                current.reader = BodyUntilEnd()
            current.events.on_response(head, end=False)

    def _switch(self, current: H1Outgoing, head: ResponseHead) -> None:
        """RFC 9110 section 15.2.2."""
        if not current.sent:
            raise BadResponse("101 before the request was complete")
        offered = members(current.upgrade)
        if not head.upgrade or not offered or any(chosen not in offered for chosen in members(head.upgrade)):
            raise BadResponse("101 to a protocol that was not asked for")
        self._closing = current.answered = True
        current.switch(BodyUntilEnd())
        current.events.on_response(head, end=False)

    # --- ends ----------------------------------------------------------------------------------------------------

    def _complete(self, current: H1Outgoing, rest: memoryview) -> None:
        reader = current.reader
        assert reader is not None
        trailers = reader.trailers
        if trailers:
            trailers = [trailer for trailer in trailers if not out_of_place(trailer[0])]
        self._finish(current, rest)
        current.events.on_response_end(trailers)
        self._leave_or_stay()

    def _finish(self, current: H1Outgoing, rest: memoryview) -> None:
        """The response is complete; the request calls nobody any more.

        :param rest: came with its end. It answers no request, above all not the next one.
        """
        self._cut = not current.sent
        if self._cut or rest:
            self._closing = True
        current.open = False
        self._current = None
        self.open_requests = 0

    def _leave_or_stay(self) -> None:
        if self._gone or self._current is not None:
            return
        if self._closing or self._ended:
            if not self._cut:
                self.wire.finish()
            self.wire.close(reset=self._cut)
            self._leave()
            return
        if self._paused:
            self._paused = False
            self.wire.listen()
        self._events.on_available(self)

    def _lose(self, error: UpstreamError) -> None:
        current, self._current = self._current, None
        unprocessed = self.wire.untouched
        self.open_requests = 0
        self.wire.close(reset=True)
        if current is not None and current.open:
            current.open = False
            current.events.on_response_lost(error, unprocessed=unprocessed)
        self._leave()

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._events.on_gone(self)
