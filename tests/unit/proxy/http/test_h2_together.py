"""Both sides of HTTP/2 with each other: whatever is sent, paused and taken back in whatever order, everybody else's
messages arrive whole, and nothing is kept in the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.http.h2.client import H2Client, H2Request
from proxy.http.h2.server import H2Server
from proxy.http.message import UNKNOWN_LENGTH, Headers, RequestHead, ResponseHead, Version
from proxy.model import CloseReason
from tests.support.http_sides import Answer, Bench, Exchange, Pool, Session

TRAILERS: Headers = [(b"checksum", b"1")]


@dataclass
class Plan:
    """One request and its response, in pieces."""

    request: list[int]
    response: list[int]
    announced: bool
    """The lengths of both are, and there are no trailers."""
    taken_back: bool
    """By the client, after the first piece of the response."""


@dataclass
class Message:
    """One side of a plan while it is carried out."""

    plan: Plan
    outgoing: H2Request
    answer: Answer
    exchange: Exchange
    steps: list[str] = field(default_factory=list)
    sent: dict[str, bytes] = field(default_factory=lambda: {"request": b"", "response": b""})


SIZES = st.lists(st.sampled_from([1, 100, 3_000, 20_000, 70_000]), max_size=4)
PLANS = st.lists(
    st.builds(Plan, SIZES, SIZES, st.booleans(), st.sampled_from([False, False, True])), min_size=1, max_size=5
)
ORDER = st.lists(st.integers(0, 1_000), max_size=60)


class Play:
    def __init__(self, plans: list[Plan], first_window: int) -> None:
        self.bench = Bench()
        one, other = self.bench.joined()
        self.session, self.pool = Session(), Pool()
        limits = {"first_window": first_window, "window": 50_000, "connection_window": 100_000}
        self.server = H2Server(other, self.session, **limits)
        self.client = H2Client(one, self.pool, **limits)
        self.server.start()
        self.client.start()
        self.bench.turns(3)
        self.messages = [self.begin(plan) for plan in plans]

    def begin(self, plan: Plan) -> Message:
        total, heard = sum(plan.request), len(self.session.exchanges)
        length = total if plan.announced else UNKNOWN_LENGTH
        version = Version.HTTP_1_1 if plan.announced else Version.HTTP_2
        head = RequestHead(b"POST", b"/", b"db.example", version, length=length, has_length=plan.announced)
        answer = Answer()
        with self.bench.turn.one():
            outgoing = self.client.request(head, answer, end=plan.announced and not total)
        self.bench.until(lambda: len(self.session.exchanges) > heard)
        message = Message(plan, outgoing, answer, self.session.exchanges[heard])
        pieces = [f"request {size}" for size in plan.request] + ["finish request"]
        answers = ["respond"] + [f"response {size}" for size in plan.response] + ["finish response"]
        if plan.taken_back:
            answers[2:2] = ["take back"]
        message.steps = ["pause", "stop", *pieces, "resume", *answers, "go on"]
        return message

    def step(self, message: Message) -> None:
        plan, incoming, outgoing = message.plan, message.exchange.incoming, message.outgoing
        step, _, size = message.steps.pop(0).partition(" ")
        data = bytes([len(message.steps)]) * int(size) if size.isdigit() else b""
        match step:
            case "request":
                message.sent["request"] += data
                outgoing.send(data)
            case "response":
                message.sent["response"] += data
                incoming.send(data)
            case "finish" if size == "request":
                outgoing.finish([] if plan.announced else TRAILERS)
            case "finish":
                incoming.finish([] if plan.announced else TRAILERS)
            case "respond":
                total = sum(plan.response)
                length = total if plan.announced else UNKNOWN_LENGTH
                version = Version.HTTP_1_1 if plan.announced else Version.HTTP_2
                head = ResponseHead(
                    200, length=length, announced_length=total if plan.announced else None, version=version
                )
                incoming.respond(head, end=plan.announced and not total)
            case "take":
                outgoing.reset()
            case "pause":
                incoming.pause()
            case "resume":
                incoming.resume()
            case "stop":
                outgoing.pause()
            case _:
                outgoing.resume()

    def run(self, order: list[int]) -> None:
        while any(message.steps for message in self.messages):
            self.bench.until(self.ready)
            ready, number = self.ready(), order.pop() if order else 0
            with self.bench.turn.one():
                self.step(ready[number % len(ready)])
            self.bench.turns(number % 3)

    def ready(self) -> list[Message]:
        """A response begins when its request is complete."""
        return [one for one in self.messages if one.steps and (one.steps[0] != "respond" or one.exchange.over)]


@settings(deadline=None, max_examples=60)
@given(plans=PLANS, order=ORDER, first_window=st.sampled_from([500, 20_000, 50_000]))
def test_messages_arrive_whole_and_nothing_is_kept(plans: list[Plan], order: list[int], first_window: int) -> None:
    play = Play(plans, first_window)
    try:
        play.run(order)
        play.bench.until(lambda: not play.client.open_requests and not play.server.open_requests)
        for message in play.messages:
            if message.plan.taken_back:
                continue
            end = [] if message.plan.announced else TRAILERS
            assert message.exchange.body == message.sent["request"]
            assert message.exchange.trailers == end
            assert message.answer.body == message.sent["response"]
            assert message.answer.trailers == end
        assert (play.session.closed, play.pool.gone) == (None, 0)
        play.bench.until(lambda: play.bench.buffers.stalled == 0)
        assert play.client.engine.streams == play.server.engine.streams == {}
        play.server.close(CloseReason.DRAIN, "")
        play.bench.until(lambda: play.pool.gone)
    finally:
        play.bench.close()
