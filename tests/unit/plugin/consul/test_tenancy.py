"""Namespaces and partitions (Consul Enterprise): every question names those of the service that it is about.

There is no Enterprise agent to run here; the answers are those of its API documentation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.settings import ConsulSettings
from proxy.model import ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul

OWN = ServiceName("db", "team", "west")
FOREIGN = ServiceName("db", "billing", "west")
DEFAULT = ServiceName("ldap", "default", "west")
ENTRY = {
    "Kind": "terminating-gateway",
    "Name": "tgw",
    "Namespace": "team",
    "Partition": "west",
    "Services": [
        {"Name": "db"},
        {"Name": "db", "Namespace": "billing"},
        {"Name": "ldap", "Namespace": "default"},
    ],
}
RESOLVERS = [
    {"Kind": "service-resolver", "Name": "db", "Namespace": "billing", "Partition": "west", "DefaultSubset": "v1"}
]


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values = {
            endpoints.config("terminating-gateway"): [ENTRY],
            endpoints.gateway_services("tgw"): None,
            endpoints.ROOTS: {"ActiveRootID": "a", "TrustDomain": "td.consul", "Roots": []},
            endpoints.config("service-defaults"): [],
            endpoints.config("service-resolver"): RESOLVERS,
            endpoints.config("proxy-defaults"): [],
            endpoints.config("mesh"): [],
            endpoints.INTENTIONS: [],
            endpoints.INTENTIONS_MATCH: matches,
            endpoints.AUTHORIZE: {"Authorized": False, "Reason": "Default intention policy"},
            endpoints.AGENT_SELF: lambda _: web.Response(status=403, text="Permission denied"),
            endpoints.health("db"): [],
            endpoints.health("ldap"): [],
            endpoints.leaf("db"): lambda _: web.Response(status=500, text="no CA"),
            endpoints.leaf("ldap"): lambda _: web.Response(status=500, text="no CA"),
            endpoints.leaf("tgw"): lambda _: web.Response(status=500, text="no CA"),
        }
        yield consul


def matches(request: web.Request) -> dict[str, list[dict[str, Any]]]:
    """One intention for each name, from a source that is named after the namespace that was asked about."""
    namespace = request.query["ns"]
    return {
        name: [
            {
                "SourceName": f"caller-in-{namespace}",
                "SourceNS": namespace,
                "SourcePartition": "west",
                "DestinationName": name,
                "DestinationNS": namespace,
                "DestinationPartition": "west",
                "Action": "allow",
                "Precedence": 9,
            }
        ]
        for name in request.query.getall("name")
    }


@contextlib.asynccontextmanager
async def observing(settings: ConsulSettings) -> AsyncIterator[FactStore]:
    store = FactStore()
    async with ConsulClient(settings) as client:
        task = asyncio.get_running_loop().create_task(Observer(client, store, "tgw").run())
        try:
            yield store
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def asked(fake: FakeConsul, path: str) -> set[tuple[str | None, str | None]]:
    """Namespace and partition of every request for ``path``."""
    found = (request.query for request in fake.requests if request.path == path)
    return {(query.get("ns"), query.get("partition")) for query in found}


def namespaces(fake: FakeConsul, path: str) -> set[str | None]:
    return {namespace for namespace, _ in asked(fake, path)}


async def asks(fake: FakeConsul, path: str, places: set[tuple[str, str]]) -> None:
    await eventually(lambda: asked(fake, path) == places, what=f"{path} is asked for in {places}")


async def asks_at_least(fake: FakeConsul, path: str, namespace: str) -> None:
    await eventually(lambda: namespace in namespaces(fake, path), what=f"{path} is asked for in {namespace}")


@pytest.fixture(params=["by the settings", "by the entry alone"])
def settings(request: pytest.FixtureRequest, fake: FakeConsul) -> ConsulSettings:
    """How it is known that this Consul has namespaces."""
    if request.param == "by the settings":
        return ConsulSettings(address=fake.address, namespace="team", partition="west")
    return ConsulSettings(address=fake.address)


async def test_each_service_is_asked_about_in_its_own_place(fake: FakeConsul, settings: ConsulSettings) -> None:
    async with observing(settings) as store:
        await eventually(lambda: set(store.linked()) == {OWN, FOREIGN, DEFAULT})
        for path in (endpoints.health("db"), endpoints.leaf("db")):
            await asks(fake, path, {("team", "west"), ("billing", "west")})
        for path in (endpoints.health("ldap"), endpoints.leaf("ldap")):
            await asks(fake, path, {("default", "west")})


async def test_intentions_of_equal_names_are_not_mixed_up(fake: FakeConsul, settings: ConsulSettings) -> None:
    async with observing(settings) as store:
        for name in (OWN, FOREIGN, DEFAULT):

            def sources(name: ServiceName = name) -> list[str]:
                if name not in store.linked():
                    return []
                return [one.source_name for one in store.service_facts(name).intentions.value or ()]

            found = await eventually(sources)
            assert found == [f"caller-in-{name.namespace}"]


async def test_entries_and_intentions_of_every_namespace_are_heard(fake: FakeConsul, settings: ConsulSettings) -> None:
    async with observing(settings) as store:
        await eventually(lambda: FOREIGN in store.linked())
        await eventually(lambda: store.service_facts(FOREIGN).resolver.value is not None)
        assert store.service_facts(OWN).resolver.value is None
        for path in (endpoints.config("service-defaults"), endpoints.config("service-resolver"), endpoints.INTENTIONS):
            await asks_at_least(fake, path, "*")
        for path in (endpoints.config("proxy-defaults"), endpoints.config("mesh")):
            await asks_at_least(fake, path, "default")
            assert "*" not in namespaces(fake, path)


async def test_the_gateway_itself_is_where_the_settings_say(fake: FakeConsul) -> None:
    """Without a link the datacenter is learned from the leaf of the gateway's own name."""
    fake.values[endpoints.config("terminating-gateway")] = [{**ENTRY, "Services": []}]
    async with observing(ConsulSettings(address=fake.address, namespace="team", partition="west")):
        await eventually(lambda: asked(fake, endpoints.leaf("tgw")) == {("team", "west")})


async def test_consul_ce_hears_of_no_namespace(fake: FakeConsul) -> None:
    entry = {"Kind": "terminating-gateway", "Name": "tgw", "Services": [{"Name": "ldap"}]}
    fake.values[endpoints.config("terminating-gateway")] = [entry]
    fake.values[endpoints.INTENTIONS_MATCH] = lambda request: dict.fromkeys(request.query.getall("name"))
    async with observing(ConsulSettings(address=fake.address)) as store:
        await eventually(lambda: store.linked() == (ServiceName("ldap"),))
        await eventually(lambda: store.service_facts(ServiceName("ldap")).intentions.known)
        await eventually(lambda: asked(fake, endpoints.leaf("ldap")))
    assert {name for request in fake.requests for name in request.query} & {"ns", "partition"} == set()
