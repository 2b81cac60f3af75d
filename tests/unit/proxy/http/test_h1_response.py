"""Which response heads are taken."""

from __future__ import annotations

import pytest

from proxy.http.errors import BadResponse
from proxy.http.h1.response import read_response
from proxy.http.message import UNKNOWN_LENGTH, ResponseHead, Version


def raw(lines: str) -> bytes:
    """Of a head that is written with ``|`` for the end of a line."""
    return lines.encode("latin-1").replace(b"|", b"\r\n") + b"\r\n\r\n"


def head_of(lines: str) -> ResponseHead:
    return read_response(raw(lines)).head


def test_a_plain_response() -> None:
    received = read_response(raw("HTTP/1.1 200 OK|Server: x \t|Content-Length: 12|Set-Cookie: a|Set-Cookie: b"))
    assert received.head == ResponseHead(
        200,
        [(b"server", b"x"), (b"set-cookie", b"a"), (b"set-cookie", b"b")],
        length=12,
        announced_length=12,
        reason=b"OK",
    )
    assert not received.chunked
    assert not received.close


@pytest.mark.parametrize(
    ("lines", "status", "reason"),
    [
        ("HTTP/1.1 200", 200, b""),
        ("HTTP/1.1 200 ", 200, b""),
        ("HTTP/1.1 404 Nicht gefunden\xe9", 404, b"Nicht gefunden\xe9"),
        ("HTTP/1.1 999 x", 999, b"x"),
    ],
)
def test_status_lines(lines: str, status: int, reason: bytes) -> None:
    head = head_of(lines)
    assert (head.status, head.reason) == (status, reason)


@pytest.mark.parametrize(
    ("lines", "length", "announced", "chunked"),
    [
        ("HTTP/1.1 200 OK", UNKNOWN_LENGTH, None, False),
        ("HTTP/1.1 200 OK|Content-Length: 0", 0, 0, False),
        ("HTTP/1.1 200 OK|Transfer-Encoding: Chunked", UNKNOWN_LENGTH, None, True),
        ("HTTP/1.1 204 x", 0, None, False),
        ("HTTP/1.1 204 x|Transfer-Encoding: chunked", 0, None, False),
        ("HTTP/1.1 204 x|Content-Length: 5", 0, 5, False),
        ("HTTP/1.1 304 x|Content-Length: 5", 0, 5, False),
        ("HTTP/1.1 103 x|Link: y", 0, None, False),
    ],
)
def test_how_long_a_body_is(lines: str, length: int, announced: int | None, chunked: bool) -> None:
    received = read_response(raw(lines))
    assert (received.head.length, received.head.announced_length, received.chunked) == (length, announced, chunked)


@pytest.mark.parametrize(
    ("lines", "close"),
    [
        ("HTTP/1.1 204 x", False),
        ("HTTP/1.1 204 x|Connection: Keep-Alive, Close", True),
        ("HTTP/1.0 204 x", True),
        ("HTTP/1.0 204 x|Connection: keep-alive", True),
    ],
)
def test_whether_the_connection_goes_on(lines: str, close: bool) -> None:
    assert read_response(raw(lines)).close is close


def test_an_old_version() -> None:
    assert head_of("HTTP/1.0 200 OK|Content-Length: 1").version is Version.HTTP_1_0


def test_what_is_for_the_connection_alone_is_taken_out() -> None:
    head = head_of("HTTP/1.1 200 OK|Connection: x-private, upgrade|X-Private: 1|Upgrade: h2c|Keep-Alive: 5|TE: x|X: 2")
    assert (head.headers, head.upgrade) == ([(b"x", b"2")], b"")


@pytest.mark.parametrize(
    ("lines", "headers"),
    [
        ("HTTP/1.1 200 OK|X: 1| 2", [(b"x", b"1 2")]),
        ("HTTP/1.1 200 OK|X: 1|\t\t2 |  3|Y: 4", [(b"x", b"1 2  3"), (b"y", b"4")]),
        ("HTTP/1.1 200 OK|X:| 1|Y: |\t2", [(b"x", b"1"), (b"y", b"2")]),
        ("HTTP/1.1 200 OK|X: 1| Content-Length: 5", [(b"x", b"1 Content-Length: 5")]),
    ],
)
def test_folded_lines_are_one(lines: str, headers: list[tuple[bytes, bytes]]) -> None:
    assert head_of(lines).headers == headers
    assert read_response(raw(lines).replace(b"\r\n", b"\n")).head.headers == headers


@pytest.mark.parametrize(
    "lines",
    [
        "HTTP/1.1 200 OK",
        "HTTP/1.0 200 OK|Content-Length: 5|X: 1",
        "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Set-Cookie: a|Set-Cookie: b",
        "HTTP/1.1 101 Switching Protocols|Connection: upgrade|Upgrade: websocket",
    ],
)
def test_lines_may_end_with_lf_if_all_of_them_do(lines: str) -> None:
    assert read_response(raw(lines).replace(b"\r\n", b"\n")) == read_response(raw(lines))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\nX: 1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n\n",
        b"HTTP/1.1 200 OK\r\nX: 1\n\n",
        b"HTTP/1.1 200 OK\nX: 1\r\nY: 2\n\n",
        b"HTTP/1.1 200 OK\nX: 1\rY: 2\n\n",
        b"HTTP/1.1 200 OK\r\n\n",
        b"HTTP/1.1 200 OK\n\r\n",
        b"HTTP/1.1 200 OK\nX: \x00\n\n",
        b"HTTP/1.1 200 OK\nX : 1\n\n",
        b"\n\n",
    ],
)
def test_whatever_lines_end_with_nobody_may_read_them_differently(head: bytes) -> None:
    with pytest.raises(BadResponse) as refused:
        read_response(head)
    assert str(refused.value).isprintable()


def test_a_long_fold_takes_no_time() -> None:
    spaces = " " * 60_000
    assert head_of(f"HTTP/1.1 200 OK|X: 1{spaces}2|{spaces}3").headers == [(b"x", f"1{spaces}2 3".encode())]


def test_a_switch_of_protocols() -> None:
    head = head_of("HTTP/1.1 101 Switching Protocols|Connection: upgrade|Upgrade: websocket|Sec-WebSocket-Accept: x")
    assert (head.upgrade, head.length, head.headers) == (b"websocket", 0, [(b"sec-websocket-accept", b"x")])
    assert head_of("HTTP/1.1 101 x").upgrade == b""


OK = "HTTP/1.1 200 OK"


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "HTTP/1.1  200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1\t200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200 O\x00K",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "|HTTP/1.1 200 OK",
        "SSH-2.0-OpenSSH_9",
        f"{OK}|X : 1",
        f"{OK}| X: 1",
        f"{OK}|X: 1| |Y: 2",
        f"{OK}|X: 1|\t",
        f"{OK}|X| : 1",
        f"{OK}|Content-Length: 5| 0",
        f"{OK}|Content-Length:| 5",
        f"{OK}|Transfer-Encoding: |\tchunked",
        f"{OK}|Connection: close,| content-length",
        f"{OK}|X",
        f"{OK}|X: 1\nY: 2",
        f"{OK}|X: 1\rY: 2",
        f"{OK}|X: \x00",
        f"{OK}|X: \x1b",
        f"{OK}|Content-Length: 5|Content-Length: 5",
        f"{OK}|Content-Length: 5, 5",
        f"{OK}|Content-Length: -1",
        f"{OK}|Content-Length: 1.0",
        f"{OK}|Content-Length: {10**18}",
        f"{OK}|Content-Length: 5|Transfer-Encoding: chunked",
        f"{OK}|Transfer-Encoding: chunked|Content-Length: 5",
        f"{OK}|Transfer-Encoding: gzip, chunked",
        f"{OK}|Transfer-Encoding: gzip",
        f"{OK}|Transfer-Encoding: chunked, chunked",
        f"{OK}|Transfer-Encoding: chunked|Transfer-Encoding: chunked",
        f"{OK}|Transfer-Encoding: identity",
        f"{OK}|Connection: content-length|Content-Length: 5",
        "HTTP/1.0 200 OK|Transfer-Encoding: chunked",
        OK + "|X: 1" * 101,
    ],
)
def test_what_is_refused(lines: str) -> None:
    with pytest.raises(BadResponse) as refused:
        read_response(raw(lines))
    assert str(refused.value).isprintable()
