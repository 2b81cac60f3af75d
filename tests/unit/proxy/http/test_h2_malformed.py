"""Requests that are none, or that another version would read in another way: each is the end of its stream alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.errors import BadRequest
from proxy.http.h2.frames import PREFACE
from proxy.http.h2.heads import Malformed, request_head
from proxy.http.message import ResponseHead
from proxy.model import CloseReason
from tests.support.http2_peer import GET, POST, block
from tests.support.http2_sides import RawSides

METHOD, SCHEME, AUTHORITY, PATH = GET


@pytest.fixture
def raw() -> Iterator[RawSides]:
    made = RawSides()
    yield made
    made.bench.close()


MALFORMED = {
    "no method": [SCHEME, AUTHORITY, PATH],
    "no scheme": [METHOD, AUTHORITY, PATH],
    "no path": [METHOD, SCHEME, AUTHORITY],
    "no authority": [METHOD, SCHEME, PATH],
    "method twice": [METHOD, METHOD, SCHEME, AUTHORITY, PATH],
    "authority twice": [*GET, AUTHORITY],
    "status": [*GET, (b":status", b"200")],
    "unknown pseudo header": [*GET, (b":protocol", b"websocket")],
    "pseudo header after a header": [METHOD, SCHEME, AUTHORITY, (b"a", b"b"), PATH],
    "pseudo header after host": [METHOD, SCHEME, (b"host", b"db.example"), AUTHORITY, PATH],
    "pseudo header after te": [METHOD, SCHEME, AUTHORITY, (b"te", b"trailers"), PATH],
    "method with a space": [(b":method", b"GET /admin HTTP/1.1\r\nx: "), SCHEME, AUTHORITY, PATH],
    "empty method": [(b":method", b""), SCHEME, AUTHORITY, PATH],
    "unknown scheme": [METHOD, (b":scheme", b"ftp"), AUTHORITY, PATH],
    "empty path": [METHOD, SCHEME, AUTHORITY, (b":path", b"")],
    "path without a slash": [METHOD, SCHEME, AUTHORITY, (b":path", b"admin")],
    "absolute path": [METHOD, SCHEME, AUTHORITY, (b":path", b"http://other.example/")],
    "star without OPTIONS": [METHOD, SCHEME, AUTHORITY, (b":path", b"*")],
    "path with a fragment": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a#b")],
    "path with a space": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a HTTP/1.1")],
    "path with a line": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a\r\nx: y")],
    "path with a NUL": [METHOD, SCHEME, AUTHORITY, (b":path", b"/a\x00")],
    "path that is not ASCII": [METHOD, SCHEME, AUTHORITY, (b":path", b"/caf\xc3\xa9")],
    "authority with a user": [METHOD, SCHEME, (b":authority", b"a@db.example"), PATH],
    "authority with a path": [METHOD, SCHEME, (b":authority", b"db.example/"), PATH],
    "authority with a line": [METHOD, SCHEME, (b":authority", b"db.example\r\nx: y"), PATH],
    "empty authority": [METHOD, SCHEME, (b":authority", b""), PATH],
    "another host": [*GET, (b"host", b"other.example")],
    "host twice": [*GET, (b"host", b"db.example"), (b"host", b"db.example")],
    "upper case": [*GET, (b"Accept", b"*/*")],
    "empty name": [*GET, (b"", b"a")],
    "name with a space": [*GET, (b"a b", b"c")],
    "name with a colon": [*GET, (b"a:b", b"c")],
    "name with a line": [*GET, (b"a\r\nb", b"c")],
    "name that is not ASCII": [*GET, (b"caf\xc3\xa9", b"c")],
    "transfer-encoding": [*POST, (b"transfer-encoding", b"chunked")],
    "connection": [*GET, (b"connection", b"close")],
    "keep-alive": [*GET, (b"keep-alive", b"1")],
    "proxy-connection": [*GET, (b"proxy-connection", b"close")],
    "upgrade": [*GET, (b"upgrade", b"websocket")],
    "te": [*GET, (b"te", b"gzip")],
    "te with more": [*GET, (b"te", b"trailers, gzip")],
    "value with CR LF": [*GET, (b"a", b"b\r\ntransfer-encoding: chunked")],
    "value with LF": [*GET, (b"a", b"b\nc")],
    "value with CR": [*GET, (b"a", b"b\rc")],
    "value with NUL": [*GET, (b"a", b"b\x00c")],
    "value with DEL": [*GET, (b"a", b"b\x7f")],
    "value with a space before": [*GET, (b"a", b" b")],
    "value with a tab after": [*GET, (b"a", b"b\t")],
    "value of a space": [*GET, (b"a", b" ")],
    "cookie with a line": [*GET, (b"cookie", b"a=b\r\nx: y")],
    "length with a sign": [*POST, (b"content-length", b"+4")],
    "length in hexadecimal": [*POST, (b"content-length", b"0x4")],
    "length of a list": [*POST, (b"content-length", b"4, 4")],
    "length without end": [*POST, (b"content-length", b"1" * 5_000)],
    "empty length": [*POST, (b"content-length", b"")],
    "length twice": [*POST, (b"content-length", b"4"), (b"content-length", b"4")],
    "lengths that differ": [*POST, (b"content-length", b"4"), (b"content-length", b"5")],
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_head(raw: RawSides, name: str) -> None:
    raw.peer.send(*block(MALFORMED[name], 1))
    reset = raw.peer.expect(RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (1, ErrorCodes.PROTOCOL_ERROR)
    ((status, what),) = raw.session.refused
    assert status == 400
    assert what.isprintable()
    assert raw.session.exchanges == []
    raw.still_serves(3)


def test_a_host_that_agrees_in_another_case(raw: RawSides) -> None:
    raw.peer.send(*block([*GET, (b"host", b"DB.example")], 1, "END_STREAM"))
    raw.until(lambda: raw.session.exchanges)
    assert raw.session.exchanges[0].head.authority == b"db.example"


def test_options_of_the_whole_server(raw: RawSides) -> None:
    raw.peer.send(*block([(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")], 1, "END_STREAM"))
    raw.until(lambda: raw.session.exchanges)
    assert raw.session.exchanges[0].head.target == b"*"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b":method", b"CONNECT"), AUTHORITY], 501),
        ([(b":method", b"CONNECT"), SCHEME, AUTHORITY, PATH], 501),
        ([*GET, (b"expect", b"the-unexpected")], 417),
        ([*GET, (b"a", b"b" * 9_000)], 431),
        ([*GET, *[(b"a", b"b")] * 101], 431),
    ],
)
def test_what_is_well_formed_and_refused_is_told_so(
    raw: RawSides, headers: list[tuple[bytes, bytes]], status: int
) -> None:
    raw.peer.send(*block(headers, 1, "END_STREAM"))
    answer = raw.peer.expect(HeadersFrame)
    assert raw.peer.headers(answer) == [(b":status", b"%d" % status)]
    assert "END_STREAM" in answer.flags
    assert [refused[0] for refused in raw.session.refused] == [status]
    assert raw.session.exchanges == []
    raw.still_serves(3)


def test_cookies_in_many_parts_are_one_header(raw: RawSides) -> None:
    raw.peer.send(*block([*GET, *[(b"cookie", b"a=b")] * 300], 1, "END_STREAM"))
    raw.until(lambda: raw.session.exchanges)
    assert len(raw.session.exchanges[0].head.headers) == 1


BODIES: dict[str, tuple[bytes, list[Frame]]] = {
    "more than announced": (b"3", [DataFrame(1, b"four")]),
    "more in a second frame": (b"5", [DataFrame(1, b"four"), DataFrame(1, b"four")]),
    "less than announced": (b"5", [DataFrame(1, b"four", flags=["END_STREAM"])]),
    "none": (b"5", [DataFrame(1, b"", flags=["END_STREAM"])]),
    "less before trailers": (b"5", [DataFrame(1, b"four"), *block([(b"a", b"b")], 1, "END_STREAM")]),
    "something after 0": (b"0", [DataFrame(1, b"four")]),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_what_was_announced(raw: RawSides, name: str) -> None:
    length, frames = BODIES[name]
    raw.peer.send(*block([*POST, (b"content-length", length)], 1), *frames)
    reset = raw.peer.expect(RstStreamFrame)
    assert (reset.stream_id, reset.error_code) == (1, ErrorCodes.PROTOCOL_ERROR)
    (exchange,) = raw.session.exchanges
    assert exchange.lost == (CloseReason.BAD_REQUEST, "Content-Length and the body differ")
    assert len(exchange.body) <= int(length)
    raw.still_serves(3)


def test_a_head_that_announces_a_body_and_ends(raw: RawSides) -> None:
    raw.peer.send(*block([*POST, (b"content-length", b"5")], 1, "END_STREAM"))
    assert raw.peer.expect(RstStreamFrame).error_code == ErrorCodes.PROTOCOL_ERROR


@pytest.mark.parametrize(
    "trailers",
    [
        [(b":path", b"/")],
        [(b"a", b"b\r\nc: d")],
        [(b"content-length", b"4")],
        [(b"host", b"other.example")],
        [(b"transfer-encoding", b"chunked")],
        [(b"A", b"b")],
        [(b"a", b"b" * 9_000)],
        [(b"a", b"b")] * 101,
    ],
)
def test_trailers_that_are_none(raw: RawSides, trailers: list[tuple[bytes, bytes]]) -> None:
    raw.peer.send(*block(POST, 1), DataFrame(1, b"data"), *block(trailers, 1, "END_STREAM"))
    assert raw.peer.expect(RstStreamFrame).error_code == ErrorCodes.PROTOCOL_ERROR
    (exchange,) = raw.session.exchanges
    assert exchange.lost is not None
    assert exchange.lost[0] is CloseReason.BAD_REQUEST
    raw.still_serves(3)


@pytest.mark.parametrize("late", [DataFrame(1, b"more"), *block([(b"a", b"b")], 1, "END_STREAM")])
def test_what_comes_after_the_end_of_a_request_ends_its_stream(raw: RawSides, late: Frame) -> None:
    exchange = raw.request()
    raw.peer.send(late)
    raw.until(lambda: exchange.lost)
    assert raw.peer.expect(RstStreamFrame).error_code == ErrorCodes.STREAM_CLOSED
    raw.still_serves(3)


FAULTS: dict[str, tuple[bytes, ErrorCodes]] = {
    "a frame that is too large": (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", ErrorCodes.FRAME_SIZE_ERROR),
    "DATA of no stream": (b"\x00\x00\x00\x00\x00\x00\x00\x00\x00", ErrorCodes.PROTOCOL_ERROR),
    "HEADERS of no stream": (b"\x00\x00\x00\x01\x05\x00\x00\x00\x00", ErrorCodes.PROTOCOL_ERROR),
    "SETTINGS of a stream": (b"\x00\x00\x00\x04\x00\x00\x00\x00\x01", ErrorCodes.PROTOCOL_ERROR),
    "PING of a stream": (b"\x00\x00\x08\x06\x00\x00\x00\x00\x01" + bytes(8), ErrorCodes.PROTOCOL_ERROR),
    "a short PING": (b"\x00\x00\x07\x06\x00\x00\x00\x00\x00" + bytes(7), ErrorCodes.FRAME_SIZE_ERROR),
    "a long RST_STREAM": (b"\x00\x00\x05\x03\x00\x00\x00\x00\x01" + bytes(5), ErrorCodes.FRAME_SIZE_ERROR),
    "a short WINDOW_UPDATE": (b"\x00\x00\x03\x08\x00\x00\x00\x00\x00" + bytes(3), ErrorCodes.FRAME_SIZE_ERROR),
    "a short PRIORITY": (b"\x00\x00\x04\x02\x00\x00\x00\x00\x01" + bytes(4), ErrorCodes.FRAME_SIZE_ERROR),
    "SETTINGS of a strange size": (b"\x00\x00\x05\x04\x00\x00\x00\x00\x00" + bytes(5), ErrorCodes.FRAME_SIZE_ERROR),
    "SETTINGS acknowledged with content": (
        b"\x00\x00\x06\x04\x01\x00\x00\x00\x00" + bytes(6), ErrorCodes.FRAME_SIZE_ERROR,
    ),
    "a short GOAWAY": (b"\x00\x00\x07\x07\x00\x00\x00\x00\x00" + bytes(7), ErrorCodes.FRAME_SIZE_ERROR),
    "HEADERS without their priority": (b"\x00\x00\x01\x01\x24\x00\x00\x00\x01\x82", ErrorCodes.FRAME_SIZE_ERROR),
    "padding that is too long": (b"\x00\x00\x02\x01\x0c\x00\x00\x00\x01\x02\x82", ErrorCodes.PROTOCOL_ERROR),
    "padding of nothing": (b"\x00\x00\x00\x01\x0c\x00\x00\x00\x01", ErrorCodes.PROTOCOL_ERROR),
    "a stream of the server": (b"\x00\x00\x01\x01\x05\x00\x00\x00\x02\x82", ErrorCodes.PROTOCOL_ERROR),
    "a header that is not in the table": (b"\x00\x00\x01\x01\x05\x00\x00\x00\x01\xfe", ErrorCodes.COMPRESSION_ERROR),
    "DATA on an idle stream": (DataFrame(1, b"x").serialize(), ErrorCodes.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (RstStreamFrame(1).serialize(), ErrorCodes.PROTOCOL_ERROR),
    "WINDOW_UPDATE on an idle stream": (WindowUpdateFrame(1, 1).serialize(), ErrorCodes.PROTOCOL_ERROR),
    "WINDOW_UPDATE of 0": (WindowUpdateFrame(0, 0).serialize(), ErrorCodes.PROTOCOL_ERROR),
    "a window that overflows": (WindowUpdateFrame(0, 2**31 - 1).serialize(), ErrorCodes.FLOW_CONTROL_ERROR),
    "CONTINUATION alone": (ContinuationFrame(1, b"\x82").serialize(), ErrorCodes.PROTOCOL_ERROR),
    "PUSH_PROMISE": (PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"]).serialize(), ErrorCodes.PROTOCOL_ERROR),
    "something within a list of headers": (
        HeadersFrame(1, b"\x82").serialize() + PingFrame().serialize(), ErrorCodes.PROTOCOL_ERROR,
    ),
    "a list of headers that goes on in another stream": (
        HeadersFrame(1, b"\x82").serialize() + ContinuationFrame(3, b"\x82").serialize(), ErrorCodes.PROTOCOL_ERROR,
    ),
    "a window that is too large": (
        SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31}).serialize(), ErrorCodes.FLOW_CONTROL_ERROR,
    ),
    "frames that are too large": (
        SettingsFrame(settings={SettingsFrame.MAX_FRAME_SIZE: 2**24}).serialize(), ErrorCodes.PROTOCOL_ERROR,
    ),
    "push neither on nor off": (
        SettingsFrame(settings={SettingsFrame.ENABLE_PUSH: 2}).serialize(), ErrorCodes.PROTOCOL_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_connection_is_told_why_and_ended(raw: RawSides, name: str) -> None:
    data, code = FAULTS[name]
    raw.peer.send_bytes(data)
    assert raw.last_word().error_code == code
    raw.peer.socket.close()
    raw.until(lambda: raw.session.closed)
    assert raw.session.closed is not None
    assert raw.session.closed[0] is CloseReason.BAD_REQUEST


def test_numbers_of_streams_go_up(raw: RawSides) -> None:
    raw.request(5)
    raw.peer.send(*block(GET, 3, "END_STREAM"))
    assert raw.last_word().error_code == ErrorCodes.PROTOCOL_ERROR
    assert raw.session.exchanges[0].lost is not None


def test_a_stream_that_has_ended_is_not_begun_again(raw: RawSides) -> None:
    exchange = raw.request(1)
    exchange.incoming.respond(ResponseHead(status=204), end=True)
    raw.peer.send(*block(GET, 1, "END_STREAM"))
    assert raw.last_word().error_code in (ErrorCodes.STREAM_CLOSED, ErrorCodes.PROTOCOL_ERROR)


@pytest.mark.parametrize("first", [PingFrame(), SettingsFrame(flags=["ACK"]), *block(GET, 1, "END_STREAM")])
def test_the_first_frame_is_settings(first: Frame) -> None:
    raw = RawSides(greeting=PREFACE + first.serialize())
    assert raw.last_word().error_code == ErrorCodes.PROTOCOL_ERROR
    raw.bench.close()


def test_a_window_of_a_stream_that_overflows_ends_the_stream(raw: RawSides) -> None:
    for stream, increment, code in (
        (1, 2**31 - 1, ErrorCodes.FLOW_CONTROL_ERROR),
        (3, 0, ErrorCodes.PROTOCOL_ERROR),
    ):
        exchange = raw.request(stream)
        raw.peer.send(WindowUpdateFrame(stream, increment))
        assert raw.peer.expect(RstStreamFrame, (stream + 1) // 2).error_code == code
        assert exchange.lost is not None
    raw.still_serves(5)


def test_more_than_the_window_ends_the_connection() -> None:
    raw = RawSides(first_window=20_000, connection_window=70_000)
    raw.request(1, end=False).incoming.pause()
    raw.peer.send(DataFrame(1, bytes(16_000)), DataFrame(1, bytes(4_001)))
    assert raw.last_word().error_code == ErrorCodes.FLOW_CONTROL_ERROR
    raw.bench.close()


def test_unknown_frames_and_settings_are_ignored(raw: RawSides) -> None:
    raw.peer.send_bytes(b"\x00\x00\x04\x2a\xff\x00\x00\x00\x00what" + b"\x00\x00\x04\x2a\xff\x00\x00\x00\x07what")
    raw.peer.send(SettingsFrame(settings={0x2A: 1, 0xFFFF: 2**32 - 1}))
    raw.still_serves(1)
    assert len(raw.server.engine.remote_settings) < 10


def test_a_connection_without_the_preface_is_ended() -> None:
    raw = RawSides(greeting=PREFACE[:-1] + b"!")
    assert raw.last_word().error_code == ErrorCodes.PROTOCOL_ERROR
    raw.bench.close()


HEADER_NAMES = st.sampled_from(
    [
        b":method", b":scheme", b":authority", b":path", b":status", b"host", b"a", b"A", b"te", b"cookie",
        b"content-length", b"connection", b"transfer-encoding", b"", b"x y", b"x:y",
    ]
)  # fmt: skip
HEADER_VALUES = st.sampled_from(
    [b"GET", b"POST", b"https", b"db.example", b"/", b"/a", b"*", b"trailers", b"0", b"5", b"", b" x", b"x\n", b"x\x00"]
)
HEADER_LISTS = st.lists(st.tuples(HEADER_NAMES, HEADER_VALUES), max_size=4)


@settings(deadline=None, max_examples=300)
@given(extra=HEADER_LISTS, left_out=st.sets(st.integers(0, 3)), at=st.integers(0, 4))
def test_what_the_library_refuses_is_refused_here(
    extra: list[tuple[bytes, bytes]], left_out: set[int], at: int
) -> None:
    """Its own checks are off, since they end the whole connection."""
    headers = [header for number, header in enumerate(GET) if number not in left_out]
    headers[at:at] = extra
    try:
        request_head(headers, end=True, longest=8_192)
    except (Malformed, BadRequest):
        return
    library = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    library.receive_data(PREFACE + SettingsFrame().serialize())
    try:
        library.receive_data(b"".join(frame.serialize() for frame in block(headers, 1, "END_STREAM")))
    except ProtocolError as error:
        raise AssertionError(f"{headers}: {error}") from error
