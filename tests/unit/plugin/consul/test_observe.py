"""The observer as a whole, against faults that a real agent does not produce on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.errors import ConsulForbidden
from plugin.facts import Fact
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from proxy.model import ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, body, status

LIST = endpoints.config("terminating-gateway")
ENTRY = endpoints.config("terminating-gateway", "tgw")
ROWS = endpoints.gateway_services("tgw")
OURS = {"Kind": "terminating-gateway", "Name": "tgw", "Services": [{"Name": "db"}]}
OTHER = {"Kind": "terminating-gateway", "Name": "other", "Services": [{"Name": "secret"}]}


@contextlib.asynccontextmanager
async def observing(fake: FakeConsul) -> AsyncIterator[tuple[FactStore, Observer]]:
    store = FactStore()
    async with ConsulClient(fake.settings) as client:
        observer = Observer(client, store, "tgw")
        task = asyncio.get_running_loop().create_task(observer.run())
        try:
            yield store, observer
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values = {
            LIST: [OTHER, OURS],
            ROWS: None,
            endpoints.ROOTS: {"ActiveRootID": "a", "TrustDomain": "td.consul", "Roots": []},
            endpoints.config("service-defaults"): [],
            endpoints.config("service-resolver"): [],
            endpoints.config("proxy-defaults"): [],
            endpoints.config("mesh"): [],
            endpoints.INTENTIONS: [],
            endpoints.INTENTIONS_MATCH: lambda request: dict.fromkeys(request.query.getall("name")),
            endpoints.AUTHORIZE: {"Authorized": False, "Reason": "Default intention policy"},
            endpoints.AGENT_SELF: lambda _: web.Response(status=403, text="Permission denied"),
            endpoints.health("db"): [],
            endpoints.leaf("db"): lambda _: web.Response(status=500, text="no CA"),
        }
        yield consul


async def test_only_the_own_entry_links(fake: FakeConsul) -> None:
    async with observing(fake) as (store, observer):
        await eventually(lambda: store.linked() == (ServiceName("db"),))
        await eventually(lambda: store.service_facts(ServiceName("db")).instances.known)
        await eventually(lambda: store.service_facts(ServiceName("db")).intentions.known)
        await eventually(lambda: store.mesh_facts().roots.known)
        await eventually(lambda: store.service_facts(ServiceName("db")).leaf.problem)
        states = {state.name: state for state in observer.watch_states()}
        assert {
            "terminating-gateway entry",
            "linked services",
            "roots",
            "mesh",
            "intentions",
            "instances of db",
        } <= set(states)
        assert states["leaf of db"].problem
        assert states["roots"].index == 10
        assert states["roots"].age_s is not None


async def test_deleted_entry_unlinks(fake: FakeConsul) -> None:
    async with observing(fake) as (store, observer):
        await eventually(lambda: store.linked())
        await fake.put(LIST, [OTHER])
        await eventually(lambda: store.linked() == () and store.entry.fact.known)
        assert store.entry.fact.value is None
        await eventually(lambda: not any(state.name.endswith(" db") for state in observer.watch_states()))
        await fake.put(LIST, [OURS])
        await eventually(lambda: store.linked() == (ServiceName("db"),))


async def test_entry_that_consul_hides_is_not_taken_for_a_deleted_one(fake: FakeConsul) -> None:
    async with observing(fake) as (store, _):
        await eventually(lambda: store.linked())
        fake.values[ENTRY] = lambda _: web.Response(status=403, text="Permission denied")
        await fake.put(LIST, [])
        await eventually(lambda: store.entry.fact.problem)
        problem = store.entry.fact.problem
        assert isinstance(problem, ConsulForbidden)
        assert problem.rule == 'service "tgw" { policy = "read" }'
        assert store.linked() == (ServiceName("db"),)


async def test_entry_that_may_never_be_read_stays_unknown(fake: FakeConsul) -> None:
    fake.values[LIST] = []
    fake.values[ENTRY] = lambda _: web.Response(status=403, text="Permission denied")
    async with observing(fake) as (store, _):
        await eventually(lambda: store.entry.fact.problem)
        assert not store.entry.fact.known


async def test_kind_that_this_consul_does_not_know_has_no_entry(fake: FakeConsul) -> None:
    fake.values[endpoints.config("mesh")] = lambda _: web.Response(status=500, text="invalid config entry kind: mesh")
    async with observing(fake) as (store, observer):
        await eventually(lambda: store.mesh_facts().mesh.known)
        assert store.mesh_facts().mesh.value is None
        (mesh,) = (state for state in observer.watch_states() if state.name == "mesh")
        assert (mesh.problem, mesh.requests) == ("", 1)
        assert "invalid config entry kind: mesh" in mesh.note


async def test_version_of_consul_is_learned_where_the_agent_tells_it(fake: FakeConsul) -> None:
    fake.values[endpoints.AGENT_SELF] = {"Config": {"Datacenter": "dc7", "Version": "1.8.7"}, "DebugConfig": {}}
    async with observing(fake) as (store, _):
        await eventually(lambda: store.mesh_facts().consul_version == "1.8.7")


async def test_consul_away_keeps_everything_and_its_return_is_noticed(fake: FakeConsul) -> None:
    async with observing(fake) as (store, _):
        await eventually(lambda: store.linked() and store.mesh_facts().roots.known)
        for path in (LIST, endpoints.ROOTS, endpoints.INTENTIONS):
            fake.fail(path, status(500, "No cluster leader"), body(b'[{"Na'))
        probes = len(fake.asked(endpoints.AGENT_SELF))
        await fake.move(fake.index + 1)
        await eventually(lambda: store.entry.fact.problem and store.mesh_facts().roots.problem)
        assert store.linked() == (ServiceName("db"),)
        assert store.mesh_facts().roots.value is not None
        await eventually(lambda: store.entry.fact.problem is None and store.mesh_facts().roots.problem is None)
        await eventually(lambda: len(fake.asked(endpoints.AGENT_SELF)) > probes)


async def test_config_entries_reach_their_services(fake: FakeConsul) -> None:
    async with observing(fake) as (store, _):
        await eventually(lambda: store.linked())
        await fake.put(endpoints.config("service-defaults"), [{"Name": "db", "Protocol": "http"}])
        await fake.put(endpoints.config("service-resolver"), [{"Name": "db", "ConnectTimeout": "3s"}])
        await fake.put(endpoints.config("proxy-defaults"), [{"Name": "global", "Config": {"protocol": "tcp"}}])

        def arrived() -> bool:
            facts = store.service_facts(ServiceName("db"))
            assert facts.defaults.value is not None
            assert facts.resolver.value is not None
            return (facts.defaults.value.protocol, facts.resolver.value.connect_timeout) == ("http", "3s")

        await eventually(arrived)
        await eventually(lambda: store.mesh_facts().proxy_defaults.value)
        await fake.put(endpoints.config("service-defaults"), [])
        await eventually(lambda: store.service_facts(ServiceName("db")).defaults.value is None)
        assert store.service_facts(ServiceName("db")).defaults.known


async def test_new_link_waits_for_entries_that_were_written_before_it(fake: FakeConsul) -> None:
    defaults, ldap = endpoints.config("service-defaults"), ServiceName("ldap")
    fake.values |= {endpoints.health("ldap"): [], endpoints.leaf("ldap"): lambda _: web.Response(status=500)}
    async with observing(fake) as (store, _):
        await eventually(lambda: store.linked() and store.service_defaults.index == 10)
        # Its poller hears of it late: what answers it is still the list without the entry.
        late = [{"Name": "ldap", "Protocol": "http"}]
        fake.values[defaults] = lambda request: [] if "index" in request.query else late
        await fake.put(LIST, [{**OURS, "Services": [{"Name": "db"}, {"Name": "ldap"}]}])
        seen = []

        def known() -> bool:
            seen.append(store.service_facts(ldap).defaults if ldap in store.linked() else Fact())
            return seen[-1].known

        await eventually(known)
        assert seen[-1].value is not None
        assert seen[-1].value.protocol == "http"


async def test_new_link_does_not_wait_for_a_list_that_cannot_be_read(fake: FakeConsul) -> None:
    defaults, ldap = endpoints.config("service-defaults"), ServiceName("ldap")
    fake.values |= {endpoints.health("ldap"): [], endpoints.leaf("ldap"): lambda _: web.Response(status=500)}
    async with observing(fake) as (store, _):
        await eventually(lambda: store.linked() and store.service_defaults.index == 10)
        fake.values[defaults] = lambda _: web.Response(status=500, text="No cluster leader")
        await fake.put(LIST, [{**OURS, "Services": [{"Name": "db"}, {"Name": "ldap"}]}])
        await eventually(lambda: ldap in store.linked() and store.service_facts(ldap).defaults.known)
