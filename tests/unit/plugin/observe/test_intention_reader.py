"""Intentions of many services: prompt, over few requests, and one forbidden name hides no other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.errors import ConsulForbidden
from plugin.observe import intention_reader
from plugin.observe.intention_reader import IntentionReader
from plugin.observe.store import FactStore
from proxy.model import ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import Answer, FakeConsul, body, status
from tests.unit.plugin.consul.test_store import entry


class Intentions:
    """Keeps the fake's list and its matches in step."""

    def __init__(self, fake: FakeConsul) -> None:
        self._fake = fake
        self._sources: dict[str, dict[str, str]] = {}
        self._modified: dict[str, int] = {}
        self.forbidden: set[str] = set()
        self.hidden: set[str] = set()
        """Left out of the list."""
        fake.values[endpoints.INTENTIONS] = []
        fake.values[endpoints.INTENTIONS_MATCH] = self.match

    async def write(self, destination: str, **sources: str) -> None:
        self._sources[destination] = sources
        self._modified[destination] = self._fake.index + 1
        await self._fake.put(endpoints.INTENTIONS, self._list())

    def _list(self) -> list[dict[str, Any]]:
        return [
            {**row, "ModifyIndex": self._modified[destination]}
            for destination in self._sources
            if destination not in self.hidden
            for row in self._rows(destination)
        ]

    def _rows(self, destination: str) -> list[dict[str, Any]]:
        sources = self._sources.get(destination, {})
        return [
            {"SourceName": source, "DestinationName": destination, "Action": action}
            for source, action in sources.items()
        ]

    def match(self, request: web.Request) -> Any:
        names = request.query.getall("name")
        if self.forbidden & set(names):
            return web.Response(status=403, text="Permission denied")
        return {name: self._rows(name) or None for name in names}


@contextlib.asynccontextmanager
async def reading(fake: FakeConsul, *names: str) -> AsyncIterator[FactStore]:
    store = FactStore()
    async with ConsulClient(fake.settings) as client:
        reader = IntentionReader(client, store, changed=lambda: None)
        store.subscribe_links(reader.linked)
        store.entry.learned(entry(*names))
        task = asyncio.get_running_loop().create_task(reader.run())
        try:
            yield store
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def sources(store: FactStore, name: str) -> list[str] | None:
    fact = store.service_facts(ServiceName(name)).intentions
    return None if fact.value is None else [intention.source_name for intention in fact.value]


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        yield consul


async def test_many_services_cost_few_requests(fake: FakeConsul) -> None:
    intentions = Intentions(fake)
    await intentions.write("s7", web="allow")
    names = [f"s{number}" for number in range(250)]
    async with reading(fake, *names) as store:
        await eventually(lambda: all(sources(store, name) is not None for name in names))
        assert sources(store, "s7") == ["web"]
        assert sources(store, "s8") == []
        assert len(fake.asked(endpoints.INTENTIONS_MATCH)) <= 9
        assert fake.most_open <= 1 + intention_reader.REQUESTS


async def test_change_is_asked_for_alone_and_first(fake: FakeConsul) -> None:
    intentions = Intentions(fake)
    async with reading(fake, "db", "ldap") as store:
        await eventually(lambda: sources(store, "ldap") == [] and fake.open)
        await eventually(lambda: any("index" in asked.query for asked in fake.asked(endpoints.INTENTIONS)))
        fake.requests.clear()
        await intentions.write("ldap", web="allow")
        await eventually(lambda: sources(store, "ldap") == ["web"])
        assert fake.asked(endpoints.INTENTIONS_MATCH)[0].query.getall("name") == ["ldap"]
        await intentions.write("ldap")
        await eventually(lambda: sources(store, "ldap") == [])


async def test_wildcard_destination_concerns_every_service(fake: FakeConsul) -> None:
    intentions = Intentions(fake)
    async with reading(fake, "db", "ldap") as store:
        await eventually(lambda: any("index" in asked.query for asked in fake.asked(endpoints.INTENTIONS)))
        fake.requests.clear()
        await intentions.write("*", web="allow")
        await eventually(lambda: fake.asked(endpoints.INTENTIONS_MATCH))
        assert fake.asked(endpoints.INTENTIONS_MATCH)[0].query.getall("name") == ["db", "ldap"]
        assert store.linked()


async def test_change_that_the_list_does_not_show_is_found_all_the_same(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intention_reader, "FULL_READ_PAUSE_S", 0.05)
    intentions = Intentions(fake)
    intentions.hidden.add("db")
    async with reading(fake, "db") as store:
        await eventually(lambda: sources(store, "db") == [])
        await intentions.write("db", web="deny")
        await eventually(lambda: sources(store, "db") == ["web"])


async def test_one_forbidden_name_hides_no_other(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intention_reader, "FORBIDDEN_RETRY_S", 0.1)
    intentions = Intentions(fake)
    names = [f"s{number:02}" for number in range(50)]
    await intentions.write("s13", web="allow")
    intentions.forbidden = {"s07", "s31"}
    async with reading(fake, *names) as store:
        await eventually(lambda: [name for name in names if sources(store, name) is None] == ["s07", "s31"])
        assert sources(store, "s13") == ["web"]
        fact = store.service_facts(ServiceName("s07")).intentions
        await eventually(lambda: store.service_facts(ServiceName("s07")).intentions.problem)
        fact = store.service_facts(ServiceName("s07")).intentions
        assert isinstance(fact.problem, ConsulForbidden)
        assert fact.problem.rule == 'service "s07" { policy = "write", intentions = "read" }'
        assert not fact.known
        intentions.forbidden = {"s31"}
        await eventually(lambda: sources(store, "s07") == [])
        assert sources(store, "s31") is None


async def test_permission_that_is_lost_keeps_what_was_known(fake: FakeConsul) -> None:
    intentions = Intentions(fake)
    await intentions.write("db", web="allow")
    async with reading(fake, "db") as store:
        await eventually(lambda: sources(store, "db") == ["web"])
        intentions.forbidden = {"db"}
        await intentions.write("db", web="deny")
        await eventually(lambda: store.service_facts(ServiceName("db")).intentions.problem)
        assert sources(store, "db") == ["web"]


async def test_unknown_token_is_not_taken_for_many_forbidden_names(fake: FakeConsul) -> None:
    Intentions(fake)
    fake.values[endpoints.INTENTIONS_MATCH] = lambda _: web.Response(status=403, text="ACL not found")
    names = [f"s{number}" for number in range(64)]
    async with reading(fake, *names) as store:
        await eventually(lambda: all(store.service_facts(ServiceName(name)).intentions.problem for name in names))
        assert len(fake.asked(endpoints.INTENTIONS_MATCH)) <= 3


@pytest.mark.parametrize(
    "lie",
    [
        status(500, "No cluster leader"),
        body(b'{"db": [{"SourceName": "web"', 20),
        body(b"{}", 20),
        body(b'{"other": []}', 20),
        body(b'{"db": [{"SourceName": 5}]}', 20),
        status(404),
    ],
)
async def test_answer_that_cannot_be_used_is_not_an_empty_one(fake: FakeConsul, lie: Answer) -> None:
    intentions = Intentions(fake)
    await intentions.write("db", web="deny")
    fake.fail(endpoints.INTENTIONS_MATCH, lie)
    seen: list[list[str] | None] = []
    async with reading(fake, "db") as store:
        await store.changed()
        while not store.service_facts(ServiceName("db")).intentions.known:
            await store.changed()
            seen.append(sources(store, "db"))
    assert seen[-1] == ["web"]
    assert set(map(json.dumps, seen[:-1])) <= {"null"}
    assert len(fake.asked(endpoints.INTENTIONS_MATCH)) >= 2


async def test_late_answer_to_an_older_question_is_dropped(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both questions are under way; the older one is answered last, with what applied when it was asked."""
    monkeypatch.setattr(intention_reader, "FULL_READ_PAUSE_S", 0.05)
    intentions = Intentions(fake)
    await intentions.write("db", web="allow")
    release = asyncio.Event()
    held = asyncio.Event()

    async def old_answer(_: web.Request) -> web.Response:
        answer = {"db": intentions._rows("db")}
        held.set()
        await release.wait()
        return web.json_response(answer)

    async with reading(fake, "db") as store:
        await eventually(lambda: sources(store, "db") == ["web"])
        fake.fail(endpoints.INTENTIONS_MATCH, old_answer)
        await asyncio.wait_for(held.wait(), 10)
        await intentions.write("db", mobile="deny")
        await eventually(lambda: sources(store, "db") == ["mobile"])
        release.set()
        await eventually(lambda: fake.open == 1)
        assert sources(store, "db") == ["mobile"]


async def test_consul_1_8_without_index_is_polled_and_matched(fake: FakeConsul) -> None:
    intentions = Intentions(fake)
    answer = fake.values[endpoints.INTENTIONS_MATCH]
    fake.values[endpoints.INTENTIONS_MATCH] = lambda request: web.json_response(answer(request))
    await intentions.write("db", web="allow")
    async with reading(fake, "db") as store:
        await eventually(lambda: sources(store, "db") == ["web"])
        await intentions.write("db", web="allow", mobile="deny")
        await eventually(lambda: sources(store, "db") == ["web", "mobile"])


async def test_a_change_of_one_of_many_reads_the_others_rarely(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intention_reader, "FULL_READ_PAUSE_S", 0.01)
    monkeypatch.setattr(intention_reader, "FULL_READ_REST", 1e6)
    intentions = Intentions(fake)
    names = [f"s{number}" for number in range(250)]
    async with reading(fake, *names) as store:
        await eventually(lambda: all(sources(store, name) == [] for name in names))
        # The first read of everything; the rest after it is longer than this test.
        await eventually(lambda: asked_names(fake) >= 2 * len(names))
        for number in range(5):
            fake.requests.clear()
            await intentions.write("s7", **{f"web-{number}": "allow"})
            await eventually(lambda number=number: sources(store, "s7") == [f"web-{number}"])  # type: ignore[misc]
            assert asked_names(fake) == 1


async def test_a_change_that_no_hint_explains_reads_everything_soon(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list leaves out what the token may not read, such as intentions of ``*``."""
    monkeypatch.setattr(intention_reader, "FULL_READ_PAUSE_S", 0.01)
    monkeypatch.setattr(intention_reader, "FULL_READ_REST", 1e6)
    intentions = Intentions(fake)
    intentions.hidden.add("db")
    names = ["db", "ldap"]
    async with reading(fake, *names) as store:
        await eventually(lambda: asked_names(fake) >= 4)
        await intentions.write("db", web="allow")
        await eventually(lambda: sources(store, "db") == ["web"])


def asked_names(fake: FakeConsul) -> int:
    return sum(len(one.query.getall("name")) for one in fake.asked(endpoints.INTENTIONS_MATCH))
