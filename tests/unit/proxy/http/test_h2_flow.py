"""Flow control: who is slow stops his own stream, what waits is bounded, and nothing is lost or comes twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from h2.events import StreamEnded, WindowUpdated
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, Frame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.h2.client import H2Client
from proxy.http.h2.server import H2Server
from proxy.http.message import UNKNOWN_LENGTH, RequestHead, ResponseHead, Version
from proxy.model import CloseReason
from tests.support.http2_peer import GET, OK, POST, Peer, block
from tests.support.http2_sides import RawSides
from tests.support.http_sides import Answer, Bench, Exchange, Pool, Session

STREAMED = ResponseHead(status=200, length=UNKNOWN_LENGTH)


class Sides:
    """A server's connection and the library as its client."""

    def __init__(self, *, small: bool = False, stalled_limit: int = 0, **options: int) -> None:
        self.bench = Bench(stalled_limit)
        self.session = Session()
        self.wire, connected = self.bench.pair(small=small)
        self.server = H2Server(self.wire, self.session, **options)
        self.peer = Peer(self.bench, connected, client=True)

    def start(self, *, window: int = 65_535) -> Sides:
        self.server.start()
        self.peer.protocol.local_settings.initial_window_size = window
        self.peer.protocol.local_settings.acknowledge()
        self.peer.start()
        self.peer.settle(5)
        return self

    def request(self, stream: int, headers: list[tuple[bytes, bytes]] = GET, *, end: bool = True) -> Exchange:
        heard = len(self.session.exchanges)
        self.peer.protocol.send_headers(stream, headers, end_stream=end)
        self.peer.flush()
        self.peer.until(lambda: len(self.session.exchanges) > heard)
        return self.session.exchanges[heard]

    def upload(self, stream: int, most: int) -> int:
        """As much as the windows allow."""
        sent = 0
        protocol = self.peer.protocol
        while sent < most and (room := protocol.local_flow_control_window(stream)):
            length = min(room, most - sent, protocol.max_outbound_frame_size)
            protocol.send_data(stream, bytes([stream]) * length)
            self.peer.flush()
            sent += length
            self.bench.turns()
        return sent


@pytest.fixture
def bench_of() -> Iterator[list[Bench]]:
    benches: list[Bench] = []
    yield benches
    for bench in benches:
        bench.close()


def test_a_slow_service_stops_its_own_request_and_no_other(bench_of: list[Bench]) -> None:
    sides = Sides(first_window=100_000, connection_window=1_000_000).start()
    bench_of.append(sides.bench)
    slow = sides.request(1, POST, end=False)
    slow.incoming.pause()
    assert sides.upload(1, 500_000) == 100_000
    sides.peer.settle()
    assert sides.upload(1, 1) == 0
    assert not slow.body
    other = sides.request(3, POST, end=False)
    sent = 0
    while sent < 500_000:
        sent += sides.upload(3, 500_000 - sent)
        sides.peer.read()
    sides.peer.until(lambda: len(other.body) == 500_000)
    slow.incoming.resume()
    assert len(slow.body) == 0, "nothing is delivered before it returns"
    sides.peer.until(lambda: len(slow.body) == 100_000)
    assert sides.upload(1, 400_000) > 0
    assert set(slow.body) == {1}


def test_what_is_held_when_a_stream_ends_opens_the_window_of_the_connection(bench_of: list[Bench]) -> None:
    sides = Sides(first_window=100_000, connection_window=150_000).start()
    bench_of.append(sides.bench)
    for stream in range(1, 11, 2):
        slow = sides.request(stream, POST, end=False)
        slow.incoming.pause()
        sent = sides.upload(stream, 100_000)
        assert sent > 50_000
        sides.peer.settle()
        slow.incoming.reset(CloseReason.INTERNAL, "")
        sides.peer.settle()


def test_a_window_grows_while_what_comes_is_taken(bench_of: list[Bench]) -> None:
    sides = Sides(window=400_000).start()
    bench_of.append(sides.bench)
    protocol = sides.peer.protocol
    exchange = sides.request(1, POST, end=False)
    windows = [protocol.local_flow_control_window(1)]
    for _ in range(30):
        sides.upload(1, 30_000)
        sides.peer.settle(5)
        windows.append(protocol.local_flow_control_window(1))
    assert windows[0] == 64 * 1024
    assert 200_000 < max(windows) <= 400_000
    assert len(exchange.body) == 900_000


def test_a_window_does_not_grow_while_the_worker_keeps_enough(bench_of: list[Bench]) -> None:
    sides = Sides(stalled_limit=1).start()
    bench_of.append(sides.bench)
    sides.bench.buffers.stall(1)
    exchange = sides.request(1, POST, end=False)
    for _ in range(10):
        sides.upload(1, 30_000)
        sides.peer.settle(5)
        assert sides.peer.protocol.local_flow_control_window(1) <= 64 * 1024
    assert len(exchange.body) == 300_000


def test_what_is_kept_is_counted_as_long_as_it_is_kept(bench_of: list[Bench]) -> None:
    sides = Sides().start(window=10_000)
    bench_of.append(sides.bench)
    sides.peer.acknowledge = False
    kept = sides.bench.buffers
    slow = sides.request(1, POST, end=False)
    slow.incoming.pause()
    sides.upload(1, 5_000)
    sides.peer.settle(5)
    assert kept.stalled == 5_000
    slow.incoming.respond(STREAMED, end=False)
    slow.incoming.send(bytes(30_000))
    sides.peer.settle(5)
    assert kept.stalled == 25_000
    slow.incoming.resume()
    sides.peer.until(lambda: len(slow.body) == 5_000)
    assert kept.stalled == 20_000
    sides.peer.protocol.increment_flow_control_window(15_000, 1)
    sides.peer.flush()
    sides.peer.until(lambda: kept.stalled == 5_000)
    slow.incoming.reset(CloseReason.INTERNAL, "")
    assert kept.stalled == 0


def test_an_end_waits_for_what_was_held_before_it(bench_of: list[Bench]) -> None:
    sides = Sides().start()
    bench_of.append(sides.bench)
    slow = sides.request(1, POST, end=False)
    slow.on_data = lambda exchange: exchange.incoming.pause()
    for piece in (b"one", b"two", b"three"):
        sides.peer.protocol.send_data(1, piece)
    sides.peer.protocol.send_headers(1, [(b"checksum", b"1")], end_stream=True)
    sides.peer.flush()
    for body in (b"one", b"onetwo", b"onetwothree"):
        sides.peer.until(lambda body=body: slow.body == body)  # type: ignore[misc]
        sides.peer.settle(5)
        assert bytes(slow.body) == body
        slow.incoming.resume()
    sides.peer.until(lambda: slow.over)
    assert slow.trailers == [(b"checksum", b"1")]


def test_a_stream_that_ends_while_it_is_paused_delivers_no_more(bench_of: list[Bench]) -> None:
    sides = Sides().start()
    bench_of.append(sides.bench)
    slow = sides.request(1, POST, end=False)
    slow.incoming.pause()
    sides.upload(1, 1_000)
    slow.incoming.resume()
    slow.incoming.reset(CloseReason.INTERNAL, "")
    sides.peer.settle()
    assert (len(slow.body), slow.lost) == (0, None)


def test_a_slow_client_is_sent_no_more_than_its_window(bench_of: list[Bench]) -> None:
    sides = Sides().start(window=10_000)
    bench_of.append(sides.bench)
    sides.peer.acknowledge = False
    exchange = sides.request(1)
    exchange.incoming.respond(STREAMED, end=False)
    assert not exchange.incoming.send(b"x" * 25_000)
    exchange.incoming.finish([(b"grpc-status", b"0")])
    sides.peer.settle()
    assert len(sides.peer.body(1)) == 10_000
    assert exchange.rooms == 0
    sides.peer.protocol.increment_flow_control_window(12_000, 1)
    sides.peer.flush()
    sides.peer.until(lambda: len(sides.peer.body(1)) == 22_000)
    assert not sides.peer.of(StreamEnded)
    sides.peer.protocol.increment_flow_control_window(12_000, 1)
    sides.peer.flush()
    sides.peer.expect(StreamEnded)
    assert sides.peer.body(1) == b"x" * 25_000
    assert sides.server.open_requests == 0


def test_room_is_told_once_everything_is_on_its_way(bench_of: list[Bench]) -> None:
    sides = Sides().start(window=10_000)
    bench_of.append(sides.bench)
    exchange = sides.request(1)
    exchange.incoming.respond(STREAMED, end=False)
    assert exchange.incoming.send(b"x" * 4_000)
    assert not exchange.incoming.send(b"y" * 16_000)
    assert not exchange.incoming.send(b"z")
    sides.peer.until(lambda: exchange.rooms)
    sides.peer.settle()
    assert exchange.rooms == 1
    assert exchange.incoming.send(b"!")
    exchange.incoming.finish([])
    sides.peer.expect(StreamEnded)
    assert sides.peer.body(1) == b"x" * 4_000 + b"y" * 16_000 + b"z!"


def test_who_is_sent_much_may_say_much_about_windows(bench_of: list[Bench]) -> None:
    raw = RawSides()
    bench_of.append(raw.bench)
    exchange = raw.request(1)
    exchange.incoming.respond(STREAMED, end=False)
    for _ in range(1_500):
        assert exchange.incoming.send(b"x" * 1_000)
        raw.peer.send(WindowUpdateFrame(1, 1_000), WindowUpdateFrame(0, 1_000), PingFrame(opaque_data=b"12345678"))
        raw.bench.turns()
        raw.peer.read()
    raw.still_serves(3)


def test_windows_that_shrink_below_nothing(bench_of: list[Bench]) -> None:
    raw = RawSides()
    bench_of.append(raw.bench)

    def has_come(length: int) -> None:
        def holds() -> bool:
            raw.peer.read()
            return sum(len(frame.data) for frame in raw.peer.of(DataFrame)) == length

        raw.until(holds)

    exchange = raw.request(1)
    exchange.incoming.respond(STREAMED, end=False)
    assert exchange.incoming.send(b"x" * 50_000)
    raw.peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 10}))
    raw.peer.expect(SettingsFrame, 3)
    assert not exchange.incoming.send(b"y" * 20)
    raw.peer.send(WindowUpdateFrame(1, 50_000))
    has_come(50_010)
    raw.peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 20}))
    has_come(50_020)
    assert exchange.rooms == 1


def test_streams_share_a_narrow_connection(bench_of: list[Bench]) -> None:
    sides = Sides().start(window=2**31 - 1)
    bench_of.append(sides.bench)
    exchanges = [sides.request(stream) for stream in (1, 3, 5)]
    for exchange in exchanges:
        exchange.incoming.respond(STREAMED, end=False)
        exchange.incoming.send(bytes(1_000_000))
        exchange.incoming.finish([])
    least: list[int] = []

    def measured() -> bool:
        bodies = [len(sides.peer.body(stream)) for stream in (1, 3, 5)]
        if not least and bodies[0] == 1_000_000:
            least.append(min(bodies))
        return all(body == 1_000_000 for body in bodies)

    sides.peer.until(measured)
    assert least[0] > 500_000


def test_a_socket_that_takes_nothing_stops_who_sends(bench_of: list[Bench]) -> None:
    sides = Sides(small=True).start(window=2**31 - 1)
    bench_of.append(sides.bench)
    sides.peer.protocol.increment_flow_control_window(2**30)
    sides.peer.flush()
    exchange = sides.request(1)
    other = sides.request(3)
    sides.peer.reading = False
    exchange.incoming.respond(STREAMED, end=False)
    sent = 0
    while exchange.incoming.send(bytes(50_000)):
        sent += 50_000
        sides.bench.turns()
        assert sent < 2_000_000
    other.incoming.respond(STREAMED, end=False)
    assert not other.incoming.send(b"waits as well")
    assert sides.wire.waiting < 400_000
    sides.peer.reading = True
    sides.peer.until(lambda: exchange.rooms and other.rooms)
    assert (exchange.rooms, other.rooms) == (1, 1)
    sides.peer.until(lambda: len(sides.peer.body(1)) == sent + 50_000)
    assert sides.peer.body(3) == b"waits as well"


def test_the_last_byte_asks_for_no_pause_although_the_socket_takes_nothing(bench_of: list[Bench]) -> None:
    sides = Sides(small=True).start(window=2**31 - 1)
    bench_of.append(sides.bench)
    sides.peer.protocol.increment_flow_control_window(2**30)
    sides.peer.flush()
    exchange = sides.request(1)
    sides.peer.reading = False
    exchange.incoming.respond(ResponseHead(200, length=1_000_000), end=False)
    assert exchange.incoming.send(bytes(1_000_000))
    exchange.incoming.finish([])
    sides.peer.reading = True
    sides.peer.until(lambda: len(sides.peer.body(1)) == 1_000_000)
    assert exchange.rooms == 0


def test_a_slow_client_stops_an_external_service(bench_of: list[Bench]) -> None:
    bench = Bench()
    bench_of.append(bench)
    wire, connected = bench.pair()
    client = H2Client(wire, Pool(), first_window=100_000, connection_window=300_000)
    peer = Peer(bench, connected, client=False)
    client.start()
    peer.start()
    answer = Answer()
    head = RequestHead(method=b"GET", target=b"/", authority=b"db.example", version=Version.HTTP_1_1)
    request = client.request(head, answer, end=True)
    peer.settle()
    request.pause()
    peer.protocol.send_headers(1, OK)
    sent = 0
    while room := peer.protocol.local_flow_control_window(1):
        length = min(room, 16_384)
        peer.protocol.send_data(1, bytes(length))
        peer.flush()
        bench.turns()
        sent += length
    peer.settle()
    assert (sent, len(answer.body)) == (100_000, 0)
    assert peer.protocol.local_flow_control_window(1) == 0
    request.resume()
    peer.until(lambda: len(answer.body) == sent)
    peer.until(lambda: peer.protocol.local_flow_control_window(1))
    assert [event.stream_id for event in peer.of(WindowUpdated) if event.stream_id] == [1]
    request.pause()
    peer.protocol.send_data(1, b"the last of it", end_stream=True)
    peer.flush()
    peer.settle()
    assert not answer.over
    request.resume()
    peer.until(lambda: answer.over)
    assert answer.body.endswith(b"the last of it")


def test_a_narrow_window_of_an_external_service(bench_of: list[Bench]) -> None:
    bench = Bench()
    bench_of.append(bench)
    wire, connected = bench.pair()
    client = H2Client(wire, Pool())
    peer = Peer(bench, connected, client=False)
    client.start()
    peer.protocol.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 1_000
    peer.protocol.local_settings.acknowledge()
    peer.start()
    peer.settle()
    answer = Answer()
    head = RequestHead(
        method=b"POST", target=b"/", authority=b"db.example", version=Version.HTTP_1_1, length=9_000, has_length=True
    )
    request = client.request(head, answer, end=False)
    assert not request.send(b"x" * 5_000)
    peer.until(lambda: answer.rooms)
    request.send(b"y" * 4_000)
    request.finish([])
    peer.expect(StreamEnded)
    assert peer.body(1) == b"x" * 5_000 + b"y" * 4_000
    peer.protocol.send_headers(1, OK, end_stream=True)
    peer.flush()
    peer.until(lambda: answer.over)
    assert client.available


def stream_of_bytes() -> bytes:
    """A connection's worth: requests with and without bodies, padding, trailers, long lists, resets, windows."""
    frames: list[Frame] = [
        SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100_000}),
        *block(GET, 1, "END_STREAM"),
        *block(POST, 3),
        DataFrame(3, b"first"),
        *block([*POST, (b"content-length", b"6"), (b"a", b"b" * 300)], 5, size=40),
        PingFrame(opaque_data=b"12345678"),
        DataFrame(5, b"second", pad_length=9, flags=["PADDED", "END_STREAM"]),
        DataFrame(3, b"", flags=[]),
        *block([(b"checksum", b"1")], 3, "END_STREAM"),
        *block(GET, 7),
        RstStreamFrame(7, 8),
        *block([*GET, (b"connection", b"close")], 9, "END_STREAM"),
        WindowUpdateFrame(0, 1_000),
        *block(POST, 11),
        DataFrame(11, b"x" * 1_000, flags=["END_STREAM"]),
    ]
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"".join(frame.serialize() for frame in frames)


BYTES = stream_of_bytes()


def heard(pieces: list[bytes]) -> list[object]:
    bench, session = Bench(), Session()
    wire, _ = bench.pair()
    server = H2Server(wire, session)
    server.start()
    for piece in pieces:
        server.on_bytes(memoryview(piece))
    told: list[object] = [
        (exchange.head, bytes(exchange.body), exchange.trailers, exchange.lost) for exchange in session.exchanges
    ]
    told += [session.refused, session.closed, server.open_requests]
    bench.close()
    return told


WHOLE = heard([BYTES])


def test_the_whole_of_it_is_what_it_says() -> None:
    assert len(WHOLE) == 5 + 3
    assert WHOLE[-3] == [(400, "connection is for connections of HTTP/1")]
    assert WHOLE[-1] == 4


@settings(deadline=None, max_examples=60)
@given(cuts=st.lists(st.integers(1, len(BYTES) - 1), max_size=20))
def test_any_pieces_are_heard_the_same(cuts: list[int]) -> None:
    places = [0, *sorted(set(cuts)), len(BYTES)]
    assert heard([BYTES[start:end] for start, end in itertools.pairwise(places)]) == WHOLE


def test_single_bytes_are_heard_the_same() -> None:
    assert heard([BYTES[place : place + 1] for place in range(len(BYTES))]) == WHOLE
