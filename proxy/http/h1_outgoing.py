"""One request to an external service over HTTP/1.1, and the response to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.http.h1_body import BodyReader
from proxy.http.h1_text import last_chunk
from proxy.http.message import UNKNOWN_LENGTH, Data, Headers
from proxy.http.streams import OutgoingEvents

if TYPE_CHECKING:
    from proxy.http.h1_client import H1Client

_CHUNKED = -1
_RAW = -2
_DONE = -3


class H1Outgoing:
    """Made by :class:`proxy.http.h1_client.H1Client`."""

    __slots__ = ("_client", "_left", "answered", "events", "method", "open", "reader", "sent", "tunnel", "upgrade")

    def __init__(
        self, client: H1Client, events: OutgoingEvents, method: bytes, length: int, upgrade: bytes, *, end: bool
    ) -> None:
        self._client = client
        self._left = _DONE if end else (_CHUNKED if length == UNKNOWN_LENGTH else length)
        """Bytes of the request's body that are to come, or how its end is told."""
        self.events = events
        self.method = method
        self.upgrade = upgrade
        self.sent = end
        """The request is complete; in a tunnel: our direction was ended."""
        self.answered = False
        """The head of the final response has come."""
        self.reader: BodyReader | None = None
        self.tunnel = False
        self.open = True
        """Until the response is complete, or it is told that it never will be; in a tunnel, until both have ended."""

    def send(self, data: Data) -> bool:
        if not self.open:
            return True
        left, length = self._left, len(data)
        wire = self._client.wire
        if left >= 0:
            if length > left:
                self._client.break_off(self, "the request goes on after its announced length")
                return True
            self._left = left - length
            return wire.write(data)
        if left == _CHUNKED and length:
            wire.write(b"%x\r\n" % length)
            wire.write(data)
            return wire.write(b"\r\n")
        if left == _RAW:
            return wire.write(data)
        return True

    def finish(self, trailers: Headers) -> None:
        if not self.open or self.sent:
            return
        if self._left > 0:
            self._client.break_off(self, "the request ends before its announced length")
            return
        if self._left == _CHUNKED:
            self._client.wire.write(last_chunk(trailers))
        self._left = _DONE
        self.sent = True
        if self.tunnel:
            self._client.tunnel_finished(self)

    def switch(self, reader: BodyReader) -> None:
        """Both directions are another protocol's from here on."""
        self.tunnel = True
        self.reader = reader
        self.sent = False
        self._left = _RAW

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
