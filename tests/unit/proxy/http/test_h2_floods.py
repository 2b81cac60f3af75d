"""A client that keeps the letter of HTTP/2 and misuses it: the connection ends, or what it costs is bounded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from hpack.hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from proxy.http.h2.limits import ALLOWANCES, Budgets, Flood, FloodError
from proxy.http.message import UNKNOWN_LENGTH, ResponseHead
from proxy.model import CloseReason
from tests.support.http2_peer import GET, POST, block
from tests.support.http2_sides import RawSides
from tests.support.http_sides import Exchange


@pytest.fixture
def raw() -> Iterator[RawSides]:
    made = RawSides()
    yield made
    made.bench.close()


def is_ended_as_flood(raw: RawSides, *, of: Flood | None = None) -> None:
    last = raw.last_word()
    assert last.error_code == ErrorCodes.ENHANCE_YOUR_CALM
    raw.peer.socket.close()
    raw.until(lambda: raw.session.closed)
    assert raw.session.closed is not None
    reason, detail = raw.session.closed
    if of is not None:
        assert (reason, detail) == (CloseReason.FLOOD, str(of))
    assert raw.server.open_requests == 0


def answer(exchange: Exchange) -> None:
    exchange.incoming.respond(ResponseHead(status=204), end=True)


def test_requests_that_are_taken_back_at_once(raw: RawSides) -> None:
    """Rapid reset, CVE-2023-44487."""
    for stream in range(1, 2_001, 2):
        raw.peer.send(*block(GET, stream, "END_STREAM"), RstStreamFrame(stream, ErrorCodes.CANCEL))
    is_ended_as_flood(raw, of=Flood.RESETS)
    assert len(raw.session.exchanges) <= ALLOWANCES[Flood.RESETS].burst + 50
    assert all(exchange.lost for exchange in raw.session.exchanges)


def test_who_takes_back_no_more_than_is_answered_goes_on(raw: RawSides) -> None:
    raw.session.on_exchange = lambda exchange: answer(exchange) if len(raw.session.exchanges) % 2 else None
    for stream in range(1, 2_801, 4):
        raw.peer.send(*block(GET, stream, "END_STREAM"))
        raw.peer.send(*block(GET, stream + 2, "END_STREAM"), RstStreamFrame(stream + 2, ErrorCodes.CANCEL))
    raw.until(lambda: len(raw.session.exchanges) == 1_400)
    raw.still_serves(2_801)


def test_more_streams_than_were_announced_without_end(raw: RawSides) -> None:
    for stream in range(1, 2_001, 2):
        raw.peer.send(*block(GET, stream, "END_STREAM"))
    is_ended_as_flood(raw, of=Flood.RESETS)
    assert len(raw.session.exchanges) == 100


def overflowing(stream: int) -> list[Frame]:
    return [*block(GET, stream, "END_STREAM"), WindowUpdateFrame(stream, 2**31 - 1)]


def after_the_end(stream: int) -> list[Frame]:
    return [*block(GET, stream, "END_STREAM"), DataFrame(stream, b"x")]


def malformed(stream: int) -> list[Frame]:
    return block([*GET, (b"connection", b"close")], stream, "END_STREAM")


def too_large(stream: int) -> list[Frame]:
    return block([*GET, (b"a", b"b" * 9_000)], stream, "END_STREAM")


def wrong_length(stream: int) -> list[Frame]:
    return [*block([*POST, (b"content-length", b"1")], stream), DataFrame(stream, b"xx")]


def zero_window(stream: int) -> list[Frame]:
    return [*block(GET, stream, "END_STREAM"), WindowUpdateFrame(stream, 0)]


@pytest.mark.parametrize("one", [overflowing, after_the_end, malformed, too_large, wrong_length, zero_window])
def test_resets_that_the_gateway_is_provoked_to(raw: RawSides, one: object) -> None:
    """MadeYouReset, CVE-2025-8671."""
    assert callable(one)
    for stream in range(1, 401, 2):
        raw.peer.send(*one(stream))
    is_ended_as_flood(raw, of=Flood.PROVOKED)
    assert len(raw.session.exchanges) <= ALLOWANCES[Flood.PROVOKED].burst + 50


@pytest.mark.parametrize(
    ("frames", "flood"),
    [
        ([PingFrame(opaque_data=b"12345678")], Flood.ANSWERS),
        ([SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535})], Flood.ANSWERS),
        ([SettingsFrame()], Flood.ANSWERS),
        ([SettingsFrame(flags=["ACK"])], Flood.IDLE),
        ([PingFrame(opaque_data=b"12345678", flags=["ACK"])], Flood.IDLE),
        ([PriorityFrame(1, depends_on=3)], Flood.IDLE),
        ([GoAwayFrame(last_stream_id=0)], None),
        ([WindowUpdateFrame(0, 1)], Flood.WINDOWS),
        ([WindowUpdateFrame(1, 1)], Flood.WINDOWS),
        ([DataFrame(1, b"")], Flood.EMPTY),
        ([DataFrame(1, b"", pad_length=10, flags=["PADDED"])], Flood.EMPTY),
    ],
)
def test_frames_that_cost_and_bring_nothing(raw: RawSides, frames: list[Frame], flood: Flood | None) -> None:
    raw.peer.send(*block(POST, 1))
    for _ in range(300):
        raw.peer.send(*frames * 10)
    if flood is None:
        raw.until(lambda: raw.session.closed or raw.server.closed)
    else:
        is_ended_as_flood(raw, of=flood)


def test_resets_of_streams_that_have_ended(raw: RawSides) -> None:
    answer(raw.request(1))
    raw.peer.send(*[RstStreamFrame(1)] * 1_100)
    is_ended_as_flood(raw, of=Flood.IDLE)


def test_data_without_end_on_a_stream_that_was_reset(raw: RawSides) -> None:
    exchange = raw.request(1, end=False)
    exchange.incoming.reset(CloseReason.INTERNAL, "")
    raw.peer.send(*[DataFrame(1, bytes(16_384))] * 4)
    raw.still_serves(3)
    raw.peer.send(DataFrame(1, b"x"))
    assert raw.last_word().error_code == ErrorCodes.STREAM_CLOSED


def test_many_uploads_that_are_refused_are_no_flood(raw: RawSides) -> None:
    raw.session.on_exchange = answer
    for stream in range(1, 201, 2):
        raw.peer.send(*block(POST, stream), *[DataFrame(stream, bytes(1_000))] * 30)
    raw.peer.expect(RstStreamFrame, 100)
    raw.still_serves(201)


# --- lists of headers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1_000])
def test_a_list_of_headers_without_end(raw: RawSides, size: int) -> None:
    """CVE-2024-27316."""
    raw.peer.send(HeadersFrame(1, b"\x82"))
    raw.peer.send(*[ContinuationFrame(1, b"\x00" * size)] * 2_000)
    is_ended_as_flood(raw)
    assert raw.session.exchanges == []


def test_a_list_in_many_parts_is_read_all_the_same(raw: RawSides) -> None:
    raw.peer.send(*block([*GET, (b"a", b"b" * 500)], 1, "END_STREAM", size=20))
    raw.until(lambda: raw.session.exchanges)
    assert raw.session.exchanges[0].head.headers == [(b"a", b"b" * 500)]


def test_a_few_bytes_that_mean_many_headers(raw: RawSides) -> None:
    """HPACK bomb, CVE-2016-6581: one entry of the table, named again and again."""
    encoder = Encoder()
    first = encoder.encode([*GET, (b"a", b"b" * 4_000)])
    raw.peer.send(HeadersFrame(1, first + encoder.encode([(b"a", b"b" * 4_000)]) * 12_000, flags=["END_HEADERS"]))
    is_ended_as_flood(raw)
    assert raw.session.exchanges == []


def test_headers_without_names_and_values(raw: RawSides) -> None:
    """CVE-2019-9516."""
    for stream in range(1, 2_001, 2):
        raw.peer.send(*block([*GET, *[(b"", b"")] * 60], stream, "END_STREAM"))
    is_ended_as_flood(raw, of=Flood.PROVOKED)


def test_numbers_without_end_in_a_list_of_headers(raw: RawSides) -> None:
    raw.peer.send(HeadersFrame(1, b"\xff" + b"\x80" * 1_000 + b"\x01", flags=["END_HEADERS"]))
    assert raw.last_word().error_code == ErrorCodes.COMPRESSION_ERROR


def test_a_table_without_end_is_not_kept_for_the_client(raw: RawSides) -> None:
    raw.peer.send(SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: 2**32 - 1}))
    for number in range(100):
        exchange = raw.request(2 * number + 1)
        headers = [(b"x-%d" % number, b"y" * 1_000)]
        exchange.incoming.respond(ResponseHead(status=200, headers=headers), end=True)
        sent = raw.peer.headers(raw.peer.expect(HeadersFrame, number + 1))
        assert sent[1:] == headers
    assert raw.server.engine.encoder.header_table_size <= 4_096


def test_a_table_that_becomes_smaller_and_larger_again(raw: RawSides) -> None:
    for number, size in enumerate([0, 4_096, 100, 50, 65_536]):
        raw.peer.send(SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: size}))
        exchange = raw.request(2 * number + 1)
        exchange.incoming.respond(ResponseHead(status=200, headers=[(b"x-same", b"value")]), end=True)
        sent = raw.peer.headers(raw.peer.expect(HeadersFrame, number + 1))
        assert sent == [(b":status", b"200"), (b"x-same", b"value")]


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_answers_that_nobody_reads_are_bounded() -> None:
    raw = RawSides(small=True)
    raw.peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31 - 1}))
    raw.peer.send(WindowUpdateFrame(0, 2**30))
    large = raw.request(1)
    large.incoming.respond(ResponseHead(status=200, length=UNKNOWN_LENGTH), end=False)
    while large.incoming.send(bytes(65_536)):
        pass
    raw.session.on_exchange = answer
    stream = 3
    while not raw.server.closed:
        raw.peer.send_bytes(b"".join(frame.serialize() for frame in block(GET, stream, "END_STREAM")))
        raw.bench.turns()
        stream += 2
        assert stream < 5_000
    assert raw.wire.waiting < 2 * 1024 * 1024
    is_ended_as_flood(raw, of=Flood.UNREAD)
    raw.bench.close()


def test_what_is_remembered_of_streams_that_have_ended_is_bounded(raw: RawSides) -> None:
    raw.session.on_exchange = answer
    for stream in range(1, 3_001, 2):
        raw.peer.send(*block(GET, stream, "END_STREAM"))
        if stream % 100 == 1:
            raw.peer.read()
    raw.until(lambda: len(raw.session.exchanges) == 1_500)
    assert raw.server.streams == {}
    assert raw.server.engine.streams == {}
    assert len(raw.server.engine._closed_streams) <= 256


def test_windows_of_nothing_hold_no_more_than_was_sent(raw: RawSides) -> None:
    raw.peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
    exchange = raw.request(1)
    exchange.incoming.respond(ResponseHead(status=200, length=UNKNOWN_LENGTH), end=False)
    assert not exchange.incoming.send(b"waits")
    exchange.incoming.reset(CloseReason.REQUEST_TIMEOUT, "")
    assert raw.peer.expect(RstStreamFrame).error_code == ErrorCodes.INTERNAL_ERROR
    raw.peer.send(WindowUpdateFrame(1, 100))
    raw.still_serves(3)
    assert not raw.peer.of(DataFrame)


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [HeadersFrame(1, b"\x82").serialize(), HeadersFrame(1, b"\x82").serialize()[:5]])
def test_a_head_that_is_never_complete(begun: bytes) -> None:
    raw = RawSides(head_timeout_s=0.05)
    raw.peer.send_bytes(begun)
    raw.last_word()
    raw.peer.socket.close()
    raw.until(lambda: raw.session.closed)
    assert raw.session.closed == (CloseReason.IDLE, "no complete request head within 0.05 s")
    raw.bench.close()


def test_a_preface_that_is_never_complete() -> None:
    raw = RawSides(head_timeout_s=0.05, greeting=b"PRI * HTTP/2.0\r\n")
    raw.last_word()
    raw.bench.close()


def test_a_connection_without_requests() -> None:
    raw = RawSides(head_timeout_s=0.05, idle_timeout_s=0.1)
    exchange = raw.request(1)
    raw.bench.turns(3)
    answer(exchange)
    assert raw.last_word().error_code == ErrorCodes.NO_ERROR
    raw.peer.socket.close()
    raw.until(lambda: raw.session.closed)
    assert raw.session.closed == (CloseReason.IDLE, "no request for 0.1 s")
    raw.bench.close()


def test_a_budget_is_refilled_by_time_and_by_work() -> None:
    budgets = Budgets(100.0)
    for _ in range(200):
        budgets.spend(Flood.ANSWERS, 100.0)
    with pytest.raises(FloodError):
        budgets.spend(Flood.ANSWERS, 100.0)
    budgets.earn(Flood.ANSWERS, 1)
    budgets.spend(Flood.ANSWERS, 100.0)
    budgets.spend(Flood.ANSWERS, 100.11)
    budgets.spend(Flood.ANSWERS, 100.11)
    with pytest.raises(FloodError):
        budgets.spend(Flood.ANSWERS, 100.11)
    budgets.earn(Flood.ANSWERS, 10_000)
    for _ in range(200):
        budgets.spend(Flood.ANSWERS, 100.2)
