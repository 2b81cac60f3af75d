"""HTTP/2 towards the external service."""

from __future__ import annotations

from typing import ClassVar

from h2.errors import ErrorCodes

from proxy.errors import UpstreamError
from proxy.http.errors import BadResponse
from proxy.http.h2 import frames, heads
from proxy.http.h2.connection import CONNECTION_WINDOW, FIRST_WINDOW, STREAM_WINDOW, Multiplexer
from proxy.http.h2.engine import Meaning
from proxy.http.h2.frames import LARGEST_WINDOW, Fault
from proxy.http.h2.heads import Malformed
from proxy.http.h2.limits import Flood
from proxy.http.h2.server import name_of
from proxy.http.h2.stream import Stream
from proxy.http.message import Data, Headers, RequestHead, Version
from proxy.http.streams import ClientEvents, OutgoingEvents
from proxy.http.wire import Wire
from proxy.model import CloseReason

MOST_RESPONSE_HEAD = 64 * 1024
"""Bytes of names and values of a response's head."""
_OTHER_VERSION = (
    "the external service answers in HTTP/1, and the service's protocol says HTTP/2: set Protocol to http in its"
    " service-defaults, or let the external service speak HTTP/2 from the first byte"
)
_FIRST_STREAMS = 100
"""At a time, before the external service has said how many it wants."""
_MOST_INTERIM = 16
"""Interim responses to one request."""


class H2Request(Stream):
    """An :class:`proxy.http.streams.Outgoing`."""

    __slots__ = ("_client", "events", "interim", "method", "responded")

    def __init__(self, client: H2Client, number: int, head: RequestHead, events: OutgoingEvents) -> None:
        super().__init__(client, number)
        self._client = client
        self.events = events
        self.method = head.method
        self.interim = 0
        self.responded = False
        if head.length > 0 and head.version is not Version.HTTP_2:
            self.to_send = head.length  # as in a response: trailers cannot follow

    def on_data(self, data: Data) -> None:
        self.events.on_response_data(data)

    def on_end(self, trailers: Headers) -> None:
        """The exchange is over, whatever was left to be sent (RFC 9113 section 8.1)."""
        if self.said_end:
            self._client.ended(self)
        else:
            self._client.reset(self, ErrorCodes.CANCEL)
        self.events.on_response_end(trailers)

    def on_room(self) -> None:
        self.events.on_upstream_room()

    def on_lost(self, reason: CloseReason, detail: str, *, unprocessed: bool = False) -> None:
        self.events.on_response_lost(UpstreamError(reason, detail), unprocessed=unprocessed)

    def reset(self) -> None:
        self._client.reset(self, ErrorCodes.CANCEL)


class H2Client(Multiplexer[H2Request]):
    """A :class:`proxy.http.streams.ClientConnection`, and the owner of its wire."""

    announces_end: ClassVar[bool] = True

    def __init__(
        self,
        wire: Wire,
        events: ClientEvents,
        *,
        first_window: int = FIRST_WINDOW,
        window: int = STREAM_WINDOW,
        connection_window: int = CONNECTION_WINDOW,
    ) -> None:
        """
        :param first_window: bytes of a response's body that may wait here when it begins; ``window``: what that may
            grow to.
        """
        super().__init__(
            wire,
            client=True,
            longest_head=MOST_RESPONSE_HEAD,
            first_window=first_window,
            window=window,
            connection_window=connection_window,
            most_streams=_FIRST_STREAMS,
        )
        self._pool = events
        self._gone = False
        self._ended = False
        """A request has ended, and the pool is not told yet."""

    def start(self) -> None:
        self.open()

    @property
    def available(self) -> bool:
        return not self._gone and self.open_requests < self._most_streams

    def request(self, head: RequestHead, events: OutgoingEvents, *, end: bool) -> H2Request:
        assert self.available, "a request on a connection that takes none"
        if not self.open_requests:
            self.wire.mark()
        number = self.engine.get_next_available_stream_id()
        self.engine.headers(number, heads.fields_of_request(head), end=end)
        stream = H2Request(self, number, head, events)
        stream.said_end = end
        self.add(stream)
        if number + 2 > LARGEST_WINDOW:
            self.later(self._be_gone)  # numbers of streams are not used again (section 5.1.1)
        return stream

    def close(self) -> None:
        if self.closed:
            self.close_wire(reset=True)  # its last word was said
            return
        self.emit(frames.goaway(0, ErrorCodes.NO_ERROR))
        self.wire.finish()
        self._over(UpstreamError(CloseReason.UPSTREAM_RESET, "the gateway closed the connection"))

    # --- responses ------------------------------------------------------------------------------------------------

    def on_block(self, number: int, block: bytes, *, end: bool) -> None:
        stream = self.streams.get(number)
        if stream is None:
            self._check_known(number, "HEADERS")
            self.budgets.spend(Flood.IDLE, self.now_s())
            self.engine.take_late_headers(number, block)
            return
        if stream.heard_end:
            self.take_headers_after_end(stream, block)
            return
        meaning, fields = self.engine.take_headers(number, block, end=end)
        try:
            if meaning is Meaning.TRAILERS:
                stream.take_trailers(heads.trailers(fields, self.longest_head))
                return
            head = heads.response_head(fields, method=stream.method, end=end, longest=self.longest_head)
            if meaning is Meaning.INTERIM:
                stream.interim += 1
                if stream.interim > _MOST_INTERIM:
                    raise BadResponse(f"the external service sent more than {_MOST_INTERIM} interim responses")
                stream.events.on_informed(head)
                return
        except (Malformed, BadResponse) as error:
            self.reset_malformed(stream, str(error))
            return
        if end:
            stream.heard_end = True
            if stream.said_end:
                self.ended(stream)
            else:
                self.reset(stream, ErrorCodes.CANCEL)
        else:
            stream.expected = head.length
        stream.events.on_response(head, end=end)

    def on_reset(self, stream: H2Request, code: int) -> None:
        detail = f"the external service reset the stream ({name_of(code)})"
        stream.on_lost(CloseReason.UPSTREAM_RESET, detail, unprocessed=code == ErrorCodes.REFUSED_STREAM)
        self._tell_available()

    def on_malformed(self, stream: H2Request, what: str) -> None:
        stream.on_lost(CloseReason.BAD_RESPONSE, what)

    def on_bytes(self, data: memoryview) -> None:
        if not self._settled and bytes(data[:5]) == b"HTTP/":
            self.fail(Fault(ErrorCodes.PROTOCOL_ERROR, _OTHER_VERSION), ErrorCodes.PROTOCOL_ERROR)
            return
        super().on_bytes(data)
        self._tell_if_ended()

    def on_stream_ended(self, stream: H2Request) -> None:
        if not self._ended:
            self._ended = True
            if not self.receiving:
                self.later(self._tell_if_ended)

    def _tell_if_ended(self) -> None:
        if self._ended:
            self._tell_available()

    def _tell_available(self) -> None:
        self._ended = False
        if self._gone and not self.open_requests and not self.closed:
            self.say_last_word(ErrorCodes.NO_ERROR, "")
        elif self.available:
            self._pool.on_available(self)

    def on_settings(self) -> None:
        super().on_settings()
        allowed = self.engine.remote_settings.max_concurrent_streams
        before, self._most_streams = self._most_streams, min(allowed, LARGEST_WINDOW)
        if before <= self.open_requests < self._most_streams:
            self._tell_available()

    # --- the end --------------------------------------------------------------------------------------------------

    def on_goaway(self, last: int, code: int) -> None:
        """Streams after ``last`` were not looked at; the others go on (section 6.8)."""
        self._be_gone()
        unprocessed = [stream for number, stream in self.streams.items() if number > last]
        for stream in unprocessed:
            self._finish_off(stream)
        detail = f"the external service ends the connection ({name_of(code)})"
        for stream in unprocessed:
            stream.on_lost(CloseReason.UPSTREAM_RESET, detail, unprocessed=True)
        self._tell_available()

    def _be_gone(self) -> None:
        if not self._gone:
            self._gone = True
            self._pool.on_gone(self)

    def on_fault(self, error: Exception, what: str) -> None:
        self._lose_all(UpstreamError(CloseReason.BAD_RESPONSE, what))
        self._be_gone()

    def on_end(self, *, cut: bool) -> None:
        detail = "the external service closed the connection before its responses were complete"
        hint = "" if self.wire.bytes_received else self.wire.hint()
        self._over(UpstreamError(CloseReason.UPSTREAM_RESET, f"{detail}; {hint}" if hint else detail))

    def on_lost(self, error: Exception) -> None:
        if isinstance(error, UpstreamError):
            self._over(error)
        elif isinstance(error, OSError):
            self._over(UpstreamError(CloseReason.UPSTREAM_RESET, error.strerror or str(error)))
        else:
            self._over(UpstreamError(CloseReason.INTERNAL, f"{type(error).__name__}: {error}"))

    def _over(self, error: UpstreamError) -> None:
        unprocessed = self.wire.untouched
        self.closed = True
        self.close_wire(reset=bool(self.streams))
        self._lose_all(error, unprocessed=unprocessed)
        self._be_gone()

    def _lose_all(self, error: UpstreamError, *, unprocessed: bool = False) -> None:
        for stream in self.take_streams():
            stream.events.on_response_lost(error, unprocessed=unprocessed)
