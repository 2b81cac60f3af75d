"""Heads that are written say what they should, and are read back as what they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.h1.request import read_request
from proxy.http.h1.response import read_response
from proxy.http.h1.text import last_chunk, refusal_text, request_text, response_text
from proxy.http.message import UNKNOWN_LENGTH, Headers, RequestHead, ResponseHead, Version


def request(**fields: object) -> RequestHead:
    values: dict[str, object] = {"method": b"POST", "target": b"/", "authority": b"a", "version": Version.HTTP_1_1}
    return RequestHead(**(values | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("head", "end", "lines"),
    [
        (request(), True, []),
        (request(has_length=True), True, [b"content-length: 0"]),
        (request(length=5, has_length=True), False, [b"content-length: 5"]),
        (request(length=UNKNOWN_LENGTH), False, [b"transfer-encoding: chunked"]),
        (request(length=UNKNOWN_LENGTH), True, [b"content-length: 0"]),
        (request(length=5, expects_continue=True), False, [b"content-length: 5", b"expect: 100-continue"]),
        (request(length=5, expects_continue=True), True, [b"content-length: 0"]),
        (request(trailers_wanted=True), True, [b"te: trailers", b"connection: te"]),
        (request(upgrade=b"websocket"), True, [b"upgrade: websocket", b"connection: upgrade"]),
    ],
)
def test_what_a_request_says_of_itself(head: RequestHead, end: bool, lines: list[bytes]) -> None:
    assert request_text(head, end=end) == b"\r\n".join([b"POST / HTTP/1.1", b"host: a", *lines, b"", b""])


def test_a_response() -> None:
    head = ResponseHead(200, [(b"a", b"b"), (b"a", b"")])
    assert response_text(head, b"", close=False) == b"HTTP/1.1 200 OK\r\na: b\r\na: \r\n\r\n"
    closing = response_text(ResponseHead(299, reason=b"Fine"), b"content-length: 0\r\n", close=True)
    assert closing == b"HTTP/1.1 299 Fine\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    switched = response_text(ResponseHead(101, upgrade=b"websocket"), b"", close=True)
    assert switched == b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


def test_framing_is_said_once_whatever_the_headers_say() -> None:
    headers: Headers = [
        (name, b"x") for name in (b"content-length", b"transfer-encoding", b"connection", b"host", b"te", b"upgrade")
    ]
    assert request_text(request(headers=headers), end=True) == b"POST / HTTP/1.1\r\nhost: a\r\n\r\n"
    assert response_text(ResponseHead(204, headers), b"", close=False) == b"HTTP/1.1 204 No Content\r\n\r\n"
    assert last_chunk(headers) == b"0\r\n\r\n"


@pytest.mark.parametrize("bad", [b"1\r\nX: 2", b"1\n2", b"1\r2", b"1\0"])
def test_nothing_begins_a_line_of_its_own(bad: bytes) -> None:
    for head in (
        request(target=b"/" + bad),
        request(method=bad),
        request(authority=bad),
        request(upgrade=bad),
        request(headers=[(b"x", bad)]),
        request(headers=[(bad, b"x")]),
    ):
        with pytest.raises(ValueError, match="line break"):
            request_text(head, end=True)
    for response in (ResponseHead(200, [(b"x", bad)]), ResponseHead(200, reason=bad), ResponseHead(101, upgrade=bad)):
        with pytest.raises(ValueError, match="line break"):
            response_text(response, b"", close=False)
    with pytest.raises(ValueError, match="line break"):
        last_chunk([(b"x", bad)])


def test_a_refusal_is_complete_and_says_what_is_wrong() -> None:
    head, _, body = refusal_text(400, "no Host header").partition(b"\r\n\r\n")
    received = read_response(head + b"\r\n\r\n")
    assert (received.head.status, received.head.length, received.close) == (400, len(body), True)
    assert body == b"no Host header\n"
    assert {name for name, _ in received.head.headers} == {b"content-type", b"date", b"server"}
    assert b"\r\nupgrade: HTTP/1.1\r\n" in refusal_text(426, "x"), "RFC 9110 section 15.5.22"


TOKENS = st.text(st.sampled_from("abcxyz019-_.!~"), min_size=1, max_size=12).map(lambda text: b"x" + text.encode())
VALUES = st.text(st.sampled_from('aZ09 \t,;="/\xe9\xff'), max_size=20).map(lambda text: text.strip().encode("latin-1"))
HEADERS = st.lists(st.tuples(TOKENS, VALUES), max_size=8)


@given(
    st.builds(
        RequestHead,
        method=st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"M-SEARCH"]),
        target=st.text(st.sampled_from("a/?%&=;.2e\\|{}\"'"), max_size=20).map(lambda text: b"/" + text.encode()),
        authority=st.sampled_from([b"a", b"a.b:8080", b"[::1]:1", b"A_b"]),
        version=st.just(Version.HTTP_1_1),
        headers=HEADERS,
        length=st.sampled_from([0, 1, 10**17, UNKNOWN_LENGTH]),
        upgrade=st.sampled_from([b"", b"websocket", b"Foo/1, bar"]),
        trailers_wanted=st.booleans(),
    )
)
def test_a_request_is_read_back(head: RequestHead) -> None:
    head.has_length = head.length > 0
    again = read_request(request_text(head, end=head.length == 0))
    assert again.head == head
    assert not again.close


@given(
    st.builds(
        ResponseHead,
        status=st.sampled_from([200, 206, 404, 500, 599]),
        headers=HEADERS,
        length=st.sampled_from([0, 1, 10**17]),
        reason=st.sampled_from([b"OK", b"Not so good", b"\xe9"]),
    ),
    st.booleans(),
)
def test_a_response_is_read_back(head: ResponseHead, close: bool) -> None:
    head.announced_length = head.length
    again = read_response(response_text(head, b"content-length: %d\r\n" % head.length, close=close))
    assert again.head == head
    assert (again.chunked, again.close) == (False, close)
