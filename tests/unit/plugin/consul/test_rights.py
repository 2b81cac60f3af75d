"""A right that is given is noticed although no index moves and no blocking query ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugin.consul.client import ConsulClient
from plugin.consul.poller import Poller
from plugin.consul.watch import News
from plugin.errors import ConsulForbidden
from plugin.observe import rights
from plugin.observe.rights import RightsWatcher
from plugin.process import tasks
from plugin.settings import ConsulSettings
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, status

PATH = "/v1/catalog/gateway-services/tgw"
FILTERED = "X-Consul-Results-Filtered-By-ACLs"


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values[PATH] = ["a"]
        yield consul


@contextlib.asynccontextmanager
async def polling(client: ConsulClient) -> AsyncIterator[tuple[Poller[Any], list[Any]]]:
    seen: list[Any] = []

    def learned(news: News[Any]) -> None:
        if news.changed:
            seen.append(news.value)

    poller: Poller[Any] = Poller(
        client,
        "rows",
        PATH,
        decode=lambda reply: msgspec.json.decode(reply.body),
        learned=learned,
        failed=lambda problem: seen.append(type(problem)),
    )
    task = tasks.spawn(poller.run(), name="poller")
    try:
        yield poller, seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_an_answer_in_part_is_asked_for_again_while_consul_holds_the_question(fake: FakeConsul) -> None:
    fake.headers[FILTERED] = "true"
    async with ConsulClient(fake.settings) as client, polling(client) as (poller, seen):
        await eventually(lambda: seen == [["a"]] and "index" in fake.asked(PATH)[-1].query)
        fake.values[PATH] = ["a", "b"]
        poller.ask_afresh()
        await eventually(lambda: seen == [["a"], ["a", "b"]])
        await eventually(lambda: fake.open == 2)
        # What is held for the old rights answers with them, and is not believed.
        fake.values[PATH] = ["a", "b", "c"]
        poller.ask_afresh()
        await fake.move(fake.index + 1)
        await eventually(lambda: seen[-1] == ["a", "b", "c"])
        assert ["a"] not in seen[1:]
        assert fake.most_open <= 3


async def test_a_whole_answer_is_left_alone(fake: FakeConsul) -> None:
    async with ConsulClient(fake.settings) as client, polling(client) as (poller, seen):
        await eventually(lambda: fake.asked(PATH) and "index" in fake.asked(PATH)[-1].query)
        asked = len(fake.asked(PATH))
        poller.ask_afresh()
        await fake.put(PATH, ["b"])
        await eventually(lambda: seen == [["a"], ["b"]])
        assert "index" in fake.asked(PATH)[asked - 1].query
        assert all("index" in request.query for request in fake.asked(PATH)[1:])


async def test_a_lifted_refusal_is_told_to_all(fake: FakeConsul) -> None:
    told = asyncio.Event()
    fake.fail(PATH, status(403, "Permission denied"))
    async with ConsulClient(fake.settings) as client:
        client.refusals.listen(told.set)
        async with polling(client) as (poller, seen):
            await eventually(lambda: seen == [ConsulForbidden])
            poller.ask_afresh()
            await eventually(lambda: seen == [ConsulForbidden, ["a"]])
            assert told.is_set()


async def test_another_token_and_rows_that_appear_are_noticed(
    fake: FakeConsul, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rights, "TOKEN_CHECK_S", 0.01)
    monkeypatch.setattr(rights, "LIST_CHECK_S", 0.02)
    file = tmp_path / "token"
    file.write_text("first")
    told: list[int] = []
    async with (
        ConsulClient(ConsulSettings(address=fake.address, token_file=file)) as client,
        polling(client) as (
            poller,
            _,
        ),
    ):
        await eventually(lambda: poller.watch.known)
        client.refusals.listen(lambda: told.append(1))
        task = tasks.spawn(RightsWatcher(client, {PATH: poller.watch}).run(), name="rights")
        file.write_text("second")
        await eventually(lambda: len(told) == 1)
        assert not poller.watch.filtered
        fake.headers[FILTERED] = "true"
        await fake.put(PATH, ["a", "b"])
        await eventually(lambda: poller.watch.filtered)
        asked = len(fake.asked(PATH))
        await eventually(lambda: len(fake.asked(PATH)) >= asked + 3)
        assert len(told) == 1, "what is left out stays left out"
        fake.fail(PATH, *[status(403, "ACL not found")] * 2)
        asked = len(fake.asked(PATH))
        await eventually(lambda: len(fake.asked(PATH)) >= asked + 4)
        assert len(told) == 1
        fake.values[PATH] = ["a", "b", "c"]
        await eventually(lambda: len(told) >= 2)
        task.cancel()
        await asyncio.wait([task])
