"""jwt-provider entries are read once somebody needs them, and what is no answer leaves in force what was known."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugin.consul.client import ConsulClient
from plugin.errors import ConsulForbidden, ConsulUnavailable
from plugin.observe.provider_reader import PATH, ProviderReader
from plugin.observe.store import FactStore
from plugin.process import tasks
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, status

FILTERED = "X-Consul-Results-Filtered-By-ACLs"
ROW = {"Kind": "jwt-provider", "Name": "okta", "Issuer": "https://i"}


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values[PATH] = [ROW]
        yield consul


@contextlib.asynccontextmanager
async def reading(fake: FakeConsul, *wanted: str) -> AsyncIterator[tuple[ProviderReader, FactStore]]:
    store = FactStore()
    store.set_wanted_providers(frozenset(wanted))
    async with ConsulClient(fake.settings) as client:
        reader = ProviderReader(client, store)
        task = tasks.spawn(reader.run(), name="reader")
        try:
            yield reader, store
        finally:
            task.cancel()


async def test_nothing_is_asked_before_an_intention_names_one(fake: FakeConsul) -> None:
    async with reading(fake) as (reader, store):
        store.providers.restore((ROW,), as_of_s=1.0)
        assert list(reader.states()) == []
        assert fake.asked(PATH) == []
        store.set_wanted_providers(frozenset({"okta"}))
        await eventually(lambda: fake.asked(PATH))
        assert [state.name for state in reader.states()] == ["jwt-provider"]
        await eventually(lambda: store.providers.fact.as_of_s > 1.0)


async def test_what_is_written_and_deleted_is_followed(fake: FakeConsul) -> None:
    async with reading(fake, "okta") as (_, store):
        await eventually(lambda: store.providers.fact.value == (ROW,))
        changed = {**ROW, "Issuer": "https://other"}
        await fake.put(PATH, [changed])
        await eventually(lambda: store.providers.fact.value == (changed,))
        await fake.put(PATH, [])
        await eventually(lambda: store.providers.fact.value == ())


async def test_an_empty_list_for_a_token_without_rights_is_a_refusal(fake: FakeConsul) -> None:
    fake.headers[FILTERED] = "true"
    fake.values[PATH] = []
    async with reading(fake, "okta") as (_, store):
        await eventually(lambda: isinstance(store.providers.fact.problem, ConsulForbidden))
        assert not store.providers.fact.known
        assert getattr(store.providers.fact.problem, "rule", "") == 'mesh = "read"'
        fake.headers.clear()
        await fake.put(PATH, [ROW])
        await eventually(lambda: store.providers.fact.value == (ROW,))
        # The right is taken away again: what was known stays.
        fake.headers[FILTERED] = "true"
        await fake.put(PATH, [])
        await eventually(lambda: store.providers.fact.problem)
        assert store.providers.fact.value == (ROW,)


async def test_a_consul_that_is_too_old_has_none(fake: FakeConsul) -> None:
    fake.fail(PATH, status(500, "invalid config entry kind: jwt-provider"))
    async with reading(fake, "okta") as (reader, store):
        await eventually(lambda: store.providers.fact.known)
        assert store.providers.fact.value is None
        (state,) = reader.states()
        assert "jwt-provider" in state.note


@pytest.mark.parametrize(
    "answer", [{"a": 1}, "text", 5, [[]] * 3, [{"Name": 5}, None]], ids=["object", "text", "number", "lists", "rows"]
)
async def test_an_answer_of_another_form_spoils_nothing(fake: FakeConsul, answer: Any) -> None:
    async with reading(fake, "okta") as (_, store):
        await eventually(lambda: store.providers.fact.value == (ROW,))
        await fake.put(PATH, answer)
        if isinstance(answer, list):
            # Rows are read one by one, by whoever needs them.
            await eventually(lambda: store.providers.fact.value == tuple(answer))
        else:
            await eventually(lambda: isinstance(store.providers.fact.problem, ConsulUnavailable))
            assert store.providers.fact.value == (ROW,)
