"""However it is cut, a stream of frames is the same requests, nothing but an error of the protocol ends it, and what is
forwarded of each request is read as the same one by independent parsers of both versions."""

from __future__ import annotations

import h11
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, TrailersReceived

from fuzz.draw import Draw
from fuzz.http2_frames import COMMON, frames, pieces
from proxy.http.h1.client import H1Client
from proxy.http.h2.client import H2Client
from proxy.http.h2.frames import PREFACE, settings
from proxy.http.h2.server import H2Server
from proxy.http.message import Headers, RequestHead, ResponseHead
from proxy.http.streams import Incoming
from proxy.model import CloseReason
from tests.support.http1 import Answer, Asked, Pool, Session
from tests.support.memory_wire import MemoryWire

CODE = (
    "proxy.http.h2.connection",
    "proxy.http.h2.engine",
    "proxy.http.h2.frames",
    "proxy.http.h2.heads",
    "proxy.http.h2.header_lists",
    "proxy.http.h2.server",
    "proxy.http.h2.stream",
)
_STATUS = {400, 417, 431, 501}
_ENDS = {CloseReason.BAD_REQUEST, CloseReason.FLOOD, CloseReason.DRAIN, CloseReason.CLIENT_EOF}
_FIELDS = (
    (b":method", (b"GET", b"POST", b"OPTIONS", b"HEAD", b"CONNECT", b"M-X", b"G T")),
    (b":scheme", (b"https", b"http", b"ftp")),
    (b":authority", (b"db.example", b"db.example:80", b"[::1]:443", b"a@b", b"")),
    (b":path", (b"/", b"/a?b=c", b"*", b"/a#b", b"/%00", b"a", b"")),
    (b"host", (b"db.example", b"DB.example", b"other.example")),
    (b"expect", (b"100-continue", b"more")),
    *COMMON,
)


class _Answered(Asked):
    def on_request_end(self, trailers: Headers) -> None:
        super().on_request_end(trailers)
        self.incoming.respond(ResponseHead(204), end=True)


class _Session(Session):
    def on_request(self, incoming: Incoming) -> Asked:
        self.requests.append(_Answered(incoming))
        return self.requests[-1]


def run(data: bytes) -> None:
    draw = Draw(data)
    cuts = [1 + draw.below(64) for _ in range(draw.below(8))]
    content = PREFACE + settings({}) + b"".join(frames(draw, _FIELDS, 4))
    whole, cut = _read([content]), _read(list(pieces(content, cuts)))
    assert _told(whole) == _told(cut)
    for asked in whole.requests:
        if asked.trailers is not None:
            _over_http1(asked)
            _over_http2(asked)


def _read(parts: list[bytes]) -> Session:
    memory, session = MemoryWire(), _Session()
    H2Server(memory.wire, session, max_head_bytes=1_024).start()
    for piece in parts:
        if not memory.closed:
            memory.receive(piece)
    memory.end()
    assert all(status in _STATUS for status, _ in session.refused)
    assert all(what.isprintable() for _, what in session.refused)
    assert all(reason in _ENDS or reason is CloseReason.CLIENT_RESET for reason, _ in session.closed)
    assert all(asked.trailers is not None or asked.lost for asked in session.requests if session.closed)
    return session


def _told(session: Session) -> tuple[list[tuple[RequestHead, bytes, Headers | None, bool]], list[tuple[int, str]]]:
    requests = [(one.head, one.body, one.trailers, one.lost is not None) for one in session.requests]
    return requests, session.refused


def _sent(client: H1Client | H2Client, memory: MemoryWire, asked: Asked) -> bytes:
    head = asked.head
    before = len(memory.sent)
    outgoing = client.request(head, Answer(), end=head.length == 0)
    if asked.body:
        outgoing.send(asked.body)
    outgoing.finish(asked.trailers or [])
    return bytes(memory.sent[before:])


def _over_http1(asked: Asked) -> None:
    memory, head = MemoryWire(), asked.head
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
    reader.receive_data(_sent(H1Client(memory.wire, Pool()), memory, asked))
    request = reader.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (head.method, head.target)
    assert [value for name, value in request.headers if name == b"host"] == [head.authority]
    assert [one for one in request.headers if one in head.headers] == head.headers
    body = b""
    while isinstance(event := reader.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert (body, list(event.headers)) == (asked.body, [])
    assert reader.trailing_data[0] == b""


def _over_http2(asked: Asked) -> None:
    memory, head = MemoryWire(), asked.head
    client = H2Client(memory.wire, Pool())
    client.start()
    greeting = bytes(memory.sent)
    reader = H2Connection(H2Configuration(client_side=False, header_encoding=None, normalize_inbound_headers=False))
    reader.initiate_connection()
    events = reader.receive_data(greeting + _sent(client, memory, asked))
    request, *rest = [event for event in events if isinstance(event, RequestReceived | DataReceived | TrailersReceived)]
    assert isinstance(request, RequestReceived)
    fields = [(bytes(name), bytes(value)) for name, value in request.headers or []]
    assert fields[:4] == [
        (b":method", head.method), (b":scheme", head.scheme), (b":authority", head.authority), (b":path", head.target),
    ]  # fmt: skip
    assert sorted(one for one in fields if one in head.headers) == sorted(head.headers)
    assert b"".join(event.data or b"" for event in rest if isinstance(event, DataReceived)) == asked.body
    assert [event.headers for event in rest if isinstance(event, TrailersReceived)] == [
        trailers for trailers in [asked.trailers] if trailers
    ]
    assert any(isinstance(event, StreamEnded) for event in events)
