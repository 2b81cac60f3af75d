"""Which version of HTTP is spoken on a connection, on either side.

ALPN decides where it was negotiated (RFC 7301). Without it a client's first bytes do: those of HTTP/2 begin with a
preface that no request of HTTP/1 is (RFC 9113 section 3.3, "prior knowledge"). External services are spoken to as the
service's protocol says: ``http2`` and ``grpc`` are HTTP/2 from the first byte, as for Envoy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.http.ending import Ending
from proxy.http.errors import loss_of_client
from proxy.http.h1.client import H1Client
from proxy.http.h1.server import HEAD_TIMEOUT_S, IDLE_TIMEOUT_S, H1Server
from proxy.http.h2.client import H2Client
from proxy.http.h2.frames import PREFACE
from proxy.http.h2.server import H2Server
from proxy.http.streams import ClientConnection, ClientEvents, ServerConnection, ServerEvents
from proxy.http.wire import Wire
from proxy.model import CloseReason, HTTPSettings, Service
from proxy.tls.alpn import HTTP1, HTTP2, OVER_HTTP2


def open_server(wire: Wire, events: ServerEvents, service: Service) -> ServerConnection:
    """Towards a client whose handshake is done; it is started by the caller."""
    most = (service.http or HTTPSettings()).max_request_head_bytes

    def over_http1() -> H1Server:
        return H1Server(wire, events, max_head_bytes=most)

    def over_http2() -> H2Server:
        return H2Server(wire, events, max_head_bytes=most)

    negotiated = wire.alpn
    if negotiated == HTTP2:
        return over_http2()
    if negotiated == HTTP1:
        return over_http1()
    return Undecided(wire, events, over_http1, over_http2)


def open_client(wire: Wire, events: ClientEvents, service: Service) -> ClientConnection:
    """Towards an external service that was just connected."""
    negotiated = wire.alpn
    http2 = negotiated == HTTP2 if negotiated else service.protocol in OVER_HTTP2
    client = H2Client(wire, events) if http2 else H1Client(wire, events)
    client.start()
    return client


class Undecided:
    """A client's connection until its first bytes are there; then the one that they belong to."""

    def __init__(
        self,
        wire: Wire,
        events: ServerEvents,
        over_http1: Callable[[], H1Server],
        over_http2: Callable[[], H2Server],
    ) -> None:
        self._wire = wire
        self._events = events
        self._over_http1 = over_http1
        self._over_http2 = over_http2
        self._decided: H1Server | H2Server | None = None
        self._first = b""
        self._ending: Ending | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reason = (CloseReason.NO_BYTES, "the client sent no request")
        wire.owner = self

    # --- for the session ------------------------------------------------------------------------------------------

    @property
    def open_requests(self) -> int:
        return 0 if self._decided is None else self._decided.open_requests

    @open_requests.setter
    def open_requests(self, number: int) -> None:
        raise AssertionError("nobody sets it from outside")

    def start(self) -> None:
        self._timer = self._wire.after(IDLE_TIMEOUT_S, self._too_late)
        self._wire.listen()

    def drain(self) -> None:
        if self._decided is not None:
            self._decided.drain()
        elif self._ending is None:
            self._end(CloseReason.DRAIN, "")

    def close(self, reason: CloseReason, detail: str) -> None:
        if self._decided is not None:
            self._decided.close(reason, detail)
            return
        if self._ending is not None:
            self._ending.stop()
        self._over(reason, detail, reset=True)

    # --- for the wire ---------------------------------------------------------------------------------------------

    def on_bytes(self, data: memoryview) -> None:
        first = self._first + bytes(data[: len(PREFACE) - len(self._first)])
        if PREFACE.startswith(first) and len(first) < len(PREFACE):
            if not self._first:
                self._stop_timer()
                self._timer = self._wire.after(HEAD_TIMEOUT_S, self._too_late)
            self._first = first
            return
        self._stop_timer()
        decided = self._decided = self._over_http2() if first == PREFACE else self._over_http1()
        decided.start()
        if self._first:
            decided.on_bytes(memoryview(self._first + bytes(data)))
        else:
            decided.on_bytes(data)

    def on_end(self, *, cut: bool) -> None:
        self._over(CloseReason.CLIENT_EOF, "", reset=False)

    def on_lost(self, error: Exception) -> None:
        self._over(*loss_of_client(error), reset=True)

    def on_room(self) -> None:
        """Nothing was written."""

    # --- the end before anything was said -------------------------------------------------------------------------

    def _too_late(self) -> None:
        self._timer = None
        self._end(CloseReason.IDLE, "no request in time")

    def _end(self, reason: CloseReason, detail: str) -> None:
        self._reason = (reason, detail)
        self._stop_timer()
        self._ending = Ending(self._wire, self._ended, ended=False)

    def _ended(self) -> None:
        self._events.on_closed(*self._reason)

    def _over(self, reason: CloseReason, detail: str, *, reset: bool) -> None:
        self._stop_timer()
        self._wire.close(reset=reset)
        self._events.on_closed(reason, detail)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
