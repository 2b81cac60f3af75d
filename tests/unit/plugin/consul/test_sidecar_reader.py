"""Sidecars are read for the services with several instances, and for no other."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plugin.consul import endpoints
from plugin.consul.api import HealthEntry, Instance, Node
from plugin.consul.client import ConsulClient
from plugin.observe import sweep
from plugin.observe.sidecar_reader import SidecarReader
from plugin.observe.store import FactStore
from plugin.process import tasks
from proxy.model import ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, status
from tests.unit.plugin.consul.test_store import entry

DB = ServiceName("db")
PATH = endpoints.health_connect("db")


def instances(*names: str) -> tuple[HealthEntry, ...]:
    return tuple(HealthEntry(node=Node(node="n"), service=Instance(id=name, service="db")) for name in names)


def sidecars(*names: str) -> list[dict[str, Any]]:
    return [
        {
            "Node": {"Node": "n"},
            "Service": {
                "ID": f"{name}-proxy",
                "Service": "db-proxy",
                "Kind": "connect-proxy",
                "Proxy": {"DestinationServiceName": "db", "DestinationServiceID": name},
            },
        }
        for name in names
    ]


def known(store: FactStore) -> list[str] | None:
    value = store.service_facts(DB).sidecars.value
    if value is None:
        return None
    return [row.service.proxy.destination_service_id for row in value if row.service.proxy is not None]


@pytest.fixture
async def fake(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeConsul]:
    monkeypatch.setattr(sweep, "SWEEP_PAUSE_S", 0.02)
    async with FakeConsul() as consul:
        consul.values[endpoints.CATALOG_SERVICES] = {}
        consul.values[PATH] = sidecars("a")
        yield consul


@pytest.fixture
async def store(fake: FakeConsul) -> AsyncIterator[FactStore]:
    """With ``db`` linked, and a reader at work."""
    linked = FactStore()
    async with ConsulClient(fake.settings) as client:
        reader = SidecarReader(client, linked)
        linked.subscribe_links(reader.linked)
        linked.entry.learned(entry("db"))
        task = tasks.spawn(reader.run(), name="reader")
        yield linked
        task.cancel()
        with contextlib.suppress(BaseException):
            await task


async def test_one_instance_needs_no_answer(fake: FakeConsul, store: FactStore) -> None:
    single = ServiceName("a-single")
    store.entry.learned(entry("db", "a-single"))
    store.instances(single).learned(instances("a"))
    store.instances(DB).learned(instances("a", "b"))
    await eventually(lambda: known(store) == ["a"])
    assert not fake.asked(endpoints.health_connect("a-single"))
    store.instances(single).learned(instances("a", "b"))
    await eventually(lambda: fake.asked(endpoints.health_connect("a-single")))


async def test_nothing_is_asked_again_when_one_instance_is_left(fake: FakeConsul, store: FactStore) -> None:
    store.entry.learned(entry("db", "other"))
    for name in (DB, ServiceName("other")):
        store.instances(name).learned(instances("a", "b"))
    await eventually(lambda: known(store) == ["a"])
    store.instances(DB).learned(instances("b"))
    asked = len(fake.asked(PATH))
    other = len(fake.asked(endpoints.health_connect("other")))
    await fake.move(fake.index + 1)
    await eventually(lambda: len(fake.asked(endpoints.health_connect("other"))) > other)
    assert len(fake.asked(PATH)) == asked


async def test_only_proxies_are_asked_for(fake: FakeConsul, store: FactStore) -> None:
    store.instances(DB).learned(instances("a", "b"))
    await eventually(lambda: known(store) == ["a"])
    assert fake.asked(PATH)[0].query["filter"] == 'Service.Kind == "connect-proxy"'


async def test_a_sidecar_that_comes_later_is_noticed(fake: FakeConsul, store: FactStore) -> None:
    store.instances(DB).learned(instances("a", "b"))
    await eventually(lambda: known(store) == ["a"])
    await fake.put(PATH, sidecars("a", "b"))
    await eventually(lambda: known(store) == ["a", "b"])


async def test_faults_keep_what_was_known_and_are_retried(fake: FakeConsul, store: FactStore) -> None:
    store.instances(DB).learned(instances("a", "b"))
    await eventually(lambda: known(store) == ["a"])
    fake.fail(PATH, status(500, "rpc error"))
    await fake.put(PATH, [])
    await eventually(lambda: store.service_facts(DB).sidecars.problem is not None)
    assert known(store) == ["a"]
    await eventually(lambda: known(store) == [])


async def test_an_unlinked_service_is_not_asked_for(fake: FakeConsul, store: FactStore) -> None:
    store.instances(DB).learned(instances("a", "b"))
    await eventually(lambda: known(store) == ["a"])
    store.entry.learned(entry("other"))
    other = ServiceName("other")
    fake.values[endpoints.health_connect("other")] = sidecars("x")
    store.instances(other).learned(instances("x", "y"))
    await eventually(lambda: store.service_facts(other).sidecars.known)
    asked = len(fake.asked(PATH))
    await fake.move(fake.index + 1)
    before = len(fake.asked(endpoints.health_connect("other")))
    await eventually(lambda: len(fake.asked(endpoints.health_connect("other"))) > before)
    assert len(fake.asked(PATH)) == asked


async def test_services_whose_instances_are_known_already_are_read(fake: FakeConsul) -> None:
    linked = FactStore()
    linked.entry.learned(entry("db"))
    linked.instances(DB).learned(instances("a", "b"))
    async with ConsulClient(fake.settings) as client:
        task = tasks.spawn(SidecarReader(client, linked).run(), name="reader")
        await eventually(lambda: known(linked) == ["a"])
        task.cancel()
        with contextlib.suppress(BaseException):
            await task
