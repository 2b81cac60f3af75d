"""One request and its response, with both sides played by hand: orders of events that no real peer makes on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from proxy.errors import UpstreamError
from proxy.http.exchange import Exchange, Phase
from proxy.http.message import UNKNOWN_LENGTH, Data, Headers, RequestHead, ResponseHead, Version
from proxy.http.session import HTTPSession
from proxy.http.streams import OutgoingEvents
from proxy.http.wire import Turn
from proxy.model import Balance, CloseReason, Endpoint, HTTPSettings, ServiceName
from proxy.policy.identity import Identity
from proxy.policy.intentions import Decision, Policy
from proxy.rules import Action
from proxy.sockets.timers import Timers
from proxy.upstream.balance import EndpointSet
from proxy.upstream.dial import Target
from proxy.upstream.rivals import Rivals

ENDPOINT = Endpoint("10.0.0.1", 80)
LOST = UpstreamError(CloseReason.UPSTREAM_RESET, "gone")


def decided(action: Action) -> Decision:
    policy = Policy(service=ServiceName("db"), trust_domain="td", default_action=action, intentions=(), peer_bundles=())
    return policy.authorize(Identity("td", "web"))


class Client:
    """An ``Incoming`` that keeps what it was told."""

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.informed: list[int] = []
        self.responses: list[ResponseHead] = []
        self.body = bytearray()
        self.finished: Headers | None = None
        self.reset_for: CloseReason | None = None
        self.paused = False
        self.room = True

    def inform(self, head: ResponseHead) -> None:
        self.informed.append(head.status)

    def respond(self, head: ResponseHead, *, end: bool) -> None:
        assert not self.responses, "a second response"
        self.responses.append(head)
        if end:
            self.finished = []

    def send(self, data: Data) -> bool:
        assert self.finished is None
        self.body += data
        return self.room

    def finish(self, trailers: Headers) -> None:
        assert self.finished is None
        self.finished = trailers

    def reset(self, reason: CloseReason, detail: str) -> None:
        assert self.finished is None
        self.reset_for = reason

    def waits(self) -> bool:
        return self.paused

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    @property
    def status(self) -> int:
        (response,) = self.responses
        return response.status


class Upstream:
    """A connection to an external service, and every request on it."""

    def __init__(self) -> None:
        self.endpoint = ENDPOINT
        self.served = 0
        self.asked: list[Asked] = []

    def request(self, head: RequestHead, events: OutgoingEvents, *, end: bool) -> Asked:
        self.served += 1
        self.asked.append(Asked(head, end))
        return self.asked[-1]


class Asked:
    """An ``Outgoing``."""

    def __init__(self, head: RequestHead, end: bool) -> None:
        self.head = head
        self.body = bytearray()
        self.finished: Headers | None = [] if end else None
        self.was_reset = False
        self.paused = False
        self.room = True

    def send(self, data: Data) -> bool:
        assert self.finished is None
        self.body += data
        return self.room

    def finish(self, trailers: Headers) -> None:
        assert self.finished is None
        self.finished = trailers

    def end_of_request(self) -> Headers | None:
        """A tunnel that follows has a direction of its own."""
        ended, self.finished = self.finished, None
        return ended

    def reset(self) -> None:
        self.was_reset = True

    def waits(self) -> bool:
        return self.paused

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Stage:
    """An exchange whose search is answered by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, head: RequestHead, *, timeout_s: float = 0.0) -> None:
        self.loop = asyncio.new_event_loop()
        self.client = Client(head)
        self.upstream = Upstream()
        self.searches: list[dict[str, Any]] = []
        self.cancelled = 0
        self.decision = decided(Action.ALLOW)
        self.ended: list[Exchange] = []
        endpoints = EndpointSet((ENDPOINT,), Balance())
        target = Target(endpoints=endpoints, rivals=Rivals((ENDPOINT,)), connect_timeout_s=1.0)
        service = SimpleNamespace(name=ServiceName("db"), http=HTTPSettings(request_timeout_s=timeout_s))
        self.endpoints = endpoints
        self.route = SimpleNamespace(state=SimpleNamespace(service=service), target=target)
        plane = SimpleNamespace(
            loop=self.loop,
            poller=SimpleNamespace(timers=Timers(self.loop)),
            turn=Turn(self.loop),
            too_old=lambda: "",
            audit=SimpleNamespace(request_allowed=lambda *_: None),
        )
        session = SimpleNamespace(
            plane=plane,
            life=SimpleNamespace(client_ip="10.9.9.9"),
            current_route=lambda: self.route,
            prepared=lambda asked: asked,
            decide=lambda *_: self.decision,
            for_upstream=lambda _route, asked, *_: asked,
            trailers_for_upstream=lambda trailers: trailers,
            ended=self.ended.append,
            report=lambda _: None,
        )
        stage = self

        class Search:
            def __init__(self, *_: object) -> None: ...

            def start(self, *_: object, **how: Any) -> None:
                stage.searches.append(how)

            def cancel(self) -> None:
                stage.cancelled += 1

        monkeypatch.setattr("proxy.http.exchange.Search", Search)
        monkeypatch.setattr("proxy.http.exchange.take", lambda *_, **__: None)
        self.exchange = Exchange(cast(HTTPSession, session), self.client)
        self.exchange.begin()

    def reach(self) -> Asked:
        self.exchange.on_reached(cast(Any, self.upstream))
        return self.upstream.asked[-1]

    def check_over(self, reason: CloseReason) -> None:
        assert self.exchange.phase is Phase.OVER
        assert (self.exchange.reason, self.ended) == (reason, [self.exchange])
        assert self.endpoints.load(ENDPOINT) == 0


Make = Callable[..., Stage]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    stages: list[Stage] = []

    def make(
        method: bytes = b"GET",
        *,
        length: int = 0,
        timeout_s: float = 0.0,
        version: Version = Version.HTTP_1_1,
        **fields: Any,
    ) -> Stage:
        head = RequestHead(method, b"/a", b"db", version, length=length, **fields)
        stages.append(Stage(monkeypatch, head, timeout_s=timeout_s))
        return stages[-1]

    yield make
    for one in stages:
        one.loop.close()


def test_what_came_before_there_was_a_connection_is_sent_on_it(stage: Make) -> None:
    one = stage(b"POST", length=UNKNOWN_LENGTH)
    assert one.client.waits()
    one.exchange.on_request_data(memoryview(b"already "))
    one.exchange.on_request_data(memoryview(b"read"))
    one.exchange.on_request_end([(b"x-sum", b"1")])
    asked = one.reach()
    assert (bytes(asked.body), asked.finished) == (b"already read", [])
    one.exchange.on_response(ResponseHead(200, length=2), end=False)
    one.exchange.on_response_data(b"ok")
    one.exchange.on_response_end([])
    assert (one.client.status, bytes(one.client.body), one.client.finished) == (200, b"ok", [])
    one.check_over(CloseReason.COMPLETED)


@pytest.mark.parametrize(("version", "passed_on"), [(Version.HTTP_1_1, []), (Version.HTTP_2, [(b"x-sum", b"1")])])
def test_trailers_of_a_request_go_on_over_http2_alone(stage: Make, version: Version, passed_on: list[object]) -> None:
    for early in (True, False):
        one = stage(b"POST", length=UNKNOWN_LENGTH, version=version)
        if early:
            one.exchange.on_request_end([(b"x-sum", b"1")])
        asked = one.reach()
        one.exchange.on_request_end([(b"x-sum", b"1")])
        assert asked.finished == passed_on


def test_a_side_that_takes_no_more_stops_the_other(stage: Make) -> None:
    one = stage(b"POST", length=UNKNOWN_LENGTH)
    asked = one.reach()
    assert not one.client.waits()
    asked.room = one.client.room = False
    one.exchange.on_request_data(b"up")
    assert one.client.waits()
    one.exchange.on_upstream_room()
    assert not one.client.waits()
    one.exchange.on_response(ResponseHead(200, length=UNKNOWN_LENGTH), end=False)
    one.exchange.on_response_data(b"down")
    assert asked.waits()
    one.exchange.on_client_room()
    assert not asked.waits()


def test_a_body_that_fills_a_new_connection_stays_paused(stage: Make) -> None:
    one = stage(b"POST", length=UNKNOWN_LENGTH)
    one.exchange.on_request_data(b"much")
    monkey = Asked.send
    try:
        Asked.send = lambda self, data: False  # type: ignore[method-assign]
        one.reach()
    finally:
        Asked.send = monkey  # type: ignore[method-assign]
    assert one.client.waits()


def test_a_client_that_goes_while_a_connection_is_sought_leaves_nothing(stage: Make) -> None:
    one = stage()
    one.exchange.on_request_lost(CloseReason.CLIENT_RESET, "gone")
    assert (one.cancelled, one.client.responses, one.exchange.flags) == (1, [], "DC")
    one.check_over(CloseReason.CLIENT_RESET)


def test_a_client_that_goes_takes_its_request_back(stage: Make) -> None:
    one = stage()
    asked = one.reach()
    assert one.endpoints.load(ENDPOINT) == 1
    one.exchange.on_request_lost(CloseReason.CLIENT_RESET, "gone")
    assert asked.was_reset
    one.check_over(CloseReason.CLIENT_RESET)


def test_a_response_before_the_end_of_the_request_is_the_end(stage: Make) -> None:
    one = stage(b"POST", length=100)
    one.reach()
    one.exchange.on_response(ResponseHead(413), end=True)
    one.check_over(CloseReason.COMPLETED)
    one.exchange.on_request_data(b"late")
    one.exchange.on_request_end([])
    one.exchange.on_request_lost(CloseReason.CLIENT_RESET, "late")
    one.exchange.on_client_room()
    one.exchange.on_upstream_room()
    one.check_over(CloseReason.COMPLETED)


def test_interim_responses_are_passed_on(stage: Make) -> None:
    one = stage()
    one.reach()
    one.exchange.on_informed(ResponseHead(103))
    one.exchange.on_response(ResponseHead(200), end=True)
    assert one.client.informed == [103]


def test_what_was_not_looked_at_is_asked_again_elsewhere(stage: Make) -> None:
    one = stage(b"POST")
    one.reach()
    one.exchange.on_response_lost(LOST, unprocessed=True)
    assert one.searches[1]["avoided"] == ENDPOINT
    one.reach()
    one.exchange.on_response_lost(LOST, unprocessed=True)
    one.reach()
    one.exchange.on_response_lost(LOST, unprocessed=True)
    assert one.client.status == 503
    assert len(one.searches) == 3
    one.check_over(CloseReason.UPSTREAM_RESET)


def test_a_kept_connection_that_had_ended_is_replaced_by_a_new_one(stage: Make) -> None:
    one = stage()
    one.upstream.served = 1
    one.reach()
    one.exchange.on_response_lost(LOST, unprocessed=False)
    assert one.searches[1]["fresh"]
    one.upstream.served = 0
    one.reach()
    one.exchange.on_response_lost(LOST, unprocessed=False)
    assert (one.client.status, one.exchange.flags) == (503, "UC")


@pytest.mark.parametrize("method", [b"POST", b"PATCH"])
def test_what_may_have_been_done_is_not_asked_again(stage: Make, method: bytes) -> None:
    one = stage(method)
    one.upstream.served = 1
    one.reach()
    one.exchange.on_response_lost(LOST, unprocessed=False)
    assert (one.client.status, len(one.searches)) == (503, 1)


def test_a_small_body_that_was_not_looked_at_is_sent_again(stage: Make) -> None:
    one = stage(b"POST", length=UNKNOWN_LENGTH)
    one.exchange.on_request_data(b"be")
    one.reach()
    one.exchange.on_request_data(b"fore")
    one.exchange.on_response_lost(LOST, unprocessed=True)
    assert one.client.waits()
    one.exchange.on_request_data(b", meanwhile")
    asked = one.reach()
    assert not one.client.waits()
    one.exchange.on_request_data(b", after")
    one.exchange.on_request_end([(b"x", b"y")])
    assert (bytes(asked.body), asked.finished) == (b"before, meanwhile, after", [])
    one.exchange.on_response_lost(LOST, unprocessed=True)
    asked = one.reach()
    assert (bytes(asked.body), asked.finished) == (b"before, meanwhile, after", [])


def test_nothing_is_asked_again_that_is_not_at_hand_or_after_something_was_told(stage: Make) -> None:
    large = stage(b"PUT", length=100_000)
    large.reach()
    for _ in range(10):
        large.exchange.on_request_data(b"x" * 10_000)
    large.exchange.on_request_end([])
    large.exchange.on_response_lost(LOST, unprocessed=True)
    with_body = stage(b"PUT", length=3)
    with_body.upstream.served = 1
    with_body.reach()
    with_body.exchange.on_request_data(b"abc")
    with_body.exchange.on_request_end([])
    with_body.exchange.on_response_lost(LOST, unprocessed=False)
    informed = stage()
    informed.upstream.served = 1
    informed.reach()
    informed.exchange.on_informed(ResponseHead(103))
    informed.exchange.on_response_lost(LOST, unprocessed=False)
    for one in (large, with_body, informed):
        assert (one.client.status, len(one.searches)) == (503, 1)


def test_a_response_that_is_lost_in_the_middle_is_reset(stage: Make) -> None:
    one = stage()
    one.reach()
    one.exchange.on_response(ResponseHead(200, length=10), end=False)
    one.exchange.on_response_lost(UpstreamError(CloseReason.BAD_RESPONSE, "x"), unprocessed=False)
    assert (one.client.reset_for, one.exchange.flags) == (CloseReason.BAD_RESPONSE, "UPE")
    one.check_over(CloseReason.BAD_RESPONSE)


def test_denied_at_once_nothing_is_sought(stage: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = stage()
    allowed.decision = decided(Action.DENY)
    assert allowed.exchange.reconsider(cast(Any, allowed.route))
    assert (allowed.client.status, allowed.cancelled) == (403, 1)
    allowed.check_over(CloseReason.REVOKED)
    assert not allowed.exchange.reconsider(cast(Any, allowed.route))


def test_denied_in_the_middle_of_a_response_it_is_reset(stage: Make) -> None:
    one = stage()
    asked = one.reach()
    one.exchange.on_response(ResponseHead(200, length=UNKNOWN_LENGTH), end=False)
    assert not one.exchange.reconsider(cast(Any, one.route))
    one.decision = decided(Action.DENY)
    assert one.exchange.reconsider(cast(Any, one.route))
    assert (one.client.reset_for, asked.was_reset) == (CloseReason.REVOKED, True)
    one.check_over(CloseReason.REVOKED)


def test_a_tunnel_lasts_until_both_directions_have_ended(stage: Make) -> None:
    one = stage(upgrade=b"websocket")
    asked = one.reach()
    one.exchange.on_request_end([])
    assert asked.end_of_request() == []
    one.exchange.on_response(ResponseHead(101, upgrade=b"websocket"), end=False)
    one.exchange.on_request_data(b"ping")
    one.exchange.on_response_data(b"pong")
    one.exchange.on_request_end([])
    assert (bytes(asked.body), asked.finished) == (b"ping", [])
    assert one.exchange.phase is Phase.ANSWERING
    one.exchange.on_response_end([])
    assert (bytes(one.client.body), one.client.finished) == (b"pong", [])
    one.check_over(CloseReason.COMPLETED)


def test_the_time_begins_with_the_end_of_the_request(stage: Make) -> None:
    one = stage(b"POST", length=UNKNOWN_LENGTH, timeout_s=0.01)
    asked = one.reach()
    one.loop.run_until_complete(asyncio.sleep(0.05))
    assert one.client.responses == []
    one.exchange.on_request_end([])
    one.loop.run_until_complete(asyncio.sleep(0.05))
    assert (one.client.status, one.exchange.flags, asked.was_reset) == (504, "UT", True)
    one.check_over(CloseReason.REQUEST_TIMEOUT)


@pytest.mark.parametrize("reused", [False, True])
def test_only_what_the_service_has_done_counts_against_it(
    stage: Make, monkeypatch: pytest.MonkeyPatch, reused: bool
) -> None:
    learned: list[bool] = []

    def note(self: EndpointSet, endpoint: Endpoint, *, failed: bool) -> int:
        learned.append(failed)
        return 0

    monkeypatch.setattr(EndpointSet, "answered", note)

    def asked() -> Stage:
        one = stage(b"POST", timeout_s=0.01)
        one.endpoints.learns_from_answers = True
        one.upstream.served = int(reused)
        one.reach()
        return one

    asked().exchange.on_response(ResponseHead(500), end=True)
    asked().exchange.on_response(ResponseHead(404), end=True)
    assert learned == [True, False]
    asked().exchange.on_response_lost(LOST, unprocessed=True)
    asked().exchange.on_response_lost(UpstreamError(CloseReason.BAD_REQUEST, ""), unprocessed=False)
    asked().exchange.on_request_lost(CloseReason.CLIENT_RESET, "")
    assert learned == [True, False]
    asked().exchange.on_response_lost(LOST, unprocessed=False)
    assert learned == [True, False, True][: 2 + (not reused)]
    last = asked()
    last.loop.run_until_complete(asyncio.sleep(0.05))
    assert (last.client.status, learned[-1]) == (504, True)


def test_a_stream_has_only_to_begin_in_time(stage: Make) -> None:
    one = stage(timeout_s=0.01)
    one.reach()
    one.exchange.on_response(ResponseHead(200, [(b"content-type", b"text/event-stream")], length=-1), end=False)
    one.loop.run_until_complete(asyncio.sleep(0.05))
    assert one.exchange.phase is Phase.ANSWERING
