"""HTTP/2 towards the client: requests, bodies, answers and ends, against the library as the client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from h2.events import (
    InformationalResponseReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame

from proxy.http.h2.server import H2Server
from proxy.http.message import UNKNOWN_LENGTH, ResponseHead, Version
from proxy.model import CloseReason
from tests.support.http2_peer import GET, POST, Peer, block
from tests.support.http2_sides import RawSides
from tests.support.http_sides import Bench, Exchange, Session


class Sides:
    """A server's connection and its client."""

    def __init__(self, *, small: bool = False, **options: int) -> None:
        self.bench = Bench()
        self.session = Session()
        self.wire, connected = self.bench.pair(small=small)
        self.server = H2Server(self.wire, self.session, max_head_bytes=options.pop("max_head_bytes", 8_192), **options)
        self.peer = Peer(self.bench, connected, client=True)

    def start(self) -> Sides:
        self.server.start()
        self.peer.start()
        return self

    def request(
        self, headers: list[tuple[bytes, bytes]], body: bytes | None = None, *, stream: int = 1, end: bool = True
    ) -> Exchange:
        """What the server makes of it; ``body``: in one frame."""
        heard = len(self.session.exchanges)
        self.peer.protocol.send_headers(stream, headers, end_stream=body is None and end)
        if body is not None:
            self.peer.protocol.send_data(stream, body, end_stream=end)
        self.peer.flush()
        self.peer.until(lambda: len(self.session.exchanges) > heard)
        return self.session.exchanges[heard]


@pytest.fixture
def sides() -> Iterator[Sides]:
    made = Sides()
    yield made.start()
    made.bench.close()


def test_a_request_without_a_body(sides: Sides) -> None:
    exchange = sides.request([*GET, (b"accept", b"*/*"), (b"te", b"trailers")])
    sides.bench.until(lambda: exchange.over)
    head = exchange.head
    assert (head.method, head.target, head.authority, head.scheme) == (b"GET", b"/", b"db.example", b"https")
    assert (head.version, head.length, head.has_length) == (Version.HTTP_2, 0, False)
    assert head.headers == [(b"accept", b"*/*")]
    assert head.trailers_wanted
    assert exchange.trailers == []
    assert sides.server.open_requests == 1


def test_its_answer_and_the_end_of_the_stream(sides: Sides) -> None:
    exchange = sides.request(GET)
    exchange.incoming.respond(ResponseHead(status=200, headers=[(b"server", b"db")], length=5), end=False)
    assert exchange.incoming.send(b"hello")
    exchange.incoming.finish([])
    answer = sides.peer.expect(ResponseReceived)
    assert answer.headers == [(b":status", b"200"), (b"server", b"db"), (b"content-length", b"5")]
    sides.peer.expect(StreamEnded)
    assert sides.peer.body(1) == b"hello"
    assert sides.server.open_requests == 0


def test_a_body_of_known_length_ends_with_its_last_byte(sides: Sides) -> None:
    exchange = sides.request(GET)
    exchange.incoming.respond(ResponseHead(status=200, length=10), end=False)
    exchange.incoming.send(b"hello")
    exchange.incoming.send(b"world")
    sides.peer.expect(StreamEnded)
    exchange.incoming.finish([])
    assert sides.peer.body(1) == b"helloworld"
    assert sides.server.open_requests == 0


def test_trailers_go_both_ways(sides: Sides) -> None:
    protocol = sides.peer.protocol
    protocol.send_headers(1, POST)
    protocol.send_data(1, b"message")
    protocol.send_headers(1, [(b"checksum", b"1")], end_stream=True)
    sides.peer.flush()
    sides.bench.until(lambda: sides.session.exchanges and sides.session.exchanges[0].over)
    exchange = sides.session.exchanges[0]
    assert exchange.head.length == UNKNOWN_LENGTH
    assert exchange.body == b"message"
    assert exchange.trailers == [(b"checksum", b"1")]
    exchange.incoming.respond(ResponseHead(status=200, length=UNKNOWN_LENGTH), end=False)
    exchange.incoming.send(b"answer")
    exchange.incoming.finish([(b"grpc-status", b"0")])
    assert sides.peer.expect(TrailersReceived).headers == [(b"grpc-status", b"0")]
    assert sides.peer.body(1) == b"answer"


def test_interim_responses_come_before_the_final_one(sides: Sides) -> None:
    exchange = sides.request([*POST, (b"expect", b"100-continue")], end=False)
    assert exchange.head.expects_continue
    exchange.incoming.inform(ResponseHead(status=100))
    exchange.incoming.inform(ResponseHead(status=103, headers=[(b"link", b"</style.css>")]))
    exchange.incoming.respond(ResponseHead(status=200), end=True)
    exchange.incoming.inform(ResponseHead(status=103))
    sides.peer.expect(ResponseReceived)
    informed = sides.peer.of(InformationalResponseReceived)
    assert [dict(event.headers or [])[b":status"] for event in informed] == [b"100", b"103"]


@pytest.mark.parametrize(
    ("method", "head", "length"),
    [
        (b"HEAD", ResponseHead(status=200, announced_length=1_000), b"1000"),
        (b"GET", ResponseHead(status=304, announced_length=1_000), b"1000"),
        (b"GET", ResponseHead(status=204), None),
    ],
)
def test_an_answer_without_a_body_says_what_a_body_would_have(
    sides: Sides, method: bytes, head: ResponseHead, length: bytes | None
) -> None:
    exchange = sides.request([(b":method", method), *GET[1:]])
    exchange.incoming.respond(head, end=True)
    answer = sides.peer.expect(ResponseReceived)
    sides.peer.expect(StreamEnded)
    assert dict(answer.headers or []).get(b"content-length") == length


def test_parts_of_a_cookie_are_joined(sides: Sides) -> None:
    exchange = sides.request([*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")])
    assert exchange.head.headers == [(b"x", b"y"), (b"cookie", b"a=1; b=2")]


def test_host_stands_in_for_the_authority(sides: Sides) -> None:
    exchange = sides.request([GET[0], GET[1], GET[3], (b"host", b"db.example:81")])
    assert exchange.head.authority == b"db.example:81"
    assert exchange.head.values(b"host") == []


def test_a_length_that_was_said_is_told(sides: Sides) -> None:
    exchange = sides.request([*POST, (b"content-length", b"3")], b"abc")
    assert (exchange.head.length, exchange.head.has_length) == (3, True)
    sides.bench.until(lambda: exchange.over)
    empty = sides.request([*POST, (b"content-length", b"0")], stream=3)
    assert (empty.head.length, empty.head.has_length) == (0, True)


def test_padding_is_taken_off_and_counts_in_the_window(sides: Sides) -> None:
    exchange = sides.request(POST, end=False)
    for _ in range(4):
        sides.peer.protocol.send_data(1, b"x", pad_length=200)
    sides.peer.protocol.send_data(1, b"", pad_length=7)
    sides.peer.protocol.end_stream(1)
    sides.peer.flush()
    sides.bench.until(lambda: exchange.over)
    assert exchange.body == b"xxxx"


def test_an_answer_before_the_end_of_the_request_asks_the_client_to_stop(sides: Sides) -> None:
    exchange = sides.request(POST, b"part", end=False)
    exchange.incoming.respond(ResponseHead(status=403), end=True)
    reset = sides.peer.expect(StreamReset)
    assert reset.error_code == ErrorCodes.NO_ERROR
    assert sides.peer.of(StreamEnded)
    assert (exchange.over, exchange.lost) == (False, None)


def test_what_was_on_its_way_when_a_stream_was_reset_disturbs_nobody(sides: Sides) -> None:
    exchange = sides.request(POST, end=False)
    exchange.incoming.reset(CloseReason.UPSTREAM_RESET, "")
    for _ in range(3):
        sides.peer.protocol.send_data(1, b"late")
    sides.peer.protocol.send_headers(1, [(b"late", b"trailer")], end_stream=True)
    again = sides.request(GET, stream=3)
    sides.bench.until(lambda: again.over)
    assert exchange.body == b""
    assert sides.peer.expect(StreamReset).error_code == ErrorCodes.INTERNAL_ERROR


def test_a_client_that_takes_its_request_back_is_told_of(sides: Sides) -> None:
    exchange = sides.request(POST, b"part", end=False)
    sides.peer.protocol.reset_stream(1, ErrorCodes.CANCEL)
    sides.peer.flush()
    sides.bench.until(lambda: exchange.lost)
    assert exchange.lost == (CloseReason.CLIENT_RESET, "the client reset the stream (CANCEL)")
    exchange.incoming.respond(ResponseHead(status=200), end=False)
    assert exchange.incoming.send(b"nobody listens")
    exchange.incoming.finish([])
    exchange.incoming.reset(CloseReason.CLIENT_RESET, "")
    sides.peer.settle()
    assert not sides.peer.of(ResponseReceived)


def test_what_is_announced(sides: Sides) -> None:
    settings = sides.peer.expect(RemoteSettingsChanged).changed_settings
    sides.peer.settle()
    assert {code: change.new_value for code, change in settings.items()} == {
        SettingCodes.MAX_CONCURRENT_STREAMS: 100,
        SettingCodes.INITIAL_WINDOW_SIZE: 64 * 1024,
        SettingCodes.MAX_HEADER_LIST_SIZE: 8_192,
    }
    assert sides.peer.protocol.outbound_flow_control_window == 16 * 1024 * 1024


def test_pings_are_answered(sides: Sides) -> None:
    sides.peer.protocol.ping(b"12345678")
    sides.peer.flush()
    assert sides.peer.expect(PingAckReceived).ping_data == b"12345678"


def test_priorities_are_ignored(sides: Sides) -> None:
    sides.peer.send(PriorityFrame(3, depends_on=3), PriorityFrame(5, depends_on=1, stream_weight=7, exclusive=True))
    sides.peer.protocol.send_headers(7, GET, end_stream=True, priority_weight=3, priority_depends_on=5)
    sides.peer.flush()
    sides.bench.until(lambda: sides.session.exchanges and sides.session.exchanges[0].over)


def test_more_requests_at_a_time_than_announced_are_refused_alone(sides: Sides) -> None:
    for stream in range(1, 2 * 102, 2):
        sides.peer.protocol.send_headers(stream, GET, end_stream=True)
    sides.peer.flush()
    refused = {sides.peer.expect(StreamReset, 1).stream_id, sides.peer.expect(StreamReset, 2).stream_id}
    assert refused == {201, 203}
    assert {event.error_code for event in sides.peer.of(StreamReset)} == {ErrorCodes.REFUSED_STREAM}
    assert len(sides.session.exchanges) == sides.server.open_requests == 100
    for exchange in sides.session.exchanges:
        exchange.incoming.respond(ResponseHead(status=204), end=True)
    sides.peer.expect(StreamEnded, 100)
    assert sides.request(GET, stream=205)


@pytest.fixture
def raw() -> Iterator[RawSides]:
    made = RawSides()
    yield made
    made.bench.close()


def test_draining_answers_what_was_sent_before_the_client_knew(raw: RawSides) -> None:
    raw.peer.send(*block(GET, 1, "END_STREAM"))
    raw.until(lambda: raw.session.exchanges)
    raw.server.drain()
    raw.server.drain()
    assert raw.peer.expect(GoAwayFrame).last_stream_id == 2**31 - 1
    raw.peer.send(*block(GET, 3, "END_STREAM"))
    raw.until(lambda: len(raw.session.exchanges) == 2)
    raw.peer.send(PingFrame(opaque_data=raw.peer.expect(PingFrame).opaque_data, flags=["ACK"]))
    assert raw.peer.expect(GoAwayFrame, 2).last_stream_id == 3
    raw.peer.send(*block(GET, 5, "END_STREAM"))
    refused = raw.peer.expect(RstStreamFrame)
    assert (refused.stream_id, refused.error_code) == (5, ErrorCodes.REFUSED_STREAM)
    for exchange in raw.session.exchanges:
        exchange.incoming.respond(ResponseHead(status=204), end=True)
    raw.peer.expect_end()
    assert [frame.stream_id for frame in raw.peer.of(HeadersFrame)] == [1, 3]
    raw.peer.socket.close()
    raw.until(lambda: raw.session.closed)
    assert raw.session.closed == (CloseReason.DRAIN, "")


def test_draining_without_a_request_ends_the_connection(raw: RawSides) -> None:
    raw.server.drain()
    raw.peer.send(PingFrame(opaque_data=raw.peer.expect(PingFrame).opaque_data, flags=["ACK"]))
    raw.peer.expect_end()
    assert {frame.error_code for frame in raw.peer.of(GoAwayFrame)} == {ErrorCodes.NO_ERROR}


def test_a_client_that_takes_no_notice_of_a_drain_is_not_waited_for() -> None:
    raw = RawSides(head_timeout_s=0.05)
    exchange = raw.request(1)
    raw.server.drain()
    assert raw.peer.expect(GoAwayFrame, 2).last_stream_id == 1
    exchange.incoming.respond(ResponseHead(status=204), end=True)
    raw.peer.expect_end()
    raw.bench.close()


def test_a_client_that_goes_away_is_still_answered(raw: RawSides) -> None:
    raw.peer.send(*block(GET, 1, "END_STREAM"), GoAwayFrame(last_stream_id=0))
    raw.until(lambda: raw.session.exchanges)
    raw.session.exchanges[0].incoming.respond(ResponseHead(status=204), end=True)
    raw.peer.expect_end()
    assert raw.peer.of(HeadersFrame)


def test_closing_ends_every_request(raw: RawSides) -> None:
    raw.peer.send(*block(GET, 1, "END_STREAM"), *block(POST, 3))
    raw.until(lambda: len(raw.session.exchanges) == 2)
    raw.server.close(CloseReason.REVOKED, "the intention has changed")
    assert [exchange.lost for exchange in raw.session.exchanges] == [
        (CloseReason.REVOKED, "the intention has changed")
    ] * 2
    assert raw.session.closed == (CloseReason.REVOKED, "the intention has changed")
    raw.peer.expect_end()
    assert raw.peer.expect(GoAwayFrame).additional_data == b"revoked"


@pytest.mark.parametrize("requests", [0, 1])
def test_the_end_of_the_connection_loses_what_is_open(raw: RawSides, requests: int) -> None:
    for number in range(requests):
        raw.peer.send(*block(GET, 2 * number + 1, "END_STREAM"))
    raw.until(lambda: len(raw.session.exchanges) == requests)
    raw.peer.socket.close()
    raw.until(lambda: raw.session.closed)
    assert all(exchange.lost for exchange in raw.session.exchanges)
    assert raw.server.open_requests == 0


def test_a_body_that_is_not_what_was_announced_does_not_look_complete(sides: Sides) -> None:
    short = sides.request(GET)
    short.incoming.respond(ResponseHead(status=200, length=5), end=False)
    short.incoming.send(b"four")
    short.incoming.finish([])
    long = sides.request(GET, stream=3)
    long.incoming.respond(ResponseHead(status=200, length=5), end=False)
    long.incoming.send(b"longer")
    long.incoming.finish([])
    sides.peer.expect(StreamReset, 2)
    assert {event.error_code for event in sides.peer.of(StreamReset)} == {ErrorCodes.INTERNAL_ERROR}
    assert not sides.peer.of(StreamEnded)
    assert sides.server.open_requests == 0


def test_a_mistake_in_the_session_ends_the_connection_alone(sides: Sides) -> None:
    def fails(_exchange: Exchange) -> None:
        raise LookupError("a mistake")

    sides.session.on_exchange = fails
    sides.peer.protocol.send_headers(1, GET, end_stream=True)
    sides.peer.flush()
    sides.bench.until(lambda: sides.session.closed)
    assert sides.session.closed == (CloseReason.INTERNAL, "LookupError: a mistake")
