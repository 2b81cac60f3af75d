"""However it is cut, what an external service sends is the same response or none, never complete when it is cut off,
and what is passed on of it is read as the same response by an independent parser."""

from __future__ import annotations

import h11

from fuzz.draw import Draw
from fuzz.targets.h1_request import _pieces
from proxy.http.h1.client import H1Client
from proxy.http.h1.server import H1Server
from proxy.http.message import RequestHead, Version
from proxy.model import CloseReason
from tests.support.http1 import Answer, Pool, Session
from tests.support.memory_wire import MemoryWire

CODE = (
    "proxy.http.h1.response",
    "proxy.http.h1.fields",
    "proxy.http.h1.mending",
    "proxy.http.h1.body",
    "proxy.http.h1.client",
    "proxy.http.h1.outgoing",
    "proxy.http.h1.text",
)
_REASONS = {CloseReason.BAD_RESPONSE, CloseReason.UPSTREAM_RESET}


def run(data: bytes) -> None:
    draw = Draw(data)
    method = draw.choice([b"GET", b"HEAD", b"POST"])
    clean = draw.truth()
    cuts = [1 + draw.below(64) for _ in range(draw.below(8))]
    content = draw.rest()
    whole = _read(method, [content], clean=clean)
    assert repr(_told(whole)) == repr(_told(_read(method, list(_pieces(content, cuts)), clean=clean)))
    if whole.head is None or whole.head.status == 101:
        return
    if whole.complete:
        _passed_on(method, whole)
        by_itself = whole.head.length >= 0 or b"chunked" in content.lower()
        assert clean or by_itself


def _read(method: bytes, pieces: list[bytes], *, clean: bool) -> Answer:
    memory, pool, answer = MemoryWire(), Pool(), Answer()
    client = H1Client(memory.wire, pool)
    client.start()
    client.request(RequestHead(method, b"/", b"a", Version.HTTP_1_1), answer, end=True)
    for piece in pieces:
        if piece:
            memory.receive(piece)
    memory.end(cut=not clean)
    assert pool.gone == 1
    if answer.lost is not None:
        assert answer.lost.reason in _REASONS
        assert str(answer.lost).isprintable()
    else:
        assert answer.complete
    return answer


def _told(answer: Answer) -> tuple[object, ...]:
    return answer.informed, answer.head, answer.body, answer.trailers, answer.lost is not None


def _passed_on(method: bytes, answer: Answer) -> None:
    memory, session = MemoryWire(), Session()
    H1Server(memory.wire, session).start()
    memory.receive(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method)
    (asked,) = session.requests
    assert answer.head is not None
    for interim in answer.informed:
        asked.incoming.inform(interim)
    asked.incoming.respond(answer.head, end=False)
    if answer.body:
        asked.incoming.send(answer.body)
    asked.incoming.finish(answer.trailers or [])
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=131_072)
    reader.send(h11.Request(method=method, target=b"/", headers=[(b"host", b"a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(bytes(memory.sent))
    for interim in answer.informed:
        informed = reader.next_event()
        assert isinstance(informed, h11.InformationalResponse)
        assert (informed.status_code, list(informed.headers)) == (interim.status, interim.headers)
    response = reader.next_event()
    assert isinstance(response, h11.Response)
    assert response.status_code == answer.head.status
    assert [one for one in response.headers if one in answer.head.headers] == answer.head.headers
    body, trailers = b"", None
    while trailers is None:
        event = reader.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.EndOfMessage)
            trailers = list(event.headers)
    assert (body, trailers) == (answer.body, answer.trailers)
    assert reader.trailing_data[0] == b""
