"""Where the network cuts a stream of bytes changes nothing of what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.http.message import RequestHead, ResponseHead, Version
from tests.support.http1 import Answer, Asked, Rig, rig


@pytest.fixture(scope="module")
def on() -> Iterator[Rig]:
    with rig() as made:
        yield made


REQUESTS = {
    b"GET /a HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n": (b"/a", b"", []),
    b"POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nGET / HTTP/1": (b"/b", b"GET / HTTP/1", []),
    b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n\r\n0\r\n\r\n2\r\nab\r\n0\r\n\r\n": (
        b"/c", b"\r\n0\r\nab", [],
    ),
    b"PUT /d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n00\r\nT: 1\r\nU: 2\r\n\r\n": (
        b"/d", b"x", [(b"t", b"1"), (b"u", b"2")],
    ),
    b"HEAD http://a/e HTTP/1.1\r\nHost: a\r\n\r\n": (b"/e", b"", []),
}  # fmt: skip
BAD = [b"", b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", b"\r\n"]
LENGTHS = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 60)), max_size=60)


def pieces(data: bytes, lengths: list[int]) -> Iterator[memoryview]:
    for length in lengths:
        if data:
            yield memoryview(data[:length])
        data = data[length:]
    if data:
        yield memoryview(data)


class Answered(Asked):
    def on_request_end(self, trailers: list[tuple[bytes, bytes]]) -> None:
        super().on_request_end(trailers)
        self.incoming.respond(ResponseHead(204), end=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.sampled_from(list(REQUESTS)), max_size=5), st.sampled_from(BAD), LENGTHS)
def test_requests(on: Rig, sent: list[bytes], bad: bytes, lengths: list[int]) -> None:
    server, session, client = on.server()
    asked: list[Answered] = []

    def on_request(incoming: object) -> Answered:
        asked.append(Answered(incoming))  # type: ignore[arg-type]
        return asked[-1]

    session.on_request = on_request  # type: ignore[method-assign]
    for piece in pieces(b"".join(sent) + bad, lengths):
        on.call(lambda piece=piece: server.wire.owner.on_bytes(piece))  # type: ignore[misc]
    on.until(lambda: len(asked) == len(sent) and bool(session.refused) is bool(bad))
    assert [(one.head.target, one.body, one.trailers) for one in asked] == [REQUESTS[one] for one in sent]
    assert [status for status, _ in session.refused] == ([400] if bad else [])
    on.call(lambda: server.wire.close(reset=True))
    on.turn()
    assert client.received.count(b"HTTP/1.1 204 ") == len(sent)
    on.forget(client)


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
RESPONSES = {
    b"HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\nHTTP/1.1 200 OK\r\n\r\n": b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 100 x\r\n\r\nHTTP/1.1 200\r\n" + CHUNKED + b"3;a\r\n\r\n0\r\n0\r\nT: 1\r\n\r\n": b"\r\n0",
    b"HTTP/1.1 304 x\r\nContent-Length: 3\r\n\r\n": b"",
    b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n": b"",
    b"HTTP/1.1 100 x\n\nHTTP/1.1 200 OK\nX: 1\n  2\nContent-Length: 6\n\n\r\n\r\n\n\n": b"\r\n\r\n\n\n",
    b"HTTP/1.1 200 OK\r\nX: 1\r\n  2\r\nContent-Length: 2\r\n\r\n\n\n": b"\n\n",
    b"HTTP/1.1 200 OK\nX: 1\n\r\nContent-Length: 0\r\n\r\n": None,
    b"HTTP/1.1 200 OK\r\nX: 1\n\nContent-Length: 0\r\n\r\n": None,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3z": None,
    b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n": None,
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(list(RESPONSES)), LENGTHS)
def test_responses(on: Rig, sent: bytes, lengths: list[int]) -> None:
    client, pool, service = on.client()
    answer = Answer()
    on.call(lambda: client.request(RequestHead(b"GET", b"/", b"a", Version.HTTP_1_1), answer, end=True))
    for piece in pieces(sent, lengths):
        on.call(lambda piece=piece: client.wire.owner.on_bytes(piece))  # type: ignore[misc]
    expected = RESPONSES[sent]
    if expected is None:
        assert answer.lost is not None
        assert pool.gone == 1
    else:
        assert (answer.complete, answer.body) == (True, expected)
        assert client.available
    on.call(client.close)
    on.forget(service)
