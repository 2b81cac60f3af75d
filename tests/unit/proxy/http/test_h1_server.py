"""A client's connection: requests one after the other, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.http.message import UNKNOWN_LENGTH, ResponseHead
from proxy.model import CloseReason
from tests.support.http1 import Asked, Rig, rig

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def on() -> Iterator[Rig]:
    with rig() as made:
        yield made


def ok(asked: Asked) -> None:
    asked.incoming.respond(ResponseHead(200, length=2), end=False)
    asked.incoming.send(b"ok")
    asked.incoming.finish([])


def nothing(asked: Asked) -> None:
    asked.incoming.respond(ResponseHead(200), end=True)


# --- requests one after the other


def test_a_request_with_a_body(on: Rig) -> None:
    server, session, client = on.server()
    client.send(POST + b"he")
    on.until(lambda: session.requests and session.requests[0].body)
    (asked,) = session.requests
    assert (asked.head.method, asked.head.length, asked.body, asked.trailers) == (b"POST", 5, b"he", None)
    assert server.open_requests == 1
    client.send(b"llo")
    on.until(lambda: asked.trailers is not None)
    assert asked.body == b"hello"
    on.call(lambda: ok(asked))
    on.until(lambda: client.received == OK)
    assert server.open_requests == 0


def test_one_connection_carries_one_request_after_the_other(on: Rig) -> None:
    _, session, client = on.server(ok)
    for number in range(1, 4):
        client.send(GET)
        on.until(lambda number=number: client.received == OK * number)  # type: ignore[misc]
    assert session.closed == []


@pytest.mark.parametrize("at_once", [True, False])
def test_pipelined_requests_are_answered_in_order(on: Rig, at_once: bool) -> None:
    _, session, client = on.server(ok if at_once else None)
    body = POST.replace(b"/x", b"/body") + b"hello"
    client.send((GET + body) * 30)
    for number in range(60):
        on.until(lambda number=number: len(session.requests) > number)  # type: ignore[misc]
        asked = session.requests[number]
        on.until(lambda asked=asked: asked.trailers is not None or at_once)  # type: ignore[misc]
        assert asked.head.target == (b"/body" if number % 2 else b"/x")
        if not at_once:
            assert len(session.requests) == number + 1, "the next one waits for this one's response"
            assert asked.body == (b"hello" if number % 2 else b"")
            on.call(lambda asked=asked: ok(asked))  # type: ignore[misc]
        elif number % 2:
            break  # answered before its body was read: the connection ends, and the rest is dropped
    if at_once:
        on.until(lambda: client.ended)
        assert len(session.requests) == 2
    else:
        on.until(lambda: client.received == OK * 60)


def test_a_pipeline_is_not_read_ahead(on: Rig) -> None:
    server, session, client = on.server()
    client.send(GET * 200_000)
    on.until(lambda: session.requests)
    for _ in range(50):
        on.turn()
    assert len(session.requests) == 1
    assert server.wire.bytes_received < 1_000_000, "the rest stays with the kernel"
    held = server.wire.bytes_received
    on.call(lambda: ok(session.requests[0]))
    on.until(lambda: len(session.requests) == 2)
    assert server.wire.bytes_received == held


def test_many_that_are_answered_at_once_give_way_to_others(on: Rig) -> None:
    _, session, client = on.server(ok)
    _, other_session, other = on.server(ok)
    client.send(GET * 1_000)
    other.send(GET)
    on.until(lambda: other_session.requests)
    assert len(session.requests) < 1_000
    on.until(lambda: len(session.requests) == 1_000)
    on.until(lambda: client.received == OK * 1_000)


def test_chunks_and_trailers_of_a_request(on: Rig) -> None:
    _, session, client = on.server()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n" + GET)
    on.until(lambda: session.requests and session.requests[0].trailers is not None)
    assert (session.requests[0].head.length, session.requests[0].body) == (UNKNOWN_LENGTH, b"abc")
    assert session.requests[0].trailers == [(b"x", b"y")]
    on.call(lambda: ok(session.requests[0]))
    on.until(lambda: len(session.requests) == 2)


# --- responses


def test_a_response_of_unknown_length_is_chunked(on: Rig) -> None:
    _, session, client = on.server()
    client.send(GET)
    on.until(lambda: session.requests)
    incoming = session.requests[0].incoming

    def answer() -> None:
        incoming.respond(ResponseHead(200, [(b"a", b"b")], length=UNKNOWN_LENGTH), end=False)
        incoming.send(b"hello")
        incoming.send(b"")
        incoming.send(b"x" * 20)
        incoming.finish([(b"x-sum", b"1")])

    on.call(answer)
    on.until(lambda: client.received.endswith(b"\r\n\r\n"))
    assert client.received == (
        b"HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\nx-sum: 1\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "head", "said"),
    [
        (b"HEAD", ResponseHead(200, announced_length=12), b"content-length: 12\r\n"),
        (b"HEAD", ResponseHead(200), b""),
        (b"HEAD", ResponseHead(200, length=UNKNOWN_LENGTH), b""),
        (b"GET", ResponseHead(204, announced_length=12), b""),
        (b"GET", ResponseHead(304, announced_length=12), b"content-length: 12\r\n"),
        (b"GET", ResponseHead(304), b""),
        (b"GET", ResponseHead(200), b"content-length: 0\r\n"),
        (b"GET", ResponseHead(200, length=UNKNOWN_LENGTH), b"content-length: 0\r\n"),
    ],
)
@pytest.mark.parametrize("end", [True, False])
def test_responses_without_a_body(on: Rig, method: bytes, head: ResponseHead, said: bytes, end: bool) -> None:
    if not end and method == b"GET" and head.length == UNKNOWN_LENGTH:
        said = b"transfer-encoding: chunked\r\n"
    _, session, client = on.server()
    client.send(GET.replace(b"GET", method))
    on.until(lambda: session.requests)
    incoming = session.requests[0].incoming

    def answer() -> None:
        incoming.respond(head, end=end)
        if not end:
            if head.status != 200 or method == b"HEAD":
                incoming.send(b"dropped")
            incoming.finish([])

    on.call(answer)
    client.send(GET)
    on.until(lambda: len(session.requests) == 2)
    on.turn()
    _, _, rest = client.received.partition(b"\r\n")
    assert rest == said + b"\r\n" + (b"0\r\n\r\n" if said.startswith(b"transfer") else b"")


@pytest.mark.parametrize("sent", [b"abc", b"abcdef"])
def test_a_response_that_is_not_as_long_as_it_said_is_a_reset(on: Rig, sent: bytes) -> None:
    _, session, client = on.server()
    client.send(GET)
    on.until(lambda: session.requests)
    asked = session.requests[0]

    def answer() -> None:
        asked.incoming.respond(ResponseHead(200, length=5), end=False)
        asked.incoming.send(sent)
        asked.incoming.finish([])
        assert asked.lost is None, "nobody is called back from within a call"

    on.call(answer)
    on.until(lambda: session.closed)
    assert asked.lost is not None
    assert asked.lost[0] is CloseReason.BAD_RESPONSE
    on.until(lambda: client.ended == "reset")


def test_a_response_without_the_body_that_it_announced_is_a_reset(on: Rig) -> None:
    _, session, client = on.server()
    client.send(GET)
    on.until(lambda: session.requests)
    on.call(lambda: session.requests[0].incoming.respond(ResponseHead(200, length=5), end=True))
    on.until(lambda: client.ended == "reset")
    assert client.received == b""
    assert session.closed[0][0] is CloseReason.BAD_RESPONSE


def test_a_reset_cannot_be_taken_for_an_end(on: Rig) -> None:
    _, session, client = on.server()
    client.send(GET)
    on.until(lambda: session.requests)
    asked = session.requests[0]

    def answer() -> None:
        asked.incoming.respond(ResponseHead(200, length=UNKNOWN_LENGTH), end=False)
        asked.incoming.send(b"half")
        asked.incoming.reset(CloseReason.UPSTREAM_RESET, "gone")
        assert session.closed == []
        assert asked.incoming.send(b"without effect")
        asked.incoming.finish([])

    on.call(answer)
    on.until(lambda: client.ended == "reset")
    assert session.closed == [(CloseReason.UPSTREAM_RESET, "gone")]
    assert asked.lost is None


def test_the_client_asks_for_the_last_response(on: Rig) -> None:
    _, session, client = on.server(nothing)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + GET)
    on.until(lambda: client.ended == "end")
    assert client.received == b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    client.close()
    on.until(lambda: session.closed)
    assert session.closed[0][0] is CloseReason.CLIENT_EOF
    assert len(session.requests) == 1


def test_interim_responses(on: Rig) -> None:
    _, session, client = on.server()
    client.send(POST.replace(b"Host", b"Expect: 100-continue\r\nHost"))
    on.until(lambda: session.requests)
    asked = session.requests[0]
    assert asked.head.expects_continue
    on.call(lambda: asked.incoming.inform(ResponseHead(103, [(b"link", b"x")])))
    on.call(lambda: asked.incoming.inform(ResponseHead(100)))
    on.call(lambda: asked.incoming.inform(ResponseHead(101, upgrade=b"x")))
    on.until(lambda: client.received.endswith(b"Continue\r\n\r\n"))
    assert client.received == b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    on.until(lambda: asked.body == b"hello")
    on.call(lambda: ok(asked))
    on.call(lambda: asked.incoming.inform(ResponseHead(103)))
    on.until(lambda: client.received.endswith(OK))
    assert session.closed == []


def test_a_response_before_the_request_is_complete_is_the_last_one(on: Rig) -> None:
    _, session, client = on.server()
    client.send(POST.replace(b"5", b"500000"))
    on.until(lambda: session.requests)
    asked = session.requests[0]
    on.call(lambda: asked.incoming.respond(ResponseHead(413, reason=b"Large"), end=True))
    on.until(lambda: client.received)
    client.send(GET * 10_000)
    on.until(lambda: client.ended)
    assert client.ended == "end", "what still comes is read, so that the response is not lost with a reset"
    assert client.received == b"HTTP/1.1 413 Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    assert session.refused == []
    client.close()
    on.until(lambda: session.closed)
    assert (len(session.requests), asked.body, asked.trailers) == (1, b"", None)


def test_what_comes_after_an_early_response_is_not_read_for_ever(on: Rig) -> None:
    server, session, client = on.server(nothing)
    client.send(POST.replace(b"5", b"500000000"))
    on.until(lambda: session.requests)
    client.send(b"x" * 20_000_000)
    on.until(lambda: session.closed)
    assert server.wire.bytes_received < 4_000_000


# --- what is refused


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\r\n" + GET, 400),
        (b"\r\n", 400),
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400),
        (b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", 426),
        (GET.replace(b"Host", b"X: " + b"y" * 60 * 1024 + b"\r\nHost"), 431),
        (b"GET /" + b"y" * 61 * 1024, 431),
    ],
)
def test_a_bad_head_is_answered_and_ends_the_connection(on: Rig, sent: bytes, status: int) -> None:
    _, session, client = on.server()
    client.send(sent)
    on.until(lambda: client.ended)
    assert client.ended == "end"
    assert client.received.startswith(b"HTTP/1.1 %d " % status)
    assert b"connection: " in client.received
    client.close()
    on.until(lambda: session.closed)
    assert session.closed[0][0] is CloseReason.BAD_REQUEST
    assert [status for status, _ in session.refused] == [status]
    assert session.requests == []


def test_a_head_of_just_the_limit_is_taken(on: Rig) -> None:
    for length, taken in ((1_000, True), (1_001, False)):
        _, session, client = on.server(ok, max_head_bytes=1_000)
        filler = b"y" * (length - len(GET) - len(b"X: \r\n"))
        client.send(GET.replace(b"Host", b"X: " + filler + b"\r\nHost"))
        on.until(lambda client=client: client.received)  # type: ignore[misc]
        assert bool(session.requests) is taken


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"0\r\nContent-Length: 5\r\n\r\n", b"0\r\nx-forwarded-for: 1\r\n\r\n"])
def test_a_bad_body(on: Rig, started: bool, rest: bytes) -> None:
    _, session, client = on.server()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    on.until(lambda: session.requests and session.requests[0].body == b"abc")
    asked = session.requests[0]
    if started:
        on.call(lambda: asked.incoming.respond(ResponseHead(200, length=UNKNOWN_LENGTH), end=False))
    client.send(rest)
    on.until(lambda: client.ended)
    assert asked.lost is not None
    assert asked.lost[0] is CloseReason.BAD_REQUEST
    assert asked.trailers is None
    assert client.ended == ("reset" if started else "end")
    assert client.received.startswith(b"HTTP/1.1 200 " if started else b"HTTP/1.1 400 ")
    client.close()
    on.until(lambda: session.closed)
    assert session.closed[0][0] is CloseReason.BAD_REQUEST
