"""A client's connection: time, pauses, tunnels, and how it ends."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.http.message import UNKNOWN_LENGTH, ResponseHead
from proxy.http.streams import Incoming
from proxy.model import CloseReason
from tests.support.http1 import Asked, Rig, rig

GET = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def on() -> Iterator[Rig]:
    with rig() as made:
        yield made


def ok(asked: Asked) -> None:
    asked.incoming.respond(ResponseHead(200, length=2), end=False)
    asked.incoming.send(b"ok")
    asked.incoming.finish([])


# --- time


def test_a_head_that_comes_too_slowly(on: Rig) -> None:
    _, session, client = on.server(ok, head_timeout_s=0.05)
    client.send(GET + GET[:10])
    on.until(lambda: client.ended == "end")
    assert client.received.startswith(OK + b"HTTP/1.1 408 ")
    client.close()
    on.until(lambda: session.closed)
    assert session.closed[0][0] is CloseReason.IDLE


def test_a_request_that_takes_its_time_is_not_idle(on: Rig) -> None:
    _, session, client = on.server(head_timeout_s=0.02, idle_timeout_s=0.02)
    client.send(GET[:5])
    on.turn()
    client.send(GET[5:])
    on.until(lambda: session.requests)
    late = on.loop.time() + 0.2
    on.until(lambda: on.loop.time() > late)
    on.call(lambda: ok(session.requests[0]))
    on.until(lambda: client.received == OK)
    on.until(lambda: client.ended == "end")
    assert client.received == OK, "it was idle, its head was complete"
    client.close()
    on.until(lambda: session.closed)
    assert session.closed[0][0] is CloseReason.IDLE


def test_a_client_that_never_takes_its_last_response_does_not_stay(on: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.http.ending._TICK_S", 0.01)
    _, session, client = on.server()
    on.until(lambda: True)
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    on.until(lambda: session.requests)
    incoming = session.requests[0].incoming
    client.open = False  # it reads nothing
    large = b"x" * 20_000_000

    def answer() -> None:
        incoming.respond(ResponseHead(200, length=len(large)), end=False)
        assert not incoming.send(large)
        incoming.finish([])

    on.call(answer)
    on.until(lambda: session.closed)
    client.open = True
    on.until(lambda: client.ended)
    assert client.ended == "reset", "half a response does not look complete"


# --- pauses


def test_a_client_that_takes_nothing_is_waited_for(on: Rig) -> None:
    _, session, client = on.server()
    client.send(GET)
    on.until(lambda: session.requests)
    asked = session.requests[0]
    client.open = False
    sent = 0

    def fill() -> None:
        nonlocal sent
        asked.incoming.respond(ResponseHead(200, length=UNKNOWN_LENGTH), end=False)
        while asked.incoming.send(b"x" * 65_536):
            sent += 1
            assert sent < 1_000

    on.call(fill)
    on.turn()
    assert asked.rooms == 0
    client.open = True
    on.until(lambda: asked.rooms == 1)
    on.call(lambda: asked.incoming.finish([]))
    on.until(lambda: client.received.endswith(b"\r\n0\r\n\r\n"))
    assert client.received.count(b"x") == (sent + 1) * 65_536


def test_a_pause_holds_the_body_back(on: Rig) -> None:
    server, session, client = on.server(lambda asked: asked.incoming.pause())
    client.send(POST.replace(b"5", b"20000000"))
    on.until(lambda: session.requests)
    asked = session.requests[0]
    client.send(b"x" * 20_000_000)
    for _ in range(30):
        on.turn()
    held = server.wire.bytes_received
    assert held < 2_000_000

    def resume() -> None:
        asked.incoming.resume()
        assert server.wire.bytes_received == held, "nothing is delivered from within resume"

    on.call(resume)
    on.until(lambda: asked.trailers is not None)
    assert len(asked.body) == 20_000_000


def test_a_pause_ends_with_its_request(on: Rig) -> None:
    _, session, client = on.server()
    client.send(POST)
    on.until(lambda: session.requests)
    asked = session.requests[0]
    client.send(b"hel")
    on.until(lambda: asked.body)
    on.call(asked.incoming.pause)
    on.call(asked.incoming.resume)
    client.send(b"lo")
    on.until(lambda: asked.trailers is not None)
    on.call(asked.incoming.pause)
    on.call(lambda: ok(asked))
    client.send(GET)
    on.until(lambda: len(session.requests) == 2)
    on.call(asked.incoming.pause)
    on.call(lambda: asked.incoming.reset(CloseReason.INTERNAL, "of a request that is over"))
    on.call(lambda: ok(session.requests[1]))
    on.until(lambda: client.received == OK * 2)


def test_a_pause_ends_with_the_body_so_that_a_client_that_goes_away_is_noticed(on: Rig) -> None:
    class Pausing(Asked):
        def on_request_data(self, data: object) -> None:
            self.incoming.pause()

    _, session, client = on.server()
    pausing: list[Asked] = []

    def on_request(incoming: Incoming) -> Asked:
        pausing.append(Pausing(incoming))
        return pausing[-1]

    session.on_request = on_request  # type: ignore[method-assign]
    client.send(POST + b"hello")
    on.until(lambda: pausing and pausing[0].trailers is not None)
    client.close()
    on.until(lambda: pausing[0].lost)


# --- ends


def test_a_client_that_goes_away(on: Rig) -> None:
    for reset in (False, True):
        _, session, client = on.server()
        client.send(GET)
        on.until(lambda session=session: session.requests)  # type: ignore[misc]
        client.close(reset=reset)
        on.until(lambda session=session: session.closed)  # type: ignore[misc]
        lost = session.requests[0].lost
        assert lost is not None
        assert lost[0] is session.closed[0][0] is CloseReason.CLIENT_RESET


def test_a_client_that_goes_away_in_the_middle_of_its_body(on: Rig) -> None:
    _, session, client = on.server()
    client.send(POST + b"he")
    on.until(lambda: session.requests)
    client.finish()
    on.until(lambda: session.closed)
    assert session.requests[0].trailers is None
    assert session.requests[0].lost is not None


def test_a_client_that_goes_away_between_requests(on: Rig) -> None:
    _, session, client = on.server(ok)
    client.send(GET)
    on.until(lambda: client.received == OK)
    client.finish()
    on.until(lambda: session.closed)
    assert session.closed == [(CloseReason.CLIENT_EOF, "")]
    on.until(lambda: client.ended == "end")


def test_draining(on: Rig) -> None:
    idle, idle_session, idle_client = on.server()
    busy, busy_session, busy_client = on.server()
    late, late_session, late_client = on.server()
    for client, session in ((busy_client, busy_session), (late_client, late_session)):
        client.send(GET)
        on.until(lambda session=session: session.requests)  # type: ignore[misc]
    late_incoming = late_session.requests[0].incoming
    on.call(lambda: late_incoming.respond(ResponseHead(200, length=2), end=False))
    for server in (idle, busy, late, idle, busy, late):
        on.call(server.drain)
    on.until(lambda: idle_client.ended == "end")
    assert not busy_client.ended
    on.call(lambda: ok(busy_session.requests[0]))
    on.call(lambda: late_incoming.send(b"ok"))
    on.call(lambda: late_incoming.finish([]))
    on.until(lambda: busy_client.ended == late_client.ended == "end")
    assert b"connection: close\r\n" in busy_client.received
    assert late_client.received == OK
    for client in (idle_client, busy_client, late_client):
        client.close()
    for session in (idle_session, busy_session, late_session):
        on.until(lambda session=session: session.closed)  # type: ignore[misc]
        assert session.closed[0][0] is CloseReason.DRAIN


def test_closing_tells_everybody_once(on: Rig) -> None:
    server, session, client = on.server()
    client.send(GET)
    on.until(lambda: session.requests)
    on.call(lambda: server.close(CloseReason.REVOKED, "denied now"))
    assert session.requests[0].lost == session.closed[0] == (CloseReason.REVOKED, "denied now")
    on.call(lambda: server.close(CloseReason.DRAIN, "again"))
    on.call(server.drain)
    on.until(lambda: client.ended == "reset")
    assert len(session.closed) == 1


def test_closing_does_not_wait_for_last_words(on: Rig) -> None:
    server, session, client = on.server()
    client.send(b"\r\n")
    on.until(lambda: client.ended)
    assert session.closed == []
    on.call(lambda: server.close(CloseReason.DRAIN, ""))
    assert len(session.closed) == 1
    on.turn()


def test_a_mistake_in_the_exchange_ends_this_connection_alone(on: Rig) -> None:
    def broken(_: Asked) -> None:
        raise ZeroDivisionError("a mistake")

    _, session, client = on.server(broken)
    client.send(GET)
    on.until(lambda: session.closed)
    assert session.closed == [(CloseReason.INTERNAL, "ZeroDivisionError: a mistake")]
    on.until(lambda: client.ended == "reset")


# --- tunnels


UPGRADE = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("client_first", [True, False])
def test_a_tunnel_ends_when_both_directions_have(on: Rig, client_first: bool) -> None:
    server, session, client = on.server()
    client.send(UPGRADE + b"early")
    on.until(lambda: session.requests)
    asked = session.requests[0]
    assert asked.head.upgrade == b"websocket"
    asked.trailers = None  # its body is over; what follows is another protocol's
    on.call(lambda: asked.incoming.respond(ResponseHead(101, upgrade=b"websocket"), end=False))
    on.until(lambda: asked.body == b"early")
    on.call(lambda: asked.incoming.send(b"hello"))
    on.until(lambda: client.received.endswith(b"upgrade: websocket\r\n\r\nhello"))
    client.send(b", late")
    on.until(lambda: asked.body == b"early, late")
    assert server.open_requests == 1
    if client_first:
        client.finish()
        on.until(lambda: asked.trailers is not None)
        on.call(lambda: asked.incoming.send(b" again"))
        on.call(lambda: asked.incoming.finish([]))
    else:
        on.call(lambda: asked.incoming.finish([]))
        on.until(lambda: client.ended == "end")
        client.send(b" again")
        client.finish()
        on.until(lambda: asked.trailers is not None)
        assert asked.body == b"early, late again"
    on.until(lambda: session.closed)
    assert session.closed[0][0] is CloseReason.CLIENT_EOF
    on.until(lambda: client.ended == "end")
    assert asked.lost is None
    assert client.received.endswith(b"hello again" if client_first else b"hello")


def test_a_tunnel_whose_client_has_ended_is_read_to_its_end(on: Rig) -> None:
    _, session, client = on.server()
    client.send(UPGRADE)
    on.until(lambda: session.requests)
    asked = session.requests[0]
    asked.trailers = None
    on.call(lambda: asked.incoming.respond(ResponseHead(101, upgrade=b"websocket"), end=False))
    on.until(lambda: client.received)
    client.received = b""
    client.finish()
    on.until(lambda: asked.trailers is not None)
    size = 20_000_000

    def answer() -> None:
        asked.incoming.send(b"x" * size)
        asked.incoming.finish([])

    client.open = False  # it reads nothing
    on.call(answer)
    on.turn()
    client.open = True
    on.until(lambda: session.closed)
    on.until(lambda: client.ended)
    assert (client.ended, len(client.received)) == ("end", size)


def test_a_refused_upgrade_leaves_the_connection_as_it_was(on: Rig) -> None:
    _, session, client = on.server(ok)
    client.send(UPGRADE + GET)
    on.until(lambda: client.received == OK * 2)
    assert len(session.requests) == 2


def test_a_tunnel_whose_client_ends_without_its_last_word(on: Rig) -> None:
    server, session, client = on.server()
    client.send(UPGRADE)
    on.until(lambda: session.requests)
    asked = session.requests[0]
    asked.trailers = None
    on.call(lambda: asked.incoming.respond(ResponseHead(101, upgrade=b"websocket"), end=False))
    on.call(lambda: server.on_end(cut=True))
    assert asked.lost is not None
    assert asked.trailers is None
    on.until(lambda: client.ended == "reset")


def test_a_tunnel_whose_client_is_lost(on: Rig) -> None:
    _, session, client = on.server()
    client.send(UPGRADE)
    on.until(lambda: session.requests)
    asked = session.requests[0]
    asked.trailers = None
    on.call(lambda: asked.incoming.respond(ResponseHead(101, upgrade=b"websocket"), end=False))
    on.until(lambda: client.received)
    client.close(reset=True)
    on.until(lambda: asked.lost)
    assert session.closed[0][0] is CloseReason.CLIENT_RESET
