"""Whether the agent is there and still the same Consul, against agents that fail, lie and forget."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp.resolver
import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.errors import ConsulReplaced, ConsulUnavailable
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.settings import ConsulSettings
from proxy.model import ServiceName
from proxy.rules import Action
from tests.support.eventually import SCALE, eventually
from tests.support.fake_consul import Answer, FakeConsul, body, silent, status, torn

DB = ServiceName("db")
LIST = endpoints.config("terminating-gateway")
ENTRY = endpoints.config("terminating-gateway", "tgw")
OURS = {"Kind": "terminating-gateway", "Name": "tgw", "Services": [{"Name": "db"}]}
DENY = {"SourceName": "cron", "DestinationName": "db", "Action": "deny", "Precedence": 9}
OTHER_CLUSTER = "other.consul"


def roots(trust_domain: str = "td.consul") -> dict[str, Any]:
    return {"ActiveRootID": "a", "TrustDomain": trust_domain, "Roots": []}


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values = {
            LIST: [OURS],
            ENTRY: OURS,
            endpoints.gateway_services("tgw"): None,
            endpoints.ROOTS: roots(),
            endpoints.config("service-defaults"): [],
            endpoints.config("service-resolver"): [],
            endpoints.config("proxy-defaults"): [],
            endpoints.config("mesh"): [],
            endpoints.INTENTIONS: [DENY | {"ModifyIndex": 5}],
            endpoints.INTENTIONS_MATCH: lambda request: {name: [DENY] for name in request.query.getall("name")},
            endpoints.AUTHORIZE: {"Authorized": False, "Reason": "Default intention policy"},
            endpoints.AGENT_SELF: lambda _: web.Response(status=403, text="Permission denied"),
            endpoints.health("db"): [],
            endpoints.leaf("db"): lambda _: web.Response(status=429, text="rate limit"),
        }
        yield consul


def empty(fake: FakeConsul) -> None:
    """It comes back as a dev agent does: another mesh, no entries, everything allowed, a low index."""
    del fake.values[ENTRY]
    fake.values |= {
        LIST: [],
        endpoints.ROOTS: roots(OTHER_CLUSTER),
        endpoints.INTENTIONS: [],
        endpoints.INTENTIONS_MATCH: lambda request: dict.fromkeys(request.query.getall("name")),
        endpoints.AUTHORIZE: {"Authorized": True, "Reason": "Default intention policy"},
    }


class Watcher:
    def __init__(self, client: ConsulClient) -> None:
        self.client = client
        self.store = FactStore()
        self.observer = Observer(client, self.store, "tgw")

    def known(self) -> bool:
        if DB not in self.store.linked():
            return False
        facts, mesh = self.store.service_facts(DB), self.store.mesh_facts()
        return facts.intentions.known and facts.instances.known and mesh.default_action.known and mesh.roots.known


@pytest.fixture
async def watcher(fake: FakeConsul) -> AsyncIterator[Watcher]:
    async with ConsulClient(fake.settings) as client:
        watching = Watcher(client)
        task = asyncio.get_running_loop().create_task(watching.observer.run())
        await eventually(watching.known, what="everything is known")
        yield watching
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


FAULTS: dict[str, Answer] = {
    "no leader": status(500, "No cluster leader"),
    "unavailable": status(503, "rpc error"),
    "rate limited": status(429, "limited"),
    "reset half way": torn(b'{"Trust', 4096),
    "truncated JSON": body(b'{"TrustDomain": "td.con'),
    "another type": body(b"[1, 2]"),
    "another content": body(b"<html>a portal</html>"),
    "forbidden": status(403, "ACL not found"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_while_it_is_away_one_asks_for_all_and_the_rest_ask_when_it_is_back(
    fake: FakeConsul, watcher: Watcher, fault: Answer
) -> None:
    fake.fail(endpoints.SERVER_ROOTS, *[fault] * 3)
    fake.fail(LIST, status(500, "No cluster leader"))
    await fake.move(fake.index + 1)
    await eventually(lambda: watcher.client.presence.problem is not None, what="it counts as away")
    asked = len(fake.requests) - len(fake.asked(endpoints.SERVER_ROOTS))
    with pytest.raises(ConsulUnavailable):
        await watcher.client.blocking_get(endpoints.health("db"))
    assert len(fake.requests) - len(fake.asked(endpoints.SERVER_ROOTS)) == asked
    assert watcher.known()
    await eventually(lambda: watcher.client.presence.problem is None, what="it is back")
    back_s = time.monotonic()
    await eventually(lambda: watcher.store.entry.fact.problem is None, what="the entry is known again")
    assert time.monotonic() - back_s < 2.0 * SCALE


async def test_servers_that_are_still_reading_their_log_are_not_back(fake: FakeConsul, watcher: Watcher) -> None:
    """What they answer meanwhile is an older state; to a consistent question they say that they are not ready."""
    fake.fail(endpoints.SERVER_ROOTS, *[status(500, "Not ready to serve consistent reads")] * 3)
    fake.fail(LIST, status(500, "No cluster leader"))
    await fake.move(fake.index + 1)
    await eventually(lambda: watcher.client.presence.problem is not None, what="it counts as away")
    await eventually(lambda: watcher.client.presence.problem is None, what="it is back")
    assert all("consistent" in request.query for request in fake.asked(endpoints.SERVER_ROOTS))


async def test_a_name_of_the_agent_that_cannot_be_resolved_is_an_agent_that_is_away(
    fake: FakeConsul, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its addresses are asked for with each new connection."""

    async def unresolved(*_: Any, **__: Any) -> Any:
        raise OSError(None, "Temporary failure in name resolution")

    async with ConsulClient(ConsulSettings(address=fake.address.replace("127.0.0.1", "localhost"))) as client:
        client.presence.watch("tgw", returned=lambda: None, replaced=lambda: None)
        with monkeypatch.context() as patched:
            patched.setattr(aiohttp.resolver.DefaultResolver, "resolve", unresolved)
            with pytest.raises(ConsulUnavailable, match="name resolution"):
                await client.blocking_get(LIST)
            await eventually(lambda: client.presence.problem is not None)
        await eventually(lambda: client.presence.problem is None)
        assert (await client.blocking_get(LIST)).status == 200
    assert watcher.known()


async def test_a_restored_state_of_another_datacenter_is_not_touched_by_this_one(fake: FakeConsul) -> None:
    fake.values[endpoints.leaf("tgw")] = {"ServiceURI": "spiffe://td.consul/ns/default/dc/dc1/svc/tgw"}
    for datacenter, believed in (("dc1", True), ("dc2", False)):
        del fake.requests[:]
        async with ConsulClient(fake.settings) as client:
            client.presence.watch("none", returned=lambda: None, replaced=lambda: None)
            fake.values[endpoints.leaf("none")] = fake.values[endpoints.leaf("tgw")]
            client.presence.expect_restored("td.consul", datacenter)
            if believed:
                assert (await client.blocking_get(LIST)).status == 200
            else:
                with pytest.raises(ConsulReplaced, match="datacenter dc1, not dc2"):
                    await client.blocking_get(LIST)
                assert fake.asked(LIST) == []


async def test_a_consul_without_our_data_changes_nothing(fake: FakeConsul, watcher: Watcher) -> None:
    before = watcher.store.service_facts(DB), watcher.store.mesh_facts()
    empty(fake)
    fake.fail(LIST, torn(b"[", 100))
    await fake.move(3)
    await eventually(lambda: isinstance(watcher.client.presence.problem, ConsulReplaced))
    probes = len(fake.asked(endpoints.SERVER_ROOTS))
    await eventually(lambda: len(fake.asked(endpoints.SERVER_ROOTS)) >= probes + 3)
    assert watcher.store.linked() == (DB,)
    after = watcher.store.service_facts(DB), watcher.store.mesh_facts()
    assert after[0].intentions.value == before[0].intentions.value
    assert after[1].default_action.value == before[1].default_action.value == Action.DENY
    assert after[1].roots.value == before[1].roots.value
    assert "has no terminating-gateway entry tgw" in str(watcher.client.presence.problem)


async def test_an_answer_that_overtakes_the_doubt_is_not_believed(fake: FakeConsul, watcher: Watcher) -> None:
    """The servers were replaced behind an agent that stayed: questions fail, then the new servers answer them."""
    empty(fake)
    fake.fail(endpoints.SERVER_ROOTS, silent(1.0), status(500, "No cluster leader"))
    watcher.client.presence.doubt()
    await fake.move(fake.index + 1)
    with pytest.raises(ConsulUnavailable):
        await watcher.client.blocking_get(endpoints.INTENTIONS)
    assert watcher.store.service_facts(DB).intentions.value
    assert watcher.store.linked() == (DB,)


async def test_another_consul_that_knows_us_replaces_everything_together(fake: FakeConsul, watcher: Watcher) -> None:
    seen: list[tuple[bool, bool]] = []

    def relinked(added: frozenset[ServiceName], removed: frozenset[ServiceName]) -> None:
        mesh = watcher.store.mesh_facts()
        seen.append((bool(removed), mesh.roots.known or mesh.default_action.known))

    watcher.store.subscribe_links(relinked)
    seen.clear()
    empty(fake)
    fake.values |= {LIST: [OURS], ENTRY: OURS}
    fake.fail(endpoints.INTENTIONS, torn(b"[", 100))
    await fake.move(3)
    await eventually(lambda: watcher.client.presence.trust_domain == OTHER_CLUSTER)
    # The links went first, with everything else that the former Consul said.
    assert seen[0] == (True, False)
    await eventually(watcher.known, what="the new one is known")
    found = watcher.store.mesh_facts().roots.value
    assert found is not None
    assert found.trust_domain == OTHER_CLUSTER
    assert watcher.store.service_facts(DB).intentions.value == ()


async def test_a_trust_domain_that_changes_without_a_failure_is_not_taken_over(
    fake: FakeConsul, watcher: Watcher
) -> None:
    empty(fake)
    await fake.put(endpoints.ROOTS, roots(OTHER_CLUSTER))
    await eventually(lambda: isinstance(watcher.client.presence.problem, ConsulReplaced))
    found = watcher.store.mesh_facts().roots.value
    assert found is not None
    assert found.trust_domain == "td.consul"


async def test_an_index_that_leaps_and_falls_changes_no_fact(fake: FakeConsul, watcher: Watcher) -> None:
    for index in (2**64 - 1, 1, 0, 10**19, 7):
        await fake.move(index)
        requests = len(fake.requests)
        await eventually(functools.partial(_asked_more_than, fake, requests))
    assert watcher.known()
    assert watcher.store.service_facts(DB).intentions.value


def _asked_more_than(fake: FakeConsul, number: int) -> bool:
    return len(fake.requests) > number
