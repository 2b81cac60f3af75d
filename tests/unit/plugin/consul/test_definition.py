from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from plugin import definition
from plugin.addresses import HostPort
from plugin.consul.client import ConsulClient
from plugin.consul.transport import Reply
from plugin.definition import Definition
from plugin.errors import ConfigError, ConsulUnavailable

AT = HostPort("10.0.0.5", 8443)
EXTRA = {"envoy_gateway_bind_addresses": {"extra": {"Address": "10.0.0.6", "Port": 1}}}


class Agent:
    """Answers with one definition after the other; ``None`` is one that it does not have."""

    def __init__(self, *answers: Mapping[str, Any] | Exception | None) -> None:
        self.transport = self
        self._answers = list(answers)

    async def request(self, method: str, path: str, params: object = (), **_: object) -> Reply:
        assert (method, path) == ("GET", "/v1/agent/service/gw")
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return Reply(404, None, b"unknown service", {})
        return Reply(200, None, json.dumps(answer).encode(), {})


def registered(config: Mapping[str, Any], number: int = 1, **fields: Any) -> dict[str, Any]:
    return {"Kind": "terminating-gateway", "ContentHash": str(number), "Proxy": {"Config": config}, **fields}


def following(agent: Agent, own: Mapping[str, object] | None = None) -> tuple[Definition, list[Mapping[str, object]]]:
    learned: list[Mapping[str, object]] = []
    return Definition(cast(ConsulClient, agent), "gw", AT, own or {}, learned=learned.append), learned


async def follow(followed: Definition) -> None:
    """Until the agent has nothing more to say."""
    with pytest.raises(IndexError):
        await followed.run()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definition, "RETRY_S", (0.0,))


async def test_the_flags_lie_over_the_definition() -> None:
    followed, learned = following(Agent(registered({"a": 1, "b": 1, **EXTRA})), {"b": 2})
    assert await followed.bind() == (AT, HostPort("10.0.0.6", 1))
    assert learned == [{"a": 1, "b": 2, **EXTRA}]


async def test_its_tagged_addresses_are_bound() -> None:
    tagged = {"wan": {"Address": "10.0.0.7", "Port": 2}}
    agent = Agent(registered({"envoy_gateway_bind_tagged_addresses": True}, TaggedAddresses=tagged))
    assert await following(agent)[0].bind() == (AT, HostPort("10.0.0.7", 2))


async def test_it_is_waited_for_and_then_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    followed, _ = following(Agent(ConsulUnavailable("away"), None, registered(EXTRA)))
    assert len(await followed.bind()) == 2
    monkeypatch.setattr(definition, "PATIENCE_S", 0.0)
    followed, learned = following(Agent(None))
    assert await followed.bind() == (AT,)
    assert "register it" in followed.problem
    assert learned == []


async def test_an_address_that_cannot_be_used_is_named_at_the_start() -> None:
    followed, _ = following(Agent(registered({"envoy_gateway_bind_addresses": {"x": {"Address": "gw", "Port": 1}}})))
    with pytest.raises(ConfigError, match=r"envoy_gateway_bind_addresses\['x'\]"):
        await followed.bind()


@pytest.mark.parametrize(
    ("later", "problem"),
    [
        (registered({"connect_timeout_ms": 1}, 2), ""),
        (registered({"envoy_gateway_no_default_bind": True}, 2), "cannot be bound, what is bound stays"),
        (registered({}, 2, Kind="connect-proxy"), "is registered as connect-proxy"),
        (None, "register it"),
        (ConsulUnavailable("away"), "cannot read the definition of gw: away"),
    ],
)
async def test_what_it_says_later_applies_or_is_reported(
    later: Mapping[str, Any] | Exception | None, problem: str
) -> None:
    followed, learned = following(Agent(registered({}), later))
    await followed.bind()
    await follow(followed)
    assert problem in followed.problem
    assert bool(problem) == bool(followed.problem)
    assert len(learned) == (1 if later is None or isinstance(later, Exception) else 2)


async def test_what_it_names_later_is_bound_and_what_it_leaves_out_is_not() -> None:
    bound: list[tuple[HostPort, ...]] = []
    followed, _ = following(Agent(registered({}), registered(EXTRA, 2), registered({}, 3)))

    def bind(addresses: tuple[HostPort, ...]) -> tuple[str, ...]:
        bound.append(addresses)
        return ()

    followed.bind_now = bind
    await followed.bind()
    await follow(followed)
    assert bound == [(AT, HostPort("10.0.0.6", 1)), (AT,)]
    assert followed.problem == ""


async def test_what_cannot_be_bound_is_reported_and_tried_again() -> None:
    answers: list[tuple[str, ...]] = [("cannot listen on 10.0.0.6:1: another process listens there",), ()]
    followed, _ = following(Agent(registered({}), registered(EXTRA, 2), registered(EXTRA, 2)))
    seen: list[str] = []

    def bind(addresses: tuple[HostPort, ...]) -> tuple[str, ...]:
        seen.append(followed.problem)
        return answers.pop(0)

    followed.bind_now = bind
    await followed.bind()
    await follow(followed)
    assert seen == ["", "cannot listen on 10.0.0.6:1: another process listens there"]
    assert followed.problem == ""


async def test_a_problem_is_forgotten_when_the_definition_is_as_before() -> None:
    followed, _ = following(Agent(registered({}), registered(EXTRA, 2), registered({}, 3)))
    await followed.bind()
    await follow(followed)
    assert followed.problem == ""
