"""A connection to an external service: when a response is complete, and when the connection is used again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.http.message import UNKNOWN_LENGTH, RequestHead, Version
from proxy.model import CloseReason
from tests.support.http1 import Answer, Asking, Rig, rig

GET = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest.fixture
def on() -> Iterator[Rig]:
    with rig() as made:
        yield made


def test_one_request_after_the_other(on: Rig) -> None:
    first = Asking(on)
    on.until(lambda: first.service.received == GET)
    assert (first.client.open_requests, first.client.available) == (1, False)
    first.service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhe")
    on.until(lambda: first.answer.body == b"he")
    assert not first.answer.complete
    first.service.send(b"llo")
    assert first.complete().body == b"hello"
    assert first.answer.head is not None
    assert first.answer.head.headers == [(b"x", b"y")]
    assert (first.client.open_requests, first.client.available, first.pool.available) == (0, True, 1)
    second = Asking(on, after=first)
    on.until(lambda: first.service.received == GET * 2)
    first.service.send(b"HTTP/1.1 204 x\r\n\r\n")
    assert second.complete().body == b""
    assert (first.pool.available, first.pool.gone) == (2, 0)


@pytest.mark.parametrize(
    ("length", "sent", "wire"),
    [
        (5, [b"hel", b"lo"], b"content-length: 5\r\n\r\nhello"),
        (
            UNKNOWN_LENGTH,
            [b"hel", b"", b"lo"],
            b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        ),
    ],
)
def test_bodies_of_requests_and_never_trailers(on: Rig, length: int, sent: list[bytes], wire: bytes) -> None:
    one = Asking(on, b"POST", end=False, length=length, has_length=length > 0)

    def send() -> None:
        for data in sent:
            one.outgoing.send(data)
        one.outgoing.finish([(b"x", b"y")])

    on.call(send)
    on.until(lambda: one.service.received.endswith(wire))
    one.service.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    one.complete()
    assert one.client.available


@pytest.mark.parametrize("sent", [b"abc", b"abcdef"])
def test_a_request_that_is_not_as_long_as_it_said_is_a_reset(on: Rig, sent: bytes) -> None:
    one = Asking(on, b"POST", end=False, length=5, has_length=True)

    def send() -> None:
        one.outgoing.send(sent)
        one.outgoing.finish([])
        assert one.answer.lost is None, "nobody is called back from within a call"
        assert not one.client.available

    on.call(send)
    assert one.lost().lost is not None
    on.until(lambda: one.service.ended == "reset")
    assert one.pool.gone == 1


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("response", "body", "again"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", b"", True),
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
        (OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello", b"hello", False),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n", b"hello", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.1 204 x\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 x\r\nContent-Length: 5\r\n\r\n", b"", True),
    ],
)
def test_responses_that_end_by_themselves(on: Rig, response: bytes, body: bytes, again: bool) -> None:
    for pieces in ([response], [response[at : at + 1] for at in range(len(response))]):
        one = Asking(on)
        for piece in pieces:
            one.service.send(piece)
            on.turn()
        assert one.complete().body == body
        assert one.client.available is again
        assert (one.pool.available, one.pool.gone) == ((1, 0) if again else (0, 1))
        if not again:
            on.until(lambda one=one: one.service.ended == "end")  # type: ignore[misc]


@pytest.mark.parametrize(
    "response",
    [
        OK + b"Content-Length: 5\r\nX: y\r\n\r\nhello",
        OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 x\r\n\r\n",
    ],
)
@pytest.mark.parametrize("reset", [False, True])
def test_what_is_cut_is_never_complete(on: Rig, response: bytes, reset: bool) -> None:
    for length in range(len(response)):
        one = Asking(on)
        one.service.send(response[:length])
        on.until(lambda one=one: one.service.received == GET)  # type: ignore[misc]
        on.turn()
        one.service.close(reset=reset)
        lost = one.lost()
        assert lost.lost is not None
        assert lost.lost.reason is CloseReason.UPSTREAM_RESET
        assert not lost.unprocessed
        assert one.pool.gone == 1


def test_a_response_that_ends_with_the_connection(on: Rig) -> None:
    one = Asking(on)
    one.service.send(OK + b"\r\nhel")
    on.until(lambda: one.answer.body)
    assert one.answer.head is not None
    assert one.answer.head.length == UNKNOWN_LENGTH
    one.service.send(b"lo")
    one.service.finish()
    assert one.complete().body == b"hello"
    assert (one.client.available, one.pool.available, one.pool.gone) == (False, 0, 1)


def test_a_reset_is_not_the_end_of_such_a_response(on: Rig) -> None:
    one = Asking(on)
    one.service.send(OK + b"\r\nhello")
    on.until(lambda: one.answer.body)
    one.service.close(reset=True)
    assert one.lost().body == b"hello"


def test_nor_is_the_end_of_a_tls_session_without_its_last_word(on: Rig) -> None:
    one = Asking(on)
    one.service.send(OK + b"\r\nhello")
    on.until(lambda: one.answer.body)
    on.call(lambda: one.client.on_end(cut=True))
    assert one.lost().body == b"hello"


@pytest.mark.parametrize("framing", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_a_response_to_head_has_no_body(on: Rig, framing: bytes) -> None:
    one = Asking(on, b"HEAD")
    one.service.send(OK + framing + b"\r\n")
    answer = one.complete()
    assert answer.head is not None
    assert answer.head.length == 0
    assert answer.head.announced_length == (5 if framing.startswith(b"Content") else None)
    assert one.client.available


def test_interim_responses(on: Rig) -> None:
    one = Asking(on, b"POST", end=False, length=5, has_length=True, expects_continue=True)
    on.until(lambda: one.service.received.endswith(b"expect: 100-continue\r\n\r\n"))
    one.service.send(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
    on.until(lambda: len(one.answer.informed) == 2)
    assert [(head.status, head.headers) for head in one.answer.informed] == [(103, [(b"link", b"x")]), (100, [])]
    on.call(lambda: one.outgoing.send(b"hello"))
    on.call(lambda: one.outgoing.finish([]))
    one.service.send(OK + b"Content-Length: 0\r\n\r\n")
    one.complete()
    assert one.client.available


def test_interim_responses_without_end(on: Rig) -> None:
    one = Asking(on)
    one.service.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 33)
    lost = one.lost().lost
    assert lost is not None
    assert lost.reason is CloseReason.BAD_RESPONSE


def test_a_response_before_the_request_is_complete(on: Rig) -> None:
    one = Asking(on, b"POST", end=False, length=5, has_length=True)
    one.service.send(b"HTTP/1.1 413 x\r\nContent-Length: 3\r\n\r\nbig")
    assert one.complete().body == b"big"
    assert (one.client.available, one.pool.available, one.pool.gone) == (False, 0, 1)
    assert one.outgoing.send(b"without effect")
    on.call(lambda: one.outgoing.finish([]))
    on.until(lambda: one.service.ended)
    assert one.service.ended == "reset", "half a request does not look complete"


def test_a_response_that_begins_before_the_request_is_complete(on: Rig) -> None:
    one = Asking(on, b"POST", end=False, length=UNKNOWN_LENGTH)
    one.service.send(OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    on.until(lambda: one.answer.body == b"a")
    on.call(lambda: one.outgoing.send(b"hello"))
    on.call(lambda: one.outgoing.finish([]))
    on.until(lambda: one.service.received.endswith(b"5\r\nhello\r\n0\r\n\r\n"))
    one.service.send(b"0\r\n\r\n")
    one.complete()
    assert one.client.available


@pytest.mark.parametrize(
    "response",
    [
        b"\r\n",
        b"SSH-2.0-OpenSSH",
        b"HTTP/2.0 200 OK\r\n\r\n",
        OK + b"X: \0\r\n\r\n",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        OK + b"X: " + b"y" * 64 * 1024,
        OK + b"X: " + b"y" * 64 * 1024 + b"\r\n\r\n",
        b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_what_is_no_response(on: Rig, response: bytes) -> None:
    one = Asking(on)
    one.service.send(response)
    lost = one.lost()
    assert lost.lost is not None
    assert lost.lost.reason is CloseReason.BAD_RESPONSE
    assert not lost.unprocessed
    on.until(lambda: one.service.ended == "reset")
    assert one.pool.gone == 1


def test_trailers_that_are_only_headers_are_left_out(on: Rig) -> None:
    one = Asking(on)
    one.service.send(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\nX: y\r\nSet-Cookie: a\r\n\r\n")
    assert one.complete().trailers == [(b"x", b"y")]


@pytest.mark.parametrize("with_response", [True, False])
@pytest.mark.parametrize("response", [OK + b"Content-Length: 0\r\n\r\n", OK + b"Content-Length: 1\r\n\r\na"])
def test_what_nobody_asked_for_is_never_the_next_response(on: Rig, response: bytes, with_response: bool) -> None:
    one = Asking(on)
    if with_response:
        one.service.send(response + response)
        one.complete()
        assert one.pool.available == 0
    else:
        one.service.send(response)
        one.complete()
        one.service.send(response)
        on.until(lambda: one.pool.gone)
    assert (one.client.available, one.pool.gone) == (False, 1)
    on.until(lambda: one.service.ended)


def test_an_idle_connection_that_ends(on: Rig) -> None:
    for reset in (False, True):
        client, pool, service = on.client()
        assert client.available
        service.close(reset=reset)
        on.until(lambda pool=pool: pool.gone == 1)  # type: ignore[misc]
        assert not client.available


def test_a_request_that_met_the_end_of_its_connection(on: Rig) -> None:
    one = Asking(on)
    on.until(lambda: one.service.received)
    one.service.close()
    lost = one.lost()
    assert not lost.unprocessed, "the external service may have acted on it"


def test_a_request_of_which_nothing_left_was_not_processed(on: Rig) -> None:
    client, pool, service = on.client()
    answer = Answer()

    def ask() -> None:
        # In one turn, before the loop tells the connection that it is gone: the first write is told.
        service.close(reset=True)
        client.request(RequestHead(b"POST", b"/", b"a", Version.HTTP_1_1), answer, end=True)

    on.call(ask)
    on.until(lambda: answer.lost)
    assert answer.unprocessed
    assert pool.gone == 1


def test_a_request_of_which_something_left_may_have_been_processed(on: Rig) -> None:
    client, _, service = on.client()
    service.open = False  # it reads nothing
    answer = Answer()
    head = RequestHead(b"POST", b"/", b"a", Version.HTTP_1_1, length=50_000_000, has_length=True)

    def ask() -> None:
        client.request(head, answer, end=False).send(b"x" * 50_000_000)

    on.call(ask)
    on.turn()
    service.open = True
    service.close(reset=True)
    on.until(lambda: answer.lost)
    assert not answer.unprocessed


def test_a_response_that_came_before_its_request(on: Rig) -> None:
    client, _, _ = on.client()
    answer = Answer()

    def ask() -> None:
        client.request(RequestHead(b"GET", b"/", b"a", Version.HTTP_1_1), answer, end=True)
        client.on_bytes(memoryview(OK + b"Content-Length: 0\r\n\r\n"))

    on.call(ask)
    assert answer.lost is not None
    assert answer.unprocessed


def test_giving_up_a_request_ends_the_connection(on: Rig) -> None:
    one = Asking(on, b"POST", end=False, length=5, has_length=True)
    on.until(lambda: one.service.received)

    def reset() -> None:
        one.outgoing.reset()
        assert one.pool.gone == 0, "nobody is called back from within a call"
        assert not one.client.available

    on.call(reset)
    on.until(lambda: one.pool.gone == 1)
    on.until(lambda: one.service.ended == "reset")
    assert one.answer.lost is None


def test_closing(on: Rig) -> None:
    one = Asking(on)
    on.until(lambda: one.service.received)
    on.call(one.client.close)
    assert one.answer.lost is not None
    idle, pool, service = on.client()
    on.call(idle.close)
    on.call(idle.close)
    assert one.pool.gone == pool.gone == 1
    on.until(lambda: service.ended == "end")


def test_a_head_with_bare_line_feeds_ends_where_it_is_empty(on: Rig) -> None:
    first = Asking(on)
    first.service.send(b"HTTP/1.1 200 OK\nContent-Length: 27\nX: a\n  b\n\nHTTP/1.1 404 x\r\nHost: b\r\n\r\n")
    assert first.complete().body == b"HTTP/1.1 404 x\r\nHost: b\r\n\r\n"
    assert first.answer.head is not None
    assert (first.answer.head.status, first.answer.head.headers) == (200, [(b"x", b"a b")])


@pytest.mark.parametrize(
    "split",
    [
        b"HTTP/1.1 200 OK\r\nX: a\n\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\n\r\nHTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nX: a\r\n\r\nHTTP/1.1 404 x\nContent-Length: 0\n\n",
    ],
)
def test_an_end_that_not_all_would_find_is_none(on: Rig, split: bytes) -> None:
    first = Asking(on)
    first.service.send(split)
    on.until(lambda: first.answer.lost is not None)
    assert first.answer.lost is not None
    assert first.answer.lost.reason is CloseReason.BAD_RESPONSE
