"""The seam between the versions of HTTP and the exchange of one request for one response.

::

    client  <- ServerConnection -  Incoming <-> Exchange <-> Outgoing  - ClientConnection -> external service

A connection parses and writes one version of HTTP. For each request the server's side makes an :class:`Incoming` and
asks its session for the :class:`IncomingEvents` that will hear of it; an exchange opens an :class:`Outgoing` and hears
of it through :class:`OutgoingEvents`.

Rules for both sides:

1. Nothing waits. A ``send`` that returns false has taken the data and asks for a pause: no more until ``on_..._room``.
2. ``pause`` stops deliveries soon (what was read already may still come); ``resume`` never delivers before it returns.
3. After its end, its reset or its loss was told, a stream calls nobody and may be called without effect.
4. Events come one at a time: a stream never calls back from within a call to itself.
5. Bytes are valid until the callee returns; whoever needs them longer copies them.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from proxy.errors import UpstreamError
from proxy.http.message import Data, Headers, RequestHead, ResponseHead
from proxy.model import CloseReason


class Incoming(Protocol):
    """One request of a client, for whoever answers it."""

    head: RequestHead

    def inform(self, head: ResponseHead) -> None:
        """An interim response (1xx) before the final one; not 101. HTTP/1.0 clients are not sent it."""

    def respond(self, head: ResponseHead, *, end: bool) -> None:
        """The final response, or 101, after which ``send`` and the events carry the other protocol's bytes.

        A tunnel begins when the request is complete (``on_request_end`` was told): its data and its end are told anew,
        and it is over when ``on_request_end`` was told and ``finish`` was called, in either order.

        :param end: nothing follows.
        """

    def send(self, data: Data) -> bool:
        """Part of the body; false asks for a pause."""

    def finish(self, trailers: Headers) -> None:
        """The body is complete. Trailers are dropped where the version or the framing has no place for them."""

    def reset(self, reason: CloseReason, detail: str) -> None:
        """End it unfinished, so that nobody takes it for complete: RST_STREAM, or a reset of the connection."""

    def pause(self) -> None:
        """Deliver no more of the body for now."""

    def resume(self) -> None: ...


class IncomingEvents(Protocol):
    """What the exchange hears of its client."""

    def on_request_data(self, data: Data) -> None: ...

    def on_request_end(self, trailers: Headers) -> None: ...

    def on_request_lost(self, reason: CloseReason, detail: str) -> None:
        """The client took the request back (RST_STREAM) or is gone, or broke the protocol. Nothing can be answered."""

    def on_client_room(self) -> None:
        """The pause that ``send`` asked for is over."""


class ServerConnection(Protocol):
    """A client's connection."""

    open_requests: int

    def start(self) -> None:
        """Take what the handshake left behind, then what comes."""

    def drain(self) -> None:
        """Take no new request: GOAWAY, or ``Connection: close`` on the next response; end after the last one.

        Idempotent. A connection of HTTP/1 without an open request ends now.
        """

    def close(self, reason: CloseReason, detail: str) -> None:
        """End it now, with all its requests; each is told by ``on_request_lost``."""


class ServerEvents(Protocol):
    """What the session hears of its connection."""

    def on_request(self, incoming: Incoming) -> IncomingEvents:
        """A head is complete. The answer may begin at once."""

    def on_bad_request(self, status: int, what: str) -> None:
        """A request that was never delivered was refused with ``status``; for the log."""

    def on_closed(self, reason: CloseReason, detail: str) -> None:
        """Once, when the connection has ended; its socket is closed."""


class Outgoing(Protocol):
    """One request to an external service."""

    def send(self, data: Data) -> bool:
        """Part of the body; false asks for a pause."""

    def finish(self, trailers: Headers) -> None: ...

    def reset(self) -> None:
        """Nobody waits for the response any more: RST_STREAM, or the end of the connection."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class OutgoingEvents(Protocol):
    """What the exchange hears of the external service."""

    def on_informed(self, head: ResponseHead) -> None:
        """An interim response, not 101."""

    def on_response(self, head: ResponseHead, *, end: bool) -> None:
        """The final response, or 101 to a request that is complete: ``send`` and ``finish`` are then the tunnel's.

        It is over when ``finish`` was called and ``on_response_end`` was told, in either order.
        """

    def on_response_data(self, data: Data) -> None: ...

    def on_response_end(self, trailers: Headers) -> None: ...

    def on_response_lost(self, error: UpstreamError, *, unprocessed: bool) -> None:
        """It will not be completed.

        :param unprocessed: the external service says, or it is certain, that it has not acted on the request: it may be
            sent again (RFC 9113 section 8.7, RFC 9110 section 9.2.2).
        """

    def on_upstream_room(self) -> None: ...


class ClientConnection(Protocol):
    """A connection to an external service, which carries one request after another, or several at a time."""

    open_requests: int
    announces_end: ClassVar[bool]
    """The version has a way to say which requests were not looked at when a connection ends (GOAWAY)."""

    @property
    def available(self) -> bool:
        """Whether :meth:`request` may be called now."""

    def request(self, head: RequestHead, events: OutgoingEvents, *, end: bool) -> Outgoing:
        """Send a request; its body follows unless ``end``."""

    def close(self) -> None:
        """End it now; requests that are open are lost, and told so."""


class ClientEvents(Protocol):
    """What the pool hears of a connection."""

    def on_available(self, connection: ClientConnection) -> None:
        """A request has ended, or the external service allows more at a time."""

    def on_gone(self, connection: ClientConnection) -> None:
        """It takes no more requests (closed, GOAWAY, broken); those that are open may still end well."""
