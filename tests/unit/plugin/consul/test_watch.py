"""The rules of the blocking-query state machine, one by one, then under hostile sequences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.consul.transport import Reply
from plugin.consul.watch import BURST, POLLS_PER_S, WAIT_S, Backoff, Bucket, News, Pause, Poll, Watch
from plugin.errors import ConsulForbidden, ConsulRejected, ConsulUnavailable, GatewayError, UnknownKind


def decode(reply: Reply) -> Any:
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConsulUnavailable(f"cannot be read: {error}") from error


def reply(index: int | None, value: Any = None, *, status: int = 200, body: bytes | None = None) -> Reply:
    return Reply(status, index, json.dumps(value).encode() if body is None else body, {})


@dataclass
class Script:
    """Drives a watch on a clock of its own."""

    watch: Watch[Any]
    now_s: float = 1000.0

    def poll(self) -> Poll:
        """Let the pauses pass."""
        while isinstance(step := self.watch.next(self.now_s), Pause):
            assert step.until_s > self.now_s
            self.now_s = step.until_s
        return step

    def answer(self, given: Reply | GatewayError, *, after_s: float = 0.01) -> News[Any] | None:
        self.now_s += after_s
        if isinstance(given, UnknownKind):
            return self.watch.unknown_kind(given, self.now_s)
        if isinstance(given, GatewayError):
            self.watch.fail(given, self.now_s)
            return None
        return self.watch.receive(given, self.now_s)


@pytest.fixture
def script() -> Script:
    return Script(Watch(decode))


def test_first_poll_does_not_block_and_the_next_one_does(script: Script) -> None:
    assert script.poll() == Poll(0, 0.0)
    assert script.answer(reply(7, ["a"])) == News(["a"], 7, changed=True, woken=True)
    assert script.poll() == Poll(7, WAIT_S)


def test_greater_index_with_other_content_is_news(script: Script) -> None:
    script.poll()
    script.answer(reply(7, ["a"]))
    script.poll()
    assert script.answer(reply(9, ["a", "b"])) == News(["a", "b"], 9, changed=True, woken=True)
    assert script.poll().index == 9


def test_greater_index_with_the_same_content_only_wakes(script: Script) -> None:
    script.poll()
    script.answer(reply(7, ["a"]))
    script.poll()
    assert script.answer(reply(8, ["a"])) == News(["a"], 8, changed=False, woken=True)


def test_wait_that_ends_without_news_confirms(script: Script) -> None:
    script.poll()
    script.answer(reply(7, ["a"]))
    script.poll()
    assert script.answer(reply(7, ["a"]), after_s=WAIT_S) == News(["a"], 7, changed=False, woken=False)
    assert script.watch.confirmed_s == script.now_s
    assert script.poll().index == 7


def test_content_that_changes_without_the_index_is_news(script: Script) -> None:
    script.poll()
    script.answer(reply(7, []))
    script.poll()
    assert script.answer(reply(7, ["a"]), after_s=WAIT_S) == News(["a"], 7, changed=True, woken=False)


def test_lower_index_is_not_believed_and_read_again_from_zero(script: Script) -> None:
    script.poll()
    script.answer(reply(70, ["a"]))
    script.poll()
    assert script.answer(reply(3, [])) is None
    assert script.watch.value == ["a"]
    assert script.poll() == Poll(0, 0.0)
    assert script.answer(reply(3, [])) == News([], 3, changed=True, woken=True)
    assert script.poll().index == 3


def test_index_zero_is_taken_as_one(script: Script) -> None:
    script.poll()
    script.answer(reply(0, ["a"]))
    assert script.poll() == Poll(1, WAIT_S)


def test_endpoint_without_index_is_asked_again_after_a_pause(script: Script) -> None:
    script.poll()
    before_s = script.now_s
    assert script.answer(reply(None, ["a"])) == News(["a"], 0, changed=True, woken=True)
    assert script.poll() == Poll(0, 0.0)
    assert 4.0 < script.now_s - before_s < 6.0


def test_404_with_an_index_is_known_absence_and_blocks(script: Script) -> None:
    script.poll()
    news = script.answer(reply(5, status=404, body=b"Config entry not found"))
    assert news == News(None, 5, changed=True, woken=True)
    assert script.watch.known
    assert script.poll() == Poll(5, WAIT_S)


def test_404_without_an_index_is_a_refusal(script: Script) -> None:
    script.poll()
    assert script.answer(reply(None, status=404, body=b"404 page not found")) is None
    assert isinstance(script.watch.problem, ConsulRejected)
    assert not script.watch.known


@pytest.mark.parametrize(
    ("problem", "at_least_s", "at_most_s"),
    [
        (ConsulUnavailable("refused"), 0.1, 0.5),
        (ConsulForbidden("no", 'service "a" { policy = "read" }'), 1.0, 2.0),
        (ConsulRejected("bad", 400), 8.0, 12.0),
    ],
)
def test_failure_keeps_the_value_pauses_and_reads_afresh(
    script: Script, problem: GatewayError, at_least_s: float, at_most_s: float
) -> None:
    script.poll()
    script.answer(reply(7, ["a"]))
    script.poll()
    script.answer(problem)
    failed_at_s = script.now_s
    assert (script.watch.value, script.watch.known, script.watch.problem) == (["a"], True, problem)
    assert script.poll() == Poll(0, 0.0)
    assert at_least_s <= script.now_s - failed_at_s <= at_most_s
    assert script.answer(reply(7, ["a"])) is not None
    assert script.watch.problem is None


def test_when_the_token_may_read_more_a_pause_ends_and_the_index_is_forgotten(script: Script) -> None:
    script.poll()
    script.answer(reply(7, ["a"]))
    script.poll()
    script.answer(ConsulForbidden("no"))
    script.watch.postpone(100.0)
    step = script.watch.next(script.now_s)
    assert isinstance(step, Pause)
    assert step.until_s >= script.now_s + 100.0
    script.watch.ask_afresh()
    assert script.watch.next(script.now_s) == Poll(0, 0.0)
    script.answer(reply(7, ["a"]))
    script.watch.ask_afresh()
    assert script.watch.next(script.now_s) == Poll(0, 0.0)


def test_truncated_json_changes_nothing(script: Script) -> None:
    script.poll()
    script.answer(reply(7, ["a"]))
    script.poll()
    assert script.answer(reply(8, body=b'["a", "b')) is None
    assert isinstance(script.watch.problem, ConsulUnavailable)
    assert script.poll() == Poll(0, 0.0)
    assert script.answer(reply(8, ["a", "b"])) == News(["a", "b"], 8, changed=True, woken=True)


def test_hot_key_is_polled_at_a_bounded_rate(script: Script) -> None:
    began_s, polls = script.now_s, 400
    for index in range(1, polls + 1):
        script.poll()
        script.answer(reply(index, index), after_s=0.001)
    assert script.now_s - began_s >= (polls - BURST - 1) / POLLS_PER_S


def test_quiet_key_is_never_slowed_down(script: Script) -> None:
    for index in range(1, 50):
        script.poll()
        asked_at_s = script.now_s
        script.answer(reply(index, index), after_s=1.0)
        assert script.now_s == asked_at_s + 1.0
        assert isinstance(script.watch.next(script.now_s), Poll)
        script.now_s += 1.0


def test_backoff_grows_is_capped_and_survives_long_outages() -> None:
    backoff = Backoff()
    pauses = [backoff.failed(ConsulUnavailable("away")) for _ in range(5000)]
    assert max(pauses) <= 8.1
    assert min(pauses) >= 0.1
    assert max(pauses[:1]) <= 0.5
    assert len({round(pause, 6) for pause in pauses[-50:]}) > 10, "no jitter"
    backoff.succeeded()
    assert backoff.failed(ConsulUnavailable("away")) <= 0.5


def test_bucket_never_gives_more_than_its_burst_after_a_long_rest() -> None:
    bucket = Bucket(3, 1.0)
    bucket.take(0.0)
    assert [bucket.take(1e6) for _ in range(5)] == [0.0, 0.0, 0.0, 1.0, 2.0]


def test_kind_that_this_consul_is_too_old_for_is_known_absence(script: Script) -> None:
    script.poll()
    assert script.answer(UnknownKind("no kind mesh", 500)) == News(None, 0, changed=True, woken=True)
    assert (script.watch.known, script.watch.problem, script.watch.note) == (True, None, "no kind mesh")
    before_s = script.now_s
    assert script.poll() == Poll(0, 0.0)
    assert script.now_s - before_s > 30
    assert script.answer(UnknownKind("no kind mesh", 500)) == News(None, 0, changed=False, woken=False)


def test_kind_is_known_after_an_upgrade(script: Script) -> None:
    script.poll()
    script.answer(UnknownKind("no kind mesh", 500))
    script.poll()
    assert script.answer(reply(9, ["a"])) == News(["a"], 9, changed=True, woken=True)
    assert script.watch.note == ""
    assert script.poll() == Poll(9, WAIT_S)


def test_restart_of_an_agent_as_recorded(script: Script) -> None:
    """Blocking read of config/service-resolver while a development agent is restarted without its state."""
    said = [
        script.poll() and script.answer(reply(125, [{"Name": "db"}])),
        script.poll() and script.answer(ConsulUnavailable("Server disconnected")),
        script.poll() and script.answer(ConsulUnavailable("Cannot connect")),
        script.poll() and script.answer(ConsulUnavailable("500 No cluster leader")),
        script.poll() and script.answer(reply(16, [])),
    ]
    assert [news.changed if news else None for news in said] == [True, None, None, None, True]
    assert script.poll().index == 16
    assert script.watch.value == []


VALUES = st.integers(0, 3).map(lambda n: ["value", n])
HOSTILE = st.one_of(
    st.builds(reply, st.one_of(st.none(), st.integers(0, 2**64 - 1), st.integers(0, 5)), VALUES),
    st.builds(
        lambda index, body: Reply(200, index, body, {}),
        st.one_of(st.none(), st.integers(0, 9)),
        st.binary(max_size=8),
    ),
    st.builds(
        lambda index: Reply(404, index, b"not found", {}),
        st.one_of(st.none(), st.integers(0, 9)),
    ),
    st.sampled_from([ConsulUnavailable("x"), ConsulForbidden("x"), ConsulRejected("x", 400)]),
)


@given(st.lists(st.tuples(HOSTILE, st.floats(0.0, 100.0)), max_size=60))
def test_hostile_sequences_neither_stop_nor_spin_nor_invent(sequence: list[tuple[Reply | GatewayError, float]]) -> None:
    script = Script(Watch(decode))
    began_s, published = script.now_s, False
    for given_reply, after_s in sequence:
        before = script.watch.value
        asked = script.poll()
        assert asked.index == script.watch.index >= 0
        assert asked.wait_s == (WAIT_S if asked.index else 0.0)
        news = script.answer(given_reply, after_s=after_s)
        if news is None:
            assert script.watch.value == before
        else:
            assert isinstance(given_reply, Reply)
            assert news.value == (None if given_reply.status == 404 else decode(given_reply))
            assert news.value == script.watch.value
            assert news.changed == (not published or news.value != before)
            published = True
        assert script.watch.known == published
        believed = news is not None and isinstance(given_reply, Reply) and given_reply.index is not None
        assert script.watch.index == (max(1, given_reply.index or 0) if believed else 0)  # type: ignore[union-attr]
    assert script.watch.requests == len(sequence)
    assert script.watch.requests <= BURST + 1 + (script.now_s - began_s) * POLLS_PER_S
    assert script.poll(), "a watch never gives up"
