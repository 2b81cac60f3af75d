"""HTTP/2 towards the external service: requests, answers and ends, against the library as the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from h2.events import DataReceived, RequestReceived, SettingsAcknowledged, StreamEnded, StreamReset, TrailersReceived
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PushPromiseFrame, RstStreamFrame, SettingsFrame

from proxy.http.h2.client import H2Client, H2Request
from proxy.http.message import UNKNOWN_LENGTH, RequestHead, Version
from proxy.model import CloseReason
from tests.support.http2_peer import OK, Peer, RawPeer, block
from tests.support.http_sides import Answer, Bench, Pool


def head(method: bytes = b"GET", **fields: object) -> RequestHead:
    return RequestHead(method=method, target=b"/a?b", authority=b"db.example", version=Version.HTTP_1_1, **fields)  # type: ignore[arg-type]


class Sides:
    """A connection to an external service, and that one."""

    def __init__(self, **options: int) -> None:
        self.bench = Bench()
        self.pool = Pool()
        self.wire, connected = self.bench.pair()
        self.client = H2Client(self.wire, self.pool, **options)
        self.peer = Peer(self.bench, connected, client=False)
        self.raw = RawPeer(self.bench, connected, client=False)
        self.client.start()

    def request(self, one: RequestHead, *, end: bool = True) -> tuple[H2Request, Answer]:
        answer = Answer()
        return self.client.request(one, answer, end=end), answer


@pytest.fixture
def sides() -> Iterator[Sides]:
    made = Sides()
    made.peer.start()
    yield made
    made.bench.close()


@pytest.fixture
def raw() -> Iterator[Sides]:
    """The external service sends frames made by hand."""
    made = Sides()
    made.raw.start()
    yield made
    made.bench.close()


def test_a_request_as_it_is_written(sides: Sides) -> None:
    sides.request(head(headers=[(b"accept", b"*/*")], trailers_wanted=True))
    heard = sides.peer.expect(RequestReceived)
    assert heard.headers == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"db.example"),
        (b":path", b"/a?b"),
        (b"accept", b"*/*"),
        (b"te", b"trailers"),
    ]
    sides.peer.expect(StreamEnded)


def test_a_body_of_known_length_and_one_of_unknown(sides: Sides) -> None:
    known, _ = sides.request(head(b"POST", length=4, has_length=True), end=False)
    unknown, _ = sides.request(head(b"POST", length=UNKNOWN_LENGTH), end=False)
    assert known.send(b"data")
    assert unknown.send(b"more")
    unknown.finish([(b"checksum", b"1")])
    known.finish([])
    sides.peer.expect(StreamEnded, 2)
    assert (sides.peer.body(1), sides.peer.body(3)) == (b"data", b"more")
    assert dict(sides.peer.of(RequestReceived)[0].headers or [])[b"content-length"] == b"4"
    assert sides.peer.expect(TrailersReceived).headers == [(b"checksum", b"1")]
    assert len(sides.peer.of(DataReceived)) == 2


def test_an_answer_with_a_body_and_trailers(sides: Sides) -> None:
    _, answer = sides.request(head())
    sides.peer.expect(RequestReceived)
    sides.peer.protocol.send_headers(1, [(b":status", b"103"), (b"link", b"</a>")])
    sides.peer.protocol.send_headers(1, [*OK, (b"server", b"db"), (b"content-length", b"5")])
    sides.peer.protocol.send_data(1, b"hello")
    sides.peer.protocol.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    sides.peer.flush()
    sides.bench.until(lambda: answer.over)
    assert answer.head is not None
    assert [one.status for one in answer.informed] == [103]
    assert (answer.head.status, answer.head.headers, answer.head.length) == (200, [(b"server", b"db")], 5)
    assert (answer.head.announced_length, answer.head.version) == (5, Version.HTTP_2)
    assert answer.body == b"hello"
    assert answer.trailers == [(b"grpc-status", b"0")]
    assert sides.client.open_requests == 0
    assert sides.pool.available == 1


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", b"200"), (b"GET", b"304")])
def test_an_answer_without_a_body_has_a_length_all_the_same(sides: Sides, method: bytes, status: bytes) -> None:
    _, answer = sides.request(head(method))
    sides.peer.expect(RequestReceived)
    sides.peer.protocol.send_headers(1, [(b":status", status), (b"content-length", b"1000")])
    sides.peer.protocol.end_stream(1)
    sides.peer.flush()
    sides.bench.until(lambda: answer.over)
    assert answer.head is not None
    assert (answer.head.length, answer.head.announced_length) == (0, 1_000)


def test_an_answer_before_the_request_is_complete_ends_both(sides: Sides) -> None:
    request, answer = sides.request(head(b"POST", length=UNKNOWN_LENGTH), end=False)
    sides.peer.expect(RequestReceived)
    sides.peer.protocol.send_headers(1, [(b":status", b"403")], end_stream=True)
    sides.peer.flush()
    sides.bench.until(lambda: answer.over)
    assert request.send(b"nobody listens")
    request.finish([])
    assert sides.peer.expect(StreamReset).error_code == ErrorCodes.CANCEL
    assert sides.client.open_requests == 0


def test_taking_a_request_back(sides: Sides) -> None:
    request, answer = sides.request(head())
    sides.peer.expect(RequestReceived)
    request.reset()
    request.reset()
    assert sides.client.open_requests == 0
    sides.peer.protocol.send_headers(1, OK)
    sides.peer.protocol.send_data(1, b"late")
    sides.peer.flush()
    assert sides.peer.expect(StreamReset).error_code == ErrorCodes.CANCEL
    sides.peer.settle()
    assert (answer.head, answer.lost) == (None, None)
    assert sides.pool.available == 1
    assert sides.client.available


@pytest.mark.parametrize(
    ("code", "unprocessed"), [(ErrorCodes.REFUSED_STREAM, True), (ErrorCodes.INTERNAL_ERROR, False)]
)
def test_a_request_that_is_refused_was_not_acted_upon(sides: Sides, code: ErrorCodes, unprocessed: bool) -> None:
    _, answer = sides.request(head())
    sides.peer.expect(RequestReceived)
    sides.peer.protocol.reset_stream(1, code)
    sides.peer.flush()
    sides.bench.until(lambda: answer.lost)
    assert answer.lost is not None
    assert (answer.lost[0].reason, answer.lost[1]) == (CloseReason.UPSTREAM_RESET, unprocessed)
    assert code.name in str(answer.lost[0])


def test_no_more_requests_at_a_time_than_the_service_wants(sides: Sides) -> None:
    sides.peer.protocol.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 1})
    sides.peer.flush()
    sides.peer.expect(SettingsAcknowledged, 2)
    sides.request(head())
    with pytest.raises(AssertionError):
        sides.request(head())
    sides.peer.protocol.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
    sides.peer.flush()
    sides.bench.until(lambda: sides.pool.available)
    assert sides.client.available
    _, answer = sides.request(head())
    sides.peer.expect(RequestReceived, 2)
    sides.peer.protocol.send_headers(3, OK, end_stream=True)
    sides.peer.flush()
    sides.bench.until(lambda: answer.over)
    assert sides.pool.available == 2


def test_a_service_that_goes_away_ends_what_it_began(raw: Sides) -> None:
    answers = [raw.request(head())[1] for _ in range(3)]
    raw.raw.expect(HeadersFrame, 3)
    raw.raw.send(GoAwayFrame(last_stream_id=3))
    raw.bench.until(lambda: raw.pool.gone)
    assert answers[2].lost is not None
    assert answers[2].lost[1], "it was not processed"
    assert not raw.client.available
    raw.raw.send(*block(OK, 1, "END_STREAM"), *block(OK, 3, "END_STREAM"))
    raw.bench.until(lambda: answers[0].over and answers[1].over)
    raw.raw.expect_end()
    assert raw.pool.gone == 1


@pytest.mark.parametrize("cut", [False, True])
def test_the_end_of_the_connection_loses_what_is_open(raw: Sides, cut: bool) -> None:
    _, answer = raw.request(head())
    raw.raw.expect(HeadersFrame)
    if cut:
        raw.raw.send(*block(OK, 1), DataFrame(1, b"half"))
        raw.bench.until(lambda: answer.body)
    raw.raw.socket.close()
    raw.bench.until(lambda: answer.lost)
    assert answer.lost is not None
    assert not answer.lost[1]
    assert raw.pool.gone == 1
    assert raw.client.open_requests == 0


def test_pushes_are_refused(raw: Sides) -> None:
    _, answer = raw.request(head())
    assert raw.raw.expect(SettingsFrame).settings[SettingsFrame.ENABLE_PUSH] == 0
    push = PushPromiseFrame(1, 2, block(OK, 1)[0].data, flags=["END_HEADERS"])  # type: ignore[attr-defined]
    raw.raw.send(push)
    assert raw.raw.expect(GoAwayFrame).error_code == ErrorCodes.PROTOCOL_ERROR
    assert answer.lost is not None
    assert answer.lost[0].reason is CloseReason.BAD_RESPONSE


@pytest.mark.parametrize(
    ("headers", "frames"),
    [
        ([(b"server", b"db")], ()),
        ([(b":status", b"99")], ()),
        ([(b":status", b"2000")], ()),
        ([(b":status", b"101")], ()),
        ([(b"server", b"db"), *OK], ()),
        ([*OK, *OK], ()),
        ([*OK, (b":path", b"/")], ()),
        ([*OK, (b"connection", b"close")], ()),
        ([*OK, (b"transfer-encoding", b"chunked")], ()),
        ([*OK, (b"Server", b"db")], ()),
        ([*OK, (b"a b", b"c")], ()),
        ([*OK, (b"a", b"b\r\nc: d")], ()),
        ([*OK, (b"a", b"b\x00")], ()),
        ([*OK, (b"a", b" b")], ()),
        ([*OK, (b"content-length", b"+1")], ()),
        ([*OK, (b"content-length", b"1"), (b"content-length", b"1")], ()),
        ([*OK, (b"content-length", b"3")], (DataFrame(1, b"four"),)),
        ([*OK, (b"content-length", b"5")], (DataFrame(1, b"four", flags=["END_STREAM"]),)),
        ([*OK, (b"content-length", b"5")], tuple(block([(b"a", b"b")], 1, "END_STREAM"))),
        (OK, tuple(block([(b":status", b"200")], 1, "END_STREAM"))),
        ([(b":status", b"204")], (DataFrame(1, b"body"),)),
        ([*OK, (b"a", b"b" * 70_000)], ()),
        ([*OK, *[(b"a", b"b")] * 101], ()),
    ],
)
def test_a_malformed_answer_is_the_end_of_its_stream_alone(
    raw: Sides, headers: list[tuple[bytes, bytes]], frames: tuple[DataFrame, ...]
) -> None:
    _, answer = raw.request(head())
    _, other = raw.request(head())
    raw.raw.expect(HeadersFrame, 2)
    raw.raw.send(*block(headers, 1), *frames)
    raw.bench.until(lambda: answer.lost)
    assert answer.lost is not None
    assert answer.lost[0].reason is CloseReason.BAD_RESPONSE
    raw.raw.send(*block(OK, 3, "END_STREAM"))
    raw.bench.until(lambda: other.over)
    if not any("END_STREAM" in frame.flags for frame in frames):
        reset = raw.raw.expect(RstStreamFrame)
        assert (reset.stream_id, reset.error_code) == (1, ErrorCodes.PROTOCOL_ERROR)


def test_interim_responses_without_end_are_refused(raw: Sides) -> None:
    _, answer = raw.request(head())
    raw.raw.expect(HeadersFrame)
    for _ in range(17):
        raw.raw.send(*block([(b":status", b"103")], 1))
    raw.bench.until(lambda: answer.lost)
    assert len(answer.informed) == 16


def test_closing_loses_what_is_open(raw: Sides) -> None:
    _, answer = raw.request(head())
    raw.client.close()
    assert answer.lost is not None
    assert raw.pool.gone == 1
    raw.raw.expect_end()


def test_a_service_that_speaks_http1_is_named_with_the_remedy() -> None:
    sides = Sides()
    _, answer = sides.request(head())
    sides.raw.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    sides.bench.until(lambda: answer.lost)
    assert answer.lost is not None
    assert answer.lost[0].reason is CloseReason.BAD_RESPONSE
    assert "set Protocol to http in its service-defaults" in str(answer.lost[0])
    assert sides.pool.gone == 1
    sides.bench.close()
