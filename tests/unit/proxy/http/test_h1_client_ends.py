"""A connection to an external service: pauses, tunnels and mistakes."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from proxy.http.message import UNKNOWN_LENGTH
from proxy.model import CloseReason
from tests.support.http1 import Answer, Asking, Rig, rig


@pytest.fixture
def on() -> Iterator[Rig]:
    with rig() as made:
        yield made


OK = b"HTTP/1.1 200 OK\r\n"


def test_a_pause_holds_the_response_back(on: Rig) -> None:
    one = Asking(on)
    on.call(one.outgoing.pause)
    size = 20_000_000
    one.service.send(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
    for _ in range(30):
        on.turn()
    assert one.client.wire.bytes_received < 2_000_000
    on.call(one.outgoing.resume)
    assert len(one.complete().body) == size
    assert one.client.available


def test_a_pause_ends_with_its_response(on: Rig) -> None:
    one = Asking(on)

    class Pausing(Answer):
        def on_response_data(self, data: object) -> None:
            one.outgoing.pause()

    one.outgoing.events = Pausing()
    one.service.send(OK + b"Content-Length: 5\r\n\r\nhello")
    on.until(lambda: one.pool.available)
    one.service.close()
    on.until(lambda: one.pool.gone)


def test_a_service_that_takes_nothing_is_waited_for(on: Rig) -> None:
    one = Asking(on, b"POST", end=False, length=UNKNOWN_LENGTH)
    one.service.open = False

    def fill() -> None:
        sent = 0
        while one.outgoing.send(b"x" * 65_536):
            sent += 1
            assert sent < 1_000

    on.call(fill)
    on.turn()
    assert one.answer.rooms == 0
    one.service.open = True
    on.until(lambda: one.answer.rooms == 1)


@pytest.mark.parametrize("service_first", [True, False])
def test_a_tunnel_ends_when_both_directions_have(on: Rig, service_first: bool) -> None:
    one = Asking(on, upgrade=b"websocket")
    one.service.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\r\nhel")
    on.until(lambda: one.answer.body == b"hel")
    assert one.answer.head is not None
    assert one.answer.head.upgrade == b"WebSocket"
    on.call(lambda: one.outgoing.send(b"raw"))
    on.until(lambda: one.service.received.endswith(b"\r\n\r\nraw"))
    if service_first:
        one.service.send(b"lo")
        one.service.finish()
        assert one.complete().body == b"hello"
        assert one.pool.gone == 0
        on.call(lambda: one.outgoing.send(b" more"))
        on.call(lambda: one.outgoing.finish([]))
    else:
        on.call(lambda: one.outgoing.finish([]))
        on.until(lambda: one.service.ended == "end")
        one.service.send(b"lo")
        one.service.finish()
        assert one.complete().body == b"hello"
    on.until(lambda: one.pool.gone == 1)
    on.until(lambda: one.service.ended == "end")
    assert one.service.received.endswith(b"\r\n\r\nraw more" if service_first else b"\r\n\r\nraw")
    assert (one.pool.available, one.client.open_requests) == (0, 0)


def test_a_tunnel_whose_service_ends_without_its_last_word(on: Rig) -> None:
    one = Asking(on, upgrade=b"websocket")
    one.service.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhel")
    on.until(lambda: one.answer.body == b"hel")
    on.call(lambda: one.client.on_end(cut=True))
    assert one.lost().body == b"hel"


def test_a_protocol_that_is_switched_to_in_the_middle_of_the_request(on: Rig) -> None:
    one = Asking(on, b"POST", end=False, length=5, has_length=True, upgrade=b"websocket")
    one.service.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert one.lost().head is None


@pytest.mark.parametrize("chosen", [b"h2c", b"", b"websocket, h2c"])
def test_a_protocol_that_was_not_asked_for(on: Rig, chosen: bytes) -> None:
    one = Asking(on, upgrade=b"websocket")
    one.service.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: " + chosen + b"\r\n\r\n")
    assert one.lost().head is None


def test_a_refused_upgrade(on: Rig) -> None:
    one = Asking(on, upgrade=b"websocket")
    one.service.send(b"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n")
    one.complete()
    assert one.client.available


def test_a_mistake_in_the_exchange_ends_this_connection_alone(on: Rig) -> None:
    one = Asking(on)

    class Broken(Answer):
        def on_response_data(self, data: object) -> None:
            raise ZeroDivisionError("a mistake")

    broken = one.outgoing.events = Broken()
    one.service.send(OK + b"Content-Length: 5\r\n\r\nhello")
    on.until(lambda: broken.lost)
    assert broken.lost is not None
    assert (broken.lost.reason, str(broken.lost)) == (CloseReason.INTERNAL, "ZeroDivisionError: a mistake")
    assert one.pool.gone == 1


def test_what_the_system_says_is_told(on: Rig) -> None:
    one = Asking(on)
    on.call(lambda: one.client.on_lost(OSError(errno.ETIMEDOUT, "Connection timed out")))
    lost = one.lost().lost
    assert lost is not None
    assert (lost.reason, str(lost)) == (CloseReason.UPSTREAM_RESET, "Connection timed out")
