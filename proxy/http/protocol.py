"""Which version of HTTP is spoken on a connection, on either side."""

from __future__ import annotations

from proxy.http.h1_client import H1Client
from proxy.http.h1_server import H1Server
from proxy.http.streams import ClientConnection, ClientEvents, ServerConnection, ServerEvents
from proxy.http.wire import Wire
from proxy.model import HTTPSettings, Service


def open_server(wire: Wire, events: ServerEvents, service: Service) -> ServerConnection:
    """Towards a client whose handshake is done; it is started by the caller."""
    http = service.http or HTTPSettings()
    return H1Server(wire, events, max_head_bytes=http.max_request_head_bytes)


def open_client(wire: Wire, events: ClientEvents, service: Service) -> ClientConnection:
    """Towards an external service that was just connected."""
    client = H1Client(wire, events)
    client.start()
    return client
