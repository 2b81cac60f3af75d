"""Which request heads are taken, and what the client of the others is told."""

from __future__ import annotations

import pytest

from proxy.http.errors import BadRequest, BadResponse
from proxy.http.h1.fields import trailers_in
from proxy.http.h1.request import read_request
from proxy.http.h1.response import read_response
from proxy.http.message import UNKNOWN_LENGTH, RequestHead, Version


def head_of(lines: str | bytes) -> RequestHead:
    return read_request(raw(lines)).head


def raw(lines: str | bytes) -> bytes:
    """Of a head that is written with ``|`` for the end of a line."""
    data = lines.encode("latin-1") if isinstance(lines, str) else lines
    return data.replace(b"|", b"\r\n") + b"\r\n\r\n"


def test_a_plain_request() -> None:
    received = read_request(
        raw("GET /a/b?c=d HTTP/1.1|Host: db.example:8080|User-Agent: curl/8|X-Two:  a b \t |X-Two: c")
    )
    assert received.head == RequestHead(
        b"GET",
        b"/a/b?c=d",
        b"db.example:8080",
        Version.HTTP_1_1,
        [(b"user-agent", b"curl/8"), (b"x-two", b"a b"), (b"x-two", b"c")],
    )
    assert not received.close


@pytest.mark.parametrize(
    ("lines", "length", "said"),
    [
        ("POST / HTTP/1.1|Host: a|Content-Length: 5", 5, True),
        ("POST / HTTP/1.1|Host: a|Content-Length: 0", 0, True),
        ("POST / HTTP/1.1|Host: a|content-length: 007", 7, True),
        ("POST / HTTP/1.1|Host: a", 0, False),
        ("POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked", UNKNOWN_LENGTH, False),
        ("POST / HTTP/1.1|Host: a|Transfer-Encoding: CHUNKED", UNKNOWN_LENGTH, False),
        ("GET / HTTP/1.1|Host: a|Content-Length: 5", 5, True),
    ],
)
def test_how_long_a_body_is(lines: str, length: int, said: bool) -> None:
    head = head_of(lines)
    assert (head.length, head.has_length, head.headers) == (length, said, [])


@pytest.mark.parametrize(
    ("target", "host", "taken"),
    [
        ("/", "a", b"/"),
        ("//x//y", "a", b"//x//y"),
        ("/%2e%2e/\\x{}|".removesuffix("|"), "a", b"/%2e%2e/\\x{}"),
        ("http://a/x?y", "a", b"/x?y"),
        ("HTTPS://A:1/x", "a:1", b"/x"),
        ("http://a", "a", b"/"),
        ("http://a?q", "a", b"/?q"),
        ("http://[::1]:80/", "[::1]:80", b"/"),
    ],
)
def test_the_target_is_a_path(target: str, host: str, taken: bytes) -> None:
    head = head_of(f"GET {target} HTTP/1.1|Host: {host}")
    assert (head.target, head.authority) == (taken, host.encode())


@pytest.mark.parametrize("target", ["*", "http://a"])
def test_options_of_the_whole_server(target: str) -> None:
    assert head_of(f"OPTIONS {target} HTTP/1.1|Host: a").target == b"*"


def test_what_is_for_the_connection_alone_is_taken_out() -> None:
    received = read_request(
        raw(
            "GET / HTTP/1.1|Host: a|Connection: close, X-Private,, TE|connection: Keep-Alive|X-Private: 1|X-Public: 2"
            "|Keep-Alive: timeout=5|Proxy-Connection: keep-alive|TE: gzip, trailers|Upgrade: websocket"
        )
    )
    assert received.close
    assert received.head.headers == [(b"x-public", b"2")]
    assert received.head.trailers_wanted
    assert received.head.upgrade == b"", "Connection does not name it"


def test_an_upgrade_that_connection_names() -> None:
    head = head_of("GET /chat HTTP/1.1|Host: a|Connection: Upgrade|Upgrade: WebSocket|Sec-WebSocket-Key: x")
    assert head.upgrade == b"WebSocket"
    assert head.headers == [(b"sec-websocket-key", b"x")]


def test_http2_is_not_upgraded_to() -> None:
    head = head_of(
        "GET / HTTP/1.1|Host: a|Connection: Upgrade, HTTP2-Settings|Upgrade: websocket, H2C|HTTP2-Settings: AAMAAABk"
    )
    assert (head.upgrade, head.headers) == (b"", [])


def test_a_client_that_waits_to_be_told_to_go_on() -> None:
    head = head_of("POST / HTTP/1.1|Host: a|Content-Length: 5|Expect: 100-Continue")
    assert head.expects_continue
    assert head.headers == []
    assert not head_of("POST / HTTP/1.1|Host: a|Expect: 100-continue").expects_continue, "it has no body to wait with"


def test_bytes_that_are_no_ascii_are_values() -> None:
    assert head_of("GET / HTTP/1.1|Host: a|X: caf\xe9\t!").headers == [(b"x", b"caf\xe9\t!")]


def test_as_many_lines_as_there_may_be() -> None:
    lines = "|".join(f"X-{number}: {number}" for number in range(99))
    assert len(head_of(f"GET / HTTP/1.1|Host: a|{lines}").headers) == 99


CONTROLS = [chr(code) for code in (*range(32), 127) if chr(code) != "\t"]


@pytest.mark.parametrize("control", CONTROLS)
def test_no_control_character_gets_through(control: str) -> None:
    for lines in (f"GE{control}T /x HTTP/1.1|Host: a", f"GET /{control}x HTTP/1.1|Host: a"):
        with pytest.raises(BadRequest):
            read_request(raw(lines))
    for line in (f"X{control}: y", f"X: y{control}", f"X: {control}y", f"X: y{control}y"):
        with pytest.raises(BadRequest):
            read_request(raw(f"GET /x HTTP/1.1|Host: a|{line}"))
        with pytest.raises(BadResponse):
            read_response(raw(f"HTTP/1.1 200 OK|{line}"))
        with pytest.raises(ValueError, match=r"."):
            trailers_in(raw(line))
    with pytest.raises(BadResponse):
        read_response(raw(f"HTTP/1.1 200 O{control}K"))


LINE = "GET / HTTP/1.1|Host: a"
REFUSED = [
    # the request line
    (400, "GET  / HTTP/1.1|Host: a"),
    (400, "GET /  HTTP/1.1|Host: a"),
    (400, " GET / HTTP/1.1|Host: a"),
    (400, "GET / HTTP/1.1 |Host: a"),
    (400, "GET\t/ HTTP/1.1|Host: a"),
    (400, "GET / HTTP/1.1\t|Host: a"),
    (400, "get / HTTP/1.1|Host: a"),
    (400, "GET /a b HTTP/1.1|Host: a"),
    (400, "GET /\xe9 HTTP/1.1|Host: a"),
    (400, "GET /\x7f HTTP/1.1|Host: a"),
    (400, "GET /\x00 HTTP/1.1|Host: a"),
    (400, "GET /|Host: a"),
    (400, "GET|Host: a"),
    (400, "|GET / HTTP/1.1|Host: a"),
    (400, "||GET / HTTP/1.1|Host: a"),
    (400, "GET / http/1.1|Host: a"),
    (400, "GET / ICE/1.0|Host: a"),
    (400, "GET / HTTP/1.1\n|Host: a"),
    (400, "GET / HTTP/1.1, HTTP/1.1|Host: a"),
    (400, ""),
    (505, "GET / HTTP/2.0|Host: a"),
    (505, "PRI * HTTP/2.0"),
    (505, "GET / HTTP/1.2|Host: a"),
    (505, "GET / HTTP/0.9|Host: a"),
    (505, "GET / HTTP/1.10|Host: a"),
    (505, "GET / HTTP/11|Host: a"),
    (426, "GET / HTTP/1.0|Host: a"),
    (426, "GET / HTTP/1.0|Host: a|Transfer-Encoding: chunked"),
    # the method
    (501, "CONNECT a:443 HTTP/1.1|Host: a:443"),
    (501, "BREW / HTTP/1.1|Host: a"),
    # the target
    (400, "GET /#part HTTP/1.1|Host: a"),
    (400, "GET http://a/#part HTTP/1.1|Host: a"),
    (400, "GET * HTTP/1.1|Host: a"),
    (400, "GET a HTTP/1.1|Host: a"),
    (400, "GET a:443 HTTP/1.1|Host: a:443"),
    (400, "GET ftp://a/ HTTP/1.1|Host: a"),
    (400, "GET http:/a HTTP/1.1|Host: a"),
    (400, "GET http:///x HTTP/1.1|Host: a"),
    (400, "GET http://b/ HTTP/1.1|Host: a"),
    (400, "GET http://a:80/ HTTP/1.1|Host: a"),
    (400, "GET http://u@a/ HTTP/1.1|Host: a"),
    # Host
    (400, "GET / HTTP/1.1"),
    (400, "GET / HTTP/1.1|Host: a|Host: a"),
    (400, "GET / HTTP/1.1|Host: a|host:"),
    (400, "GET / HTTP/1.1|Host:"),
    (400, "GET / HTTP/1.1|Host: u@a"),
    (400, "GET / HTTP/1.1|Host: a b"),
    (400, "GET / HTTP/1.1|Host: a, b"),
    (400, "GET / HTTP/1.1|Host: a/b"),
    (400, "GET / HTTP/1.1|Host: a:b"),
    (400, "GET / HTTP/1.1|Host: http://a"),
    # names and values
    (400, f"{LINE}|X : 1"),
    (400, f"{LINE}| X: 1"),
    (400, f"{LINE}|\tX: 1"),
    (400, f"{LINE}|X\t: 1"),
    (400, f"{LINE}|X: 1| 2"),
    (400, f"{LINE}|X: 1|\t2"),
    (400, f"{LINE}|X"),
    (400, f"{LINE}|: 1"),
    (400, f"{LINE}|X(: 1"),
    (400, f"{LINE}|X\xe9: 1"),
    (400, f"{LINE}|X\x00: 1"),
    (400, f"{LINE}|X: 1\x00"),
    (400, f"{LINE}|X: 1\x0b"),
    (400, f"{LINE}|X: 1\x7f"),
    (400, f"{LINE}|X: 1\x1b[0m"),
    (400, f"{LINE}|X: 1\rY: 2"),
    (400, f"{LINE}|X: 1\nY: 2"),
    (400, f"{LINE}|X: 1\n\n"),
    (400, f"{LINE}|X: 1\r\r|Y: 2"),
    # how long the body is
    (400, f"{LINE}|Content-Length: 5|Transfer-Encoding: chunked"),
    (400, f"{LINE}|Transfer-Encoding: chunked|Content-Length: 5"),
    (501, f"{LINE}|Transfer-Encoding: gzip|Content-Length: 5"),
    (400, f"{LINE}|Content-Length: 5|Content-Length: 5"),
    (400, f"{LINE}|Content-Length: 5|Content-Length: 6"),
    (400, f"{LINE}|Content-Length: 5, 5"),
    (400, f"{LINE}|Content-Length: +5"),
    (400, f"{LINE}|Content-Length: -5"),
    (400, f"{LINE}|Content-Length: 0x5"),
    (400, f"{LINE}|Content-Length: 5 5"),
    (400, f"{LINE}|Content-Length: 5;"),
    (400, f"{LINE}|Content-Length: 1_0"),
    (400, f"{LINE}|Content-Length: \xb2"),
    (400, f"{LINE}|Content-Length:"),
    (400, f"{LINE}|Content-Length: {2**64}"),
    (400, f"{LINE}|Content-Length: {10**18}"),
    (501, f"{LINE}|Transfer-Encoding: gzip"),
    (501, f"{LINE}|Transfer-Encoding: gzip, chunked"),
    (400, f"{LINE}|Transfer-Encoding: chunked, chunked"),
    (400, f"{LINE}|Transfer-Encoding: chunked|Transfer-Encoding: chunked"),
    (501, f"{LINE}|Transfer-Encoding: gzip|Transfer-Encoding: chunked"),
    (400, f"{LINE}|Transfer-Encoding: chunked, gzip"),
    (501, f"{LINE}|Transfer-Encoding: identity"),
    (501, f"{LINE}|Transfer-Encoding: xchunked"),
    (501, f"{LINE}|Transfer-Encoding: chunked;q=1"),
    (501, f'{LINE}|Transfer-Encoding: "chunked"'),
    (400, f"{LINE}|Transfer-Encoding : chunked"),
    (400, f"{LINE}|Transfer-Encoding: \x0bchunked"),
    (400, f"{LINE}|Transfer-Encoding\x00: chunked"),
    # what else is refused
    (417, f"{LINE}|Expect: 200-ok"),
    (417, f"{LINE}|Expect: 100-continue|Expect: 100-continue"),
    (400, f"{LINE}|Connection: Host"),
    (400, f"{LINE}|Connection: content-length"),
    (400, f"{LINE}|Connection: close, Transfer-Encoding"),
    (400, f"{LINE}|Connection: X-Forwarded-Client-Cert"),
    (400, f"{LINE}|Connection: Authorization"),
    (400, f"{LINE}|Connection: x y"),
    (400, f"{LINE}|Connection: \xe9"),
    (431, LINE + "|X: 1" * 100),
    (431, LINE + "|X:" * 100),
]


@pytest.mark.parametrize(("status", "lines"), REFUSED)
def test_what_is_refused(status: int, lines: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read_request(raw(lines))
    assert refused.value.status == status, refused.value
    assert str(refused.value).isprintable()
