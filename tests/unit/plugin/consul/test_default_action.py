"""What no intention matches: learned without ever taking an intention for the default."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul.api import IntentionMatch
from plugin.consul.client import ConsulClient
from plugin.observe.default_action import DefaultActionLearner, action_of_agent, reaches_everyone
from plugin.observe.store import FactStore
from proxy.rules import Action
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, status
from tests.unit.plugin.consul.test_store import entry


def matches(sources: dict[str, list[str]]) -> Any:
    def answer(request: web.Request) -> dict[str, Any]:
        return {
            name: [
                {"SourceName": source, "DestinationName": name, "Action": "allow"} for source in sources.get(name, [])
            ]
            or None
            for name in request.query.getall("name")
        }

    return answer


def default(allowed: bool) -> dict[str, Any]:
    return {"Authorized": allowed, "Reason": "Default behavior configured by ACLs"}


async def questions(fake: FakeConsul) -> list[dict[str, Any]]:
    return [await request.json() for request in fake.asked(endpoints.AUTHORIZE)]


@contextlib.asynccontextmanager
async def learning(fake: FakeConsul, *linked: str) -> AsyncIterator[tuple[FactStore, DefaultActionLearner]]:
    store = FactStore()
    store.entry.learned(entry(*linked))
    async with ConsulClient(fake.settings) as client:
        learner = DefaultActionLearner(client, store, "tgw")
        task = asyncio.get_running_loop().create_task(learner.run())
        try:
            yield store, learner
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values[endpoints.AGENT_SELF] = lambda _: web.Response(status=403, text="Permission denied")
        consul.values[endpoints.INTENTIONS] = []
        consul.values[endpoints.INTENTIONS_MATCH] = matches({})
        consul.values[endpoints.AUTHORIZE] = default(True)
        yield consul


@pytest.mark.parametrize(("allowed", "action"), [(True, Action.ALLOW), (False, Action.DENY)])
async def test_probe_asks_about_a_source_that_cannot_exist(fake: FakeConsul, allowed: bool, action: Action) -> None:
    fake.values[endpoints.AUTHORIZE] = default(allowed)
    async with learning(fake) as (store, _):
        await eventually(lambda: store.mesh_facts().default_action.known)
        assert store.mesh_facts().default_action.value is action
        (asked,) = await questions(fake)
        assert asked["Target"] == "tgw"
        assert len(asked["ClientCertURI"].rpartition("/")[2]) > 32


async def test_agent_that_may_be_asked_is_not_probed(fake: FakeConsul) -> None:
    fake.values[endpoints.AGENT_SELF] = {
        "Config": {"Datacenter": "dc7"},
        "DebugConfig": {"ACLsEnabled": True, "ACLResolverSettings": {"ACLDefaultPolicy": "deny"}},
    }
    async with learning(fake) as (store, _):
        await eventually(lambda: store.mesh_facts().default_action.known)
        assert store.mesh_facts().default_action.value is Action.DENY
        assert store.mesh_facts().datacenter == "dc7"
        assert not fake.asked(endpoints.AUTHORIZE)


async def test_destination_with_a_wildcard_source_is_passed_over(fake: FakeConsul) -> None:
    fake.values[endpoints.INTENTIONS_MATCH] = matches({"tgw": ["*"], "db": ["web"]})
    async with learning(fake, "db") as (store, _):
        await eventually(lambda: store.mesh_facts().default_action.known)
        assert [question["Target"] for question in await questions(fake)] == ["db"]


async def test_default_behind_wildcards_stays_unknown_until_intentions_change(fake: FakeConsul) -> None:
    fake.values[endpoints.INTENTIONS_MATCH] = matches({"tgw": ["*"], "db": ["web", "*"]})
    async with learning(fake, "db") as (store, learner):
        await eventually(lambda: store.mesh_facts().default_action.problem)
        assert not store.mesh_facts().default_action.known
        assert not fake.asked(endpoints.AUTHORIZE), "the answer would be that of an intention"
        fake.values[endpoints.INTENTIONS_MATCH] = matches({"tgw": ["*"], "db": ["web"]})
        learner.intentions_changed()
        await eventually(lambda: store.mesh_facts().default_action.value is Action.ALLOW)


async def test_intention_written_during_the_probe_is_never_taken_for_the_default(fake: FakeConsul) -> None:
    """``* -> tgw`` allow appears after the match and is gone again before the next one, while the default denies."""
    answers: list[bool] = []

    def check(_: web.Request) -> dict[str, Any]:
        intruding = len(answers) < 3
        answers.append(intruding)
        if intruding:
            fake.index += 2
        return default(intruding)

    fake.values[endpoints.AUTHORIZE] = check
    seen: list[Action | None] = []
    async with learning(fake) as (store, _):
        while not store.mesh_facts().default_action.known:
            await store.changed()
            seen.append(store.mesh_facts().default_action.value)
    assert answers == [True, True, True, False]
    assert seen[-1] is Action.DENY
    assert set(seen[:-1]) <= {None}


@pytest.mark.parametrize("reason", ["Matched L4 intention: ALLOW default/* => default/tgw", "something new", ""])
async def test_answer_for_any_other_reason_is_not_the_default(fake: FakeConsul, reason: str) -> None:
    """As from an agent whose cache still holds an intention that is gone."""
    fake.values[endpoints.AUTHORIZE] = {"Authorized": True, "Reason": reason}
    async with learning(fake) as (store, _):
        await eventually(lambda: store.mesh_facts().default_action.problem)
        assert not store.mesh_facts().default_action.known


async def test_agent_that_returned_is_asked_again_and_the_old_answer_stays_until_then(fake: FakeConsul) -> None:
    async with learning(fake) as (store, learner):
        await eventually(lambda: store.mesh_facts().default_action.known)
        fake.values[endpoints.AUTHORIZE] = default(False)
        fake.fail(endpoints.INTENTIONS, status(500, "No cluster leader"))
        learner.agent_returned()
        await eventually(lambda: store.mesh_facts().default_action.problem)
        assert store.mesh_facts().default_action.value is Action.ALLOW
        await eventually(lambda: store.mesh_facts().default_action.value is Action.DENY)


@pytest.mark.parametrize(
    ("config", "action"),
    [
        ({"ACLsEnabled": False}, Action.ALLOW),
        ({"ACLsEnabled": False, "DefaultIntentionPolicy": "deny"}, Action.DENY),
        ({"ACLsEnabled": True, "DefaultIntentionPolicy": "", "ACLDefaultPolicy": "deny"}, Action.DENY),
        ({"ACLsEnabled": True, "ACLResolverSettings": {"ACLDefaultPolicy": "allow"}}, Action.ALLOW),
        (
            {
                "DefaultIntentionPolicy": "deny",
                "ACLsEnabled": True,
                "ACLResolverSettings": {"ACLDefaultPolicy": "allow"},
            },
            Action.DENY,
        ),
        ({"ACLsEnabled": True, "ACLDefaultPolicy": "extend"}, None),
        ({}, None),
    ],
)
def test_settings_of_the_agent(config: dict[str, Any], action: Action | None) -> None:
    assert action_of_agent(config) is action


def test_sources_that_reach_everyone() -> None:
    assert reaches_everyone(IntentionMatch(source_name="*", destination_name="db"))
    assert reaches_everyone(IntentionMatch(source_name="*", source_ns="team", destination_name="db", source_peer="p"))
    assert not reaches_everyone(IntentionMatch(source_name="web", destination_name="db"))
