"""One request to an external service over HTTP/1.1, and the response to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.h1.body import BodyReader
from proxy.http.h1.sender import CHUNKED, NO_BODY, RAW, H1Sender
from proxy.http.h1.text import LAST_CHUNK
from proxy.http.message import UNKNOWN_LENGTH, Data, Headers
from proxy.http.streams import OutgoingEvents

if TYPE_CHECKING:
    from proxy.http.h1.client import H1Client


class H1Outgoing(H1Sender):
    """Made by :class:`proxy.http.h1.client.H1Client`."""

    __slots__ = ("_client", "answered", "events", "method", "reader", "sent", "tunnel", "upgrade")

    def __init__(
        self, client: H1Client, events: OutgoingEvents, method: bytes, length: int, upgrade: bytes, *, end: bool
    ) -> None:
        super().__init__(client.wire, NO_BODY if end else (CHUNKED if length == UNKNOWN_LENGTH else length))
        self._client = client
        self.events = events
        self.method = method
        self.upgrade = upgrade
        self.sent = end
        """The request is complete; in a tunnel: our direction was ended."""
        self.answered = False
        """The head of the final response has come."""
        self.reader: BodyReader | None = None
        self.tunnel = False

    def _surplus(self) -> None:
        self._client.break_off(self, "the request goes on after its announced length")

    def finish(self, trailers: Headers) -> None:
        """``trailers`` are dropped: servers of HTTP/1.1 have put them among the headers, which were decided about.
        See docs/decisions/061-trailers-of-requests.md."""
        if not self.open or self.sent:
            return
        if self._left > 0:
            self._client.break_off(self, "the request ends before its announced length")
            return
        if self._left == CHUNKED:
            self._wire.write(LAST_CHUNK)
        self._left = NO_BODY
        self.sent = True
        if self.tunnel:
            self._client.tunnel_finished(self)

    def switch(self, reader: BodyReader) -> None:
        """Both directions are another protocol's from here on."""
        self.tunnel = True
        self.reader = reader
        self.sent = False
        self._left = RAW

    def reset(self) -> None:
        if self.open:
            self.open = False
            self._client.abort()

    def pause(self) -> None:
        self._client.pause(self)

    def resume(self) -> None:
        self._client.resume(self)

    def deliver(self, data: Data) -> None:
        if self.open:
            self.events.on_response_data(data)
