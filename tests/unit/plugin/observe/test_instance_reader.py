"""Instances: own queries up to the budget, a shared signal beyond it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.errors import ConsulForbidden
from plugin.observe import instance_reader, sweep
from plugin.observe.instance_reader import InstanceReader
from plugin.observe.store import FactStore
from proxy.model import ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, body, status
from tests.unit.plugin.consul.test_store import entry


def rows(name: str, *ports: int, node: str = "n") -> list[dict[str, Any]]:
    return [
        {"Node": {"Node": node}, "Service": {"ID": f"{name}-{port}", "Service": name, "Port": port}, "Checks": []}
        for port in ports
    ]


@contextlib.asynccontextmanager
async def reading(fake: FakeConsul, names: Iterable[str], *, own: int) -> AsyncIterator[FactStore]:
    store = FactStore()
    for state in ("critical", "warning"):
        fake.values[endpoints.health_state(state)] = []
    fake.values[endpoints.CATALOG_SERVICES] = {}
    async with ConsulClient(fake.settings) as client:
        reader = InstanceReader(client, store, own_queries=own)
        store.subscribe_links(reader.linked)
        store.entry.learned(entry(*names))
        task = asyncio.get_running_loop().create_task(reader.run())
        try:
            yield store
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def ports(store: FactStore, name: str) -> list[int] | None:
    fact = store.service_facts(ServiceName(name)).instances
    return None if fact.value is None else [instance.service.port for instance in fact.value]


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeConsul]:
    monkeypatch.setattr(sweep, "SWEEP_PAUSE_S", 0.05)
    async with FakeConsul() as consul:
        yield consul


@pytest.mark.parametrize("own", [10, 0, 2])
async def test_instances_are_followed_with_and_without_a_query_of_their_own(fake: FakeConsul, own: int) -> None:
    names = ["a", "b", "c", "d"]
    for name in names:
        fake.values[endpoints.health(name)] = rows(name, 1)
    async with reading(fake, names, own=own) as store:
        await eventually(lambda: all(ports(store, name) == [1] for name in names))
        for name in names:
            await fake.put(endpoints.health(name), rows(name, 1, 2))
        await eventually(lambda: all(ports(store, name) == [1, 2] for name in names))
        await fake.put(endpoints.health("d"), [])
        await eventually(lambda: ports(store, "d") == [])


async def test_connections_stay_within_the_budget(fake: FakeConsul) -> None:
    names = [f"s{number}" for number in range(300)]
    for name in names:
        fake.values[endpoints.health(name)] = rows(name, 1)
    async with reading(fake, names, own=8) as store:
        await eventually(lambda: all(ports(store, name) == [1] for name in names))
        assert fake.most_open <= 8 + 3 + instance_reader.SWEEP_REQUESTS + instance_reader.TURNED_REQUESTS


async def test_shared_signals_are_not_asked_for_while_nobody_needs_them(fake: FakeConsul) -> None:
    fake.values[endpoints.health("a")] = rows("a", 1)
    async with reading(fake, ["a"], own=1) as store:
        await eventually(lambda: ports(store, "a") == [1])
        assert not fake.asked(endpoints.CATALOG_SERVICES)
        store.entry.learned(entry("a", "b"))
        fake.values[endpoints.health("b")] = rows("b", 2)
        await eventually(lambda: ports(store, "b") == [2])
        await eventually(lambda: fake.asked(endpoints.CATALOG_SERVICES))


@pytest.mark.parametrize("own", [1, 0])
async def test_faults_keep_the_instances_and_are_retried(fake: FakeConsul, own: int) -> None:
    path = endpoints.health("a")
    fake.values[path] = rows("a", 1)
    async with reading(fake, ["a"], own=own) as store:
        await eventually(lambda: ports(store, "a") == [1])
        fake.fail(path, status(500, "rpc error"), body(b'[{"Node"', fake.index + 1))
        seen: list[list[int] | None] = []
        await fake.put(path, rows("a", 1, 2))
        while ports(store, "a") != [1, 2]:
            await store.changed()
            seen.append(ports(store, "a"))
        assert all(each in ([1], [1, 2]) for each in seen)


@pytest.mark.parametrize("own", [1, 0])
async def test_hidden_instances_are_not_known_to_be_none(fake: FakeConsul, own: int) -> None:
    """Without node:read Consul answers 200 and an empty list; newer ones say that they left something out."""
    fake.values[endpoints.health("a")] = []
    fake.headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
    async with reading(fake, ["a"], own=own) as store:
        await eventually(lambda: store.service_facts(ServiceName("a")).instances.problem)
        fact = store.service_facts(ServiceName("a")).instances
        assert not fact.known
        assert isinstance(fact.problem, ConsulForbidden)
        assert fact.problem.rule == 'node_prefix "" { policy = "read" }'


async def test_unlinked_service_gives_its_query_back_and_says_nothing_more(fake: FakeConsul) -> None:
    for name in ("a", "b"):
        fake.values[endpoints.health(name)] = rows(name, 1)
    async with reading(fake, ["a"], own=1) as store:
        await eventually(lambda: ports(store, "a") == [1])
        store.entry.learned(entry("b"))
        await eventually(lambda: ports(store, "b") == [1])
        asked = len(fake.asked(endpoints.health("a")))
        await fake.move(fake.index + 1)
        store.entry.learned(entry("a", "b"))
        await eventually(lambda: ports(store, "a") == [1])
        assert len(fake.asked(endpoints.health("a"))) > asked


async def test_lower_index_is_read_again(fake: FakeConsul) -> None:
    path = endpoints.health("a")
    fake.values[path] = rows("a", 1)
    async with reading(fake, ["a"], own=1) as store:
        await eventually(lambda: ports(store, "a") == [1])
        fake.values[path] = rows("a", 2)
        await fake.move(3)
        await eventually(lambda: ports(store, "a") == [2])


def check(name: str, *, node: str = "n", output: str = "") -> dict[str, Any]:
    return {
        "Node": node,
        "CheckID": f"check-{name or node}",
        "ServiceID": name and f"{name}-1",
        "ServiceName": name,
        "Output": output,
    }


def only_checks_wake(fake: FakeConsul) -> None:
    """As in Consul, where a check that turns wakes nobody who waits for services."""

    async def held(request: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        raise AssertionError(request)

    fake.fail(endpoints.CATALOG_SERVICES, _now, held)


async def _now(_: web.Request) -> web.Response:
    return web.Response(text="{}", headers={"X-Consul-Index": "10"})


def health_reads(fake: FakeConsul) -> list[str]:
    prefix = "/v1/health/service/"
    return sorted(one.path.removeprefix(prefix) for one in fake.requests if one.path.startswith(prefix))


async def all_is_quiet(fake: FakeConsul, services: int) -> None:
    """Everything was read, and read again since the shared queries were answered for the first time."""
    await eventually(lambda: len(health_reads(fake)) >= 2 * services)
    await eventually(lambda: len([one for one in fake.requests if "index" in one.query]) >= 3)
    await eventually(lambda: fake.open == 3)
    fake.requests.clear()


@pytest.mark.parametrize("state", ["critical", "warning"])
async def test_a_check_that_turns_costs_a_read_of_its_service_alone(fake: FakeConsul, state: str) -> None:
    names = [f"s{number}" for number in range(50)]
    for name in names:
        fake.values[endpoints.health(name)] = rows(name, 1)
    only_checks_wake(fake)
    async with reading(fake, names, own=0) as store:
        await eventually(lambda: all(ports(store, name) == [1] for name in names))
        await all_is_quiet(fake, len(names))
        fake.values[endpoints.health("s7")] = rows("s7", 1, 2)
        await fake.put(endpoints.health_state(state), [check("s7"), check("a-stranger")])
        await eventually(lambda: ports(store, "s7") == [1, 2])
        fake.values[endpoints.health("s7")] = rows("s7", 3)
        await fake.put(endpoints.health_state(state), [check("a-stranger")])
        await eventually(lambda: ports(store, "s7") == [3])
        assert health_reads(fake) == ["s7", "s7"]


async def test_what_a_failing_check_says_costs_nothing(fake: FakeConsul) -> None:
    fake.values[endpoints.health("db")] = rows("db", 1)
    only_checks_wake(fake)
    async with reading(fake, ["db"], own=0) as store:
        fake.values[endpoints.health_state("critical")] = [check("db", output="refused")]
        # At the start, after the first answer about any service, and for the check that fails.
        await eventually(lambda: ports(store, "db") == [1] and len(health_reads(fake)) >= 3)
        await all_is_quiet(fake, 1)
        await fake.put(endpoints.health_state("critical"), [check("db", output="refused again")])
        await eventually(lambda: len(fake.asked(endpoints.health_state("critical"))) == 1)
        assert health_reads(fake) == []


async def test_a_check_of_a_node_concerns_whoever_has_an_instance_there(fake: FakeConsul) -> None:
    names = ["a", "b", "c"]
    for name in names:
        fake.values[endpoints.health(name)] = rows(name, 1, node="m" if name == "b" else "n")
    only_checks_wake(fake)
    async with reading(fake, names, own=0) as store:
        await eventually(lambda: all(ports(store, name) == [1] for name in names))
        await all_is_quiet(fake, len(names))
        await fake.put(endpoints.health_state("critical"), [check("", node="m")])
        await eventually(lambda: health_reads(fake) == ["b"])


async def test_a_read_after_a_turned_check_that_fails_is_repeated(fake: FakeConsul) -> None:
    fake.values[endpoints.health("db")] = rows("db", 1)
    only_checks_wake(fake)
    async with reading(fake, ["db"], own=0) as store:
        await eventually(lambda: ports(store, "db") == [1])
        fake.values[endpoints.health("db")] = rows("db", 2)
        fake.fail(endpoints.health("db"), status(500, "no leader"))
        await fake.put(endpoints.health_state("critical"), [check("db")])
        await eventually(lambda: ports(store, "db") == [2])


async def test_a_quiet_consul_confirms_what_was_read_without_being_asked_for_it_again(fake: FakeConsul) -> None:
    """The age of the state must not grow because nothing happens: with --max-state-age it would close the door."""
    fake.values[endpoints.health("db")] = rows("db", 1)
    for state in ("critical", "warning"):
        fake.values[endpoints.health_state(state)] = []
    fake.values[endpoints.CATALOG_SERVICES] = {}
    store = FactStore()
    async with ConsulClient(fake.settings) as client:
        client.wait_s = 0.2
        reader = InstanceReader(client, store, own_queries=0)
        store.subscribe_links(reader.linked)
        store.entry.learned(entry("db"))
        task = asyncio.get_running_loop().create_task(reader.run())
        await eventually(lambda: ports(store, "db") == [1] and len(health_reads(fake)) == 2)
        confirmed_s = reader._shared._confirmed_s
        assert confirmed_s is not None
        await eventually(lambda: (reader._shared._confirmed_s or 0.0) > confirmed_s + 0.2)
        assert len(health_reads(fake)) == 2
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
