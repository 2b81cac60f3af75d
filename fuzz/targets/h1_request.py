"""However it is cut, a stream of bytes is the same requests and at most one refusal after them, and what is forwarded
of each is read as the same request by an independent parser."""

from __future__ import annotations

from collections.abc import Iterator

import h11

from fuzz.draw import Draw
from proxy.http.h1.client import H1Client
from proxy.http.h1.server import H1Server
from proxy.http.message import Headers, RequestHead, ResponseHead
from proxy.http.streams import Incoming
from tests.support.http1 import Answer, Asked, Pool, Session
from tests.support.memory_wire import MemoryWire

CODE = (
    "proxy.http.h1.request",
    "proxy.http.h1.fields",
    "proxy.http.h1.body",
    "proxy.http.h1.server",
    "proxy.http.h1.incoming",
    "proxy.http.h1.text",
)
_STATUS = {400, 408, 417, 426, 431, 501, 505}
_MAX_HEAD_BYTES = 2_048


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
    content = draw.rest()
    whole, cut = _read([content]), _read(list(_pieces(content, cuts)))
    assert _told(whole) == _told(cut)
    for asked in whole.requests:
        if asked.trailers is not None:
            _forwarded(asked)


def _pieces(content: bytes, cuts: list[int]) -> Iterator[bytes]:
    for length in cuts:
        if content[:length]:
            yield content[:length]
        content = content[length:]
    if content:
        yield content


def _read(pieces: list[bytes]) -> Session:
    memory, session = MemoryWire(), _Session()
    H1Server(memory.wire, session, max_head_bytes=_MAX_HEAD_BYTES).start()
    for piece in pieces:
        if piece:
            memory.receive(piece)
    assert len(session.refused) <= 1
    assert all(status in _STATUS for status, _ in session.refused)
    assert all(what.isprintable() for _, what in session.refused)
    return session


def _told(session: Session) -> tuple[list[tuple[RequestHead, bytes, Headers | None, bool]], bool]:
    requests = [(one.head, one.body, one.trailers, one.lost is not None) for one in session.requests]
    return requests, bool(session.refused)


def _forwarded(asked: Asked) -> None:
    memory = MemoryWire()
    client = H1Client(memory.wire, Pool())
    head = asked.head
    outgoing = client.request(head, Answer(), end=head.length == 0)
    if asked.body:
        outgoing.send(asked.body)
    outgoing.finish(asked.trailers or [])
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=65_536)
    reader.receive_data(bytes(memory.sent))
    request = reader.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (head.method, head.target)
    hosts = [value for name, value in request.headers if name == b"host"]
    assert hosts == [head.authority]
    assert [one for one in request.headers if one in head.headers] == head.headers
    body, trailers = b"", None
    while trailers is None:
        event = reader.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.EndOfMessage)
            trailers = list(event.headers)
    assert (body, trailers) == (asked.body, [])
    assert reader.trailing_data[0] == b""
