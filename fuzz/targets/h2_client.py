"""However it is cut, what an external service sends is the same responses or none, and what is passed on of a complete
one is read as the same response by independent parsers of both versions."""

from __future__ import annotations

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from fuzz.draw import Draw
from fuzz.http2_frames import COMMON, frames, pieces
from proxy.http.h1.server import H1Server
from proxy.http.h2.client import H2Client
from proxy.http.h2.frames import settings
from proxy.http.h2.server import H2Server
from proxy.http.message import RequestHead, Version
from proxy.model import CloseReason
from tests.support.http1 import Answer, Pool, Session
from tests.support.memory_wire import MemoryWire

CODE = (
    "proxy.http.h2.connection",
    "proxy.http.h2.engine",
    "proxy.http.h2.client",
    "proxy.http.h2.heads",
    "proxy.http.h2.stream",
)
_REASONS = {CloseReason.BAD_RESPONSE, CloseReason.UPSTREAM_RESET}
_FIELDS = (
    (b":status", (b"200", b"204", b"304", b"100", b"103", b"101", b"099", b"2000")),
    (b"server", (b"db",)),
    (b"connection", (b"close",)),
    (b":path", (b"/",)),
    *COMMON,
)
_REQUEST = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/")]


def run(data: bytes) -> None:
    draw = Draw(data)
    method = draw.choice([b"GET", b"HEAD", b"POST"])
    cuts = [1 + draw.below(64) for _ in range(draw.below(8))]
    content = settings({}) + b"".join(frames(draw, _FIELDS, 1))
    whole, cut = _read(method, [content]), _read(method, list(pieces(content, cuts)))
    assert repr([_told(one) for one in whole]) == repr([_told(one) for one in cut])
    for answer in whole:
        if answer.complete:
            _over_http1(method, answer)
            _over_http2(method, answer)


def _read(method: bytes, parts: list[bytes]) -> list[Answer]:
    memory, pool, answers = MemoryWire(), Pool(), [Answer(), Answer(), Answer()]
    client = H2Client(memory.wire, pool)
    client.start()
    for answer in answers:
        client.request(RequestHead(method, b"/", b"a", Version.HTTP_1_1), answer, end=True)
    for piece in parts:
        if not memory.closed:
            memory.receive(piece)
    memory.end(cut=True)
    assert pool.gone == 1
    assert client.open_requests == 0
    for answer in answers:
        assert answer.complete or answer.lost is not None
        if answer.lost is not None:
            assert answer.lost.reason in _REASONS
            assert str(answer.lost).isprintable()
    return answers


def _told(answer: Answer) -> tuple[object, ...]:
    return answer.informed, answer.head, answer.body, answer.trailers, answer.lost is not None


def _sent(server: H1Server | H2Server, memory: MemoryWire, session: Session, answer: Answer, asked: bytes) -> bytes:
    server.start()
    memory.receive(asked)
    (request,) = session.requests
    assert answer.head is not None
    for interim in answer.informed:
        request.incoming.inform(interim)
    request.incoming.respond(answer.head, end=answer.head.length == 0 and not answer.trailers)
    if answer.body:
        request.incoming.send(answer.body)
    request.incoming.finish(answer.trailers or [])
    return bytes(memory.sent)


def _over_http1(method: bytes, answer: Answer) -> None:
    memory, session, head = MemoryWire(), Session(), answer.head
    assert head is not None
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=131_072)
    reader.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    reader.send(h11.EndOfMessage())
    asked = b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method
    reader.receive_data(_sent(H1Server(memory.wire, session), memory, session, answer, asked))
    for interim in answer.informed:
        informed = reader.next_event()
        assert isinstance(informed, h11.InformationalResponse)
        assert informed.status_code == interim.status
    response = reader.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == head.status
    assert [one for one in response.headers if one in head.headers] == head.headers
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (body, list(event.headers)) == (answer.body, [] if head.length >= 0 else answer.trailers)
    assert reader.trailing_data[0] == b""


def _over_http2(method: bytes, answer: Answer) -> None:
    memory, session, head = MemoryWire(), Session(), answer.head
    assert head is not None
    reader = H2Connection(H2Configuration(client_side=True, header_encoding=None, normalize_inbound_headers=False))
    reader.initiate_connection()
    reader.send_headers(1, [(b":method", method), *_REQUEST[1:]], end_stream=True)
    asked = reader.data_to_send()
    events = reader.receive_data(_sent(H2Server(memory.wire, session), memory, session, answer, asked))
    assert not [event for event in events if isinstance(event, StreamReset)]
    (response,) = [event for event in events if isinstance(event, ResponseReceived)]
    fields = [(bytes(name), bytes(value)) for name, value in response.headers or []]
    assert fields[0] == (b":status", b"%d" % head.status)
    assert sorted(one for one in fields if one in head.headers) == sorted(head.headers)
    assert b"".join(event.data or b"" for event in events if isinstance(event, DataReceived)) == answer.body
    trailers = [event.headers for event in events if isinstance(event, TrailersReceived)]
    assert trailers == [one for one in [answer.trailers] if one]
    assert any(isinstance(event, StreamEnded) for event in events)
