"""Which version of HTTP a connection speaks."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from h2.events import ResponseReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.h1.client import H1Client
from proxy.http.h2.client import H2Client
from proxy.http.h2.frames import PREFACE
from proxy.http.message import ResponseHead, Version
from proxy.http.protocol import open_client, open_server
from proxy.model import CloseReason, HTTPSettings, Service
from tests.support.http2_peer import GET, Peer
from tests.support.http_sides import Bench, Pool, Session
from tests.support.mesh import HandMadeMesh

MESH = HandMadeMesh()
REQUEST = b"GET / HTTP/1.1\r\nhost: db.example\r\n\r\n"


def service(protocol: str) -> Service:
    return MESH.service("db", protocol=protocol, http=HTTPSettings())


class Sides:
    def __init__(self) -> None:
        self.bench = Bench()
        self.session = Session()
        self.wire, self.socket = self.bench.pair()
        self.server = open_server(self.wire, self.session, service("http"))
        self.server.start()

    def read(self, connected: socket.socket) -> bytes:
        try:
            return connected.recv(65_536)
        except BlockingIOError:
            return b""


@pytest.fixture
def sides() -> Iterator[Sides]:
    made = Sides()
    yield made
    made.bench.close()


def test_a_client_that_begins_with_the_preface_speaks_http2(sides: Sides) -> None:
    peer = Peer(sides.bench, sides.socket, client=True)
    peer.start()
    peer.protocol.send_headers(1, GET, end_stream=True)
    peer.flush()
    peer.until(lambda: sides.session.exchanges)
    assert sides.session.exchanges[0].head.version is Version.HTTP_2
    assert sides.server.open_requests == 1
    sides.session.exchanges[0].incoming.respond(ResponseHead(status=204), end=True)
    peer.expect(ResponseReceived)


def test_a_client_that_begins_with_anything_else_speaks_http1(sides: Sides) -> None:
    sides.socket.send(REQUEST)
    sides.bench.until(lambda: sides.session.exchanges)
    assert sides.session.exchanges[0].head.version is Version.HTTP_1_1
    assert sides.server.open_requests == 1


@settings(deadline=None, max_examples=40)
@given(cuts=st.lists(st.integers(1, 30), max_size=12), http2=st.booleans())
def test_it_is_the_same_in_any_pieces(cuts: list[int], http2: bool) -> None:
    sides = Sides()
    try:
        data = REQUEST
        if http2:
            peer = Peer(sides.bench, sides.socket, client=True)
            peer.protocol.initiate_connection()
            peer.protocol.send_headers(1, GET, end_stream=True)
            data = peer.protocol.data_to_send()
        for cut in cuts:
            sides.socket.send(data[:cut])
            data = data[cut:]
            sides.bench.turns()
        sides.socket.send(data)
        sides.bench.until(lambda: sides.session.exchanges)
        (exchange,) = sides.session.exchanges
        assert exchange.head.authority == b"db.example"
        assert exchange.head.version is (Version.HTTP_2 if http2 else Version.HTTP_1_1)
    finally:
        sides.bench.close()


def test_a_method_that_begins_as_the_preface_does_is_not_taken_for_it(sides: Sides) -> None:
    sides.socket.send(b"PR")
    sides.bench.turns(3)
    assert sides.session.closed is None
    sides.socket.send(b"OPFIND / HTTP/1.1\r\nhost: db.example\r\n\r\n")
    sides.bench.until(lambda: sides.session.exchanges)
    assert sides.session.exchanges[0].head.method == b"PROPFIND"


@pytest.mark.parametrize("first", [b"", PREFACE[:5]])
def test_one_that_ends_before_it_said_enough(sides: Sides, first: bytes) -> None:
    sides.socket.send(first)
    sides.bench.turns(3)
    sides.socket.close()
    sides.bench.until(lambda: sides.session.closed)
    assert sides.session.closed == (CloseReason.CLIENT_EOF, "")


def test_draining_and_closing_one_that_has_said_nothing(sides: Sides) -> None:
    other = Sides()
    sides.server.drain()
    sides.bench.until(lambda: sides.read(sides.socket) or sides.session.closed)
    other.server.close(CloseReason.KILLED, "by hand")
    assert other.session.closed == (CloseReason.KILLED, "by hand")
    other.bench.close()


@pytest.mark.parametrize(("protocol", "kind"), [("http", H1Client), ("http2", H2Client), ("grpc", H2Client)])
def test_an_external_service_is_spoken_to_as_its_protocol_says(protocol: str, kind: type) -> None:
    bench = Bench()
    wire, _ = bench.pair()
    assert isinstance(open_client(wire, Pool(), service(protocol)), kind)
    bench.close()
