"""Leaves are fetched, replaced and kept; a blocking read is never abandoned."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from plugin.consul import endpoints
from plugin.consul.api import Root, Roots
from plugin.consul.client import ConsulClient
from plugin.dev.pki import Authority
from plugin.errors import ConsulForbidden
from plugin.observe import leaf_keeper, leaves
from plugin.observe.leaf_keeper import LeafKeeper
from plugin.observe.leaves import convert
from plugin.observe.store import FactStore
from proxy.model import Leaf, ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, body, status
from tests.unit.plugin.consul.test_leaves import TRUST_DOMAIN, answer
from tests.unit.plugin.consul.test_store import entry

DB = ServiceName("db")
PATH = endpoints.leaf("db")


class Issuer:
    """Signs leaves of ``db`` for the fake, with serial numbers that count."""

    def __init__(self, fake: FakeConsul) -> None:
        self._fake = fake
        self.authority = Authority("first")
        self.issued = 0
        self.issue()

    def issue(self, *, valid: datetime.timedelta = datetime.timedelta(days=3)) -> None:
        self.issued += 1
        pair = self.authority.leaf(TRUST_DOMAIN, "db", valid=valid)
        self.key_id = convert(answer(pair), index=1, now_s=0.0).authority_key_id
        self._fake.values[PATH] = {
            "SerialNumber": str(self.issued),
            "CertPEM": pair.certificate_pem,
            "PrivateKeyPEM": pair.private_key_pem,
            "Service": "db",
            "ServiceURI": f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/db",
            "ValidAfter": "",
            "ValidBefore": "",
        }

    def rotate(self) -> Roots:
        self.authority = Authority("next")
        pair = self.authority.leaf(TRUST_DOMAIN, "db")
        self.key_id = convert(answer(pair), index=1, now_s=0.0).authority_key_id
        return self.roots()

    def roots(self) -> Roots:
        root = Root(id="r", root_cert="", active=True, signing_key_id=self.key_id)
        return Roots(active_root_id="r", trust_domain=TRUST_DOMAIN, roots=(root,))


@contextlib.asynccontextmanager
async def keeping(fake: FakeConsul) -> AsyncIterator[tuple[FactStore, LeafKeeper, asyncio.Task[None]]]:
    store = FactStore()
    store.entry.learned(entry("db"))
    async with ConsulClient(fake.settings) as client:
        keeper = LeafKeeper(client, store)
        task = asyncio.get_running_loop().create_task(keeper.keep(DB))
        try:
            yield store, keeper, task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def serial(store: FactStore) -> str | None:
    leaf = store.service_facts(DB).leaf.value
    return None if leaf is None else leaf.serial_number


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        yield consul


async def test_leaf_and_datacenter_are_learned_with_one_plain_read(fake: FakeConsul) -> None:
    Issuer(fake)
    async with keeping(fake) as (store, keeper, _):
        await eventually(lambda: serial(store) == "1")
        assert isinstance(store.service_facts(DB).leaf.value, Leaf)
        assert store.mesh_facts().datacenter == "dc1"
        (asked,) = fake.asked(PATH)
        assert "index" not in asked.query
        (state,) = keeper.states()
        assert (state.name, state.requests, state.problem) == ("leaf of db", 1, "")


async def test_without_a_link_the_gateways_own_leaf_tells_the_datacenter(fake: FakeConsul) -> None:
    Issuer(fake)
    store = FactStore()
    async with ConsulClient(fake.settings) as client, asyncio.timeout(20):
        await LeafKeeper(client, store).learn_datacenter("db")
    assert store.mesh_facts().datacenter == "dc1"
    assert store.linked() == ()


async def test_a_known_datacenter_costs_no_leaf(fake: FakeConsul) -> None:
    Issuer(fake)
    store = FactStore()
    store.set_datacenter("dc2")
    async with ConsulClient(fake.settings) as client, asyncio.timeout(20):
        await LeafKeeper(client, store).learn_datacenter("db")
    assert fake.asked(PATH) == []
    assert store.mesh_facts().datacenter == "dc2"


async def test_changed_signing_key_replaces_the_leaf_at_once(fake: FakeConsul) -> None:
    issuer = Issuer(fake)
    async with keeping(fake) as (store, keeper, _):
        await eventually(lambda: serial(store) == "1")
        keeper.roots_changed(issuer.roots())
        roots = issuer.rotate()
        issuer.issue()
        keeper.roots_changed(roots)
        await eventually(lambda: serial(store) == "2")
        assert len(fake.asked(PATH)) == 2


async def test_agent_that_renews_by_itself_is_waited_for_with_a_blocking_read(fake: FakeConsul) -> None:
    issuer = Issuer(fake)
    async with keeping(fake) as (store, keeper, _):
        await eventually(lambda: serial(store) == "1")
        keeper.roots_changed(issuer.rotate())
        await eventually(lambda: "index" in fake.asked(PATH)[-1].query)
        assert serial(store) == "1"
        issuer.issue()
        await fake.move(fake.index + 1)
        await eventually(lambda: serial(store) == "2")


async def test_leaf_near_its_end_is_asked_for_again(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaf_keeper, "BLOCKING_WAIT_S", 0.05)
    monkeypatch.setattr(leaves, "RECHECK", 1e-6)
    issuer = Issuer(fake)
    issuer.issue(valid=datetime.timedelta(seconds=30))
    async with keeping(fake) as (store, _, _):
        await eventually(lambda: serial(store) == "2")
        issuer.issue()
        await eventually(lambda: serial(store) == "3")


async def test_failure_keeps_the_old_leaf(fake: FakeConsul) -> None:
    issuer = Issuer(fake)
    async with keeping(fake) as (store, keeper, _):
        await eventually(lambda: serial(store) == "1")
        fake.fail(PATH, status(500, "rpc error"), body(b'{"CertPEM": "junk"}'))
        roots = issuer.rotate()
        issuer.issue()
        keeper.roots_changed(roots)
        await eventually(lambda: store.service_facts(DB).leaf.problem)
        assert serial(store) == "1"
        await eventually(lambda: serial(store) == "2")
        assert store.service_facts(DB).leaf.problem is None


async def test_forbidden_leaf_names_the_rule(fake: FakeConsul) -> None:
    fake.values[PATH] = lambda _: web.Response(status=403, text="Permission denied")
    async with keeping(fake) as (store, _, _):
        await eventually(lambda: store.service_facts(DB).leaf.problem)
        problem = store.service_facts(DB).leaf.problem
        assert isinstance(problem, ConsulForbidden)
        assert problem.rule == 'service "db" { policy = "write" }'


async def test_unlinking_ends_the_wait_but_not_the_blocking_read(fake: FakeConsul) -> None:
    issuer = Issuer(fake)
    async with keeping(fake) as (store, keeper, task):
        await eventually(lambda: serial(store) == "1")
        keeper.roots_changed(issuer.rotate())
        await eventually(lambda: "index" in fake.asked(PATH)[-1].query and fake.open == 1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert keeper.states() == []
        held = fake.asked(PATH)[-1]
        # A round trip later the fake would have noticed that the connection was given up.
        await keeper._client.blocking_get("/v1/status/leader")
        assert held.transport is not None
        assert not held.transport.is_closing()
        await fake.move(fake.index + 1)
        await eventually(lambda: fake.open == 0)


async def test_many_leaves_are_asked_for_a_few_at_a_time(fake: FakeConsul) -> None:
    names = [ServiceName(f"s{number}") for number in range(30)]

    async def slow(_: web.Request) -> Any:
        await asyncio.sleep(0.02)
        return web.Response(status=500)

    for name in names:
        fake.fail(endpoints.leaf(name.name), slow)
    store = FactStore()
    store.entry.learned(entry(*(name.name for name in names)))
    async with ConsulClient(fake.settings) as client:
        keeper = LeafKeeper(client, store)
        tasks = [asyncio.get_running_loop().create_task(keeper.keep(name)) for name in names]
        await eventually(lambda: all(fake.asked(endpoints.leaf(name.name)) for name in names))
        assert fake.most_open <= leaf_keeper.PLAIN_READS
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_every_leaf_is_asked_for_when_the_clock_jumps(fake: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaf_keeper, "CLOCK_INTERVAL_S", 0.01)
    Issuer(fake)
    async with keeping(fake) as (store, keeper, _), asyncio.TaskGroup() as group:
        await eventually(lambda: serial(store) == "1")
        watching = group.create_task(keeper.watch_clock())
        await asyncio.sleep(0.1)
        assert len(fake.asked(PATH)) == 1
        shift_s = 0.0
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + shift_s)
        shift_s = 3600.0
        await eventually(lambda: len(fake.asked(PATH)) == 2)
        shift_s = -3600.0
        await eventually(lambda: len(fake.asked(PATH)) == 3)
        watching.cancel()


@pytest.mark.parametrize(("said", "prompt"), [("HIT", True), ("MISS", False)])
async def test_leaves_that_the_agent_has_already_are_not_paced(
    fake: FakeConsul, monkeypatch: pytest.MonkeyPatch, said: str, prompt: bool
) -> None:
    """Only what the servers have to sign is asked for at the rate at which they sign."""
    monkeypatch.setattr(leaf_keeper, "READS_PER_S", 1.0)
    monkeypatch.setattr(leaf_keeper, "READS_BURST", 3)
    Issuer(fake)
    signed = fake.values[PATH]
    assert isinstance(signed, dict)
    fake.headers["X-Cache"] = said
    names = [ServiceName(f"s{number}") for number in range(40)]
    for name in names:
        uri = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/{name.name}"
        pair = Authority("first").leaf(TRUST_DOMAIN, name.name)
        leaf = {**signed, "CertPEM": pair.certificate_pem, "PrivateKeyPEM": pair.private_key_pem}
        fake.values[endpoints.leaf(name.name)] = {**leaf, "Service": name.name, "ServiceURI": uri}
    store = FactStore()
    store.entry.learned(entry(*(name.name for name in names)))

    def known() -> int:
        return sum(store.service_facts(name).leaf.known for name in names)

    async with ConsulClient(fake.settings) as client:
        keeper = LeafKeeper(client, store)
        began_s = time.monotonic()
        tasks = [asyncio.get_running_loop().create_task(keeper.keep(name)) for name in names]
        if prompt:
            await eventually(lambda: known() == len(names))
        else:
            await eventually(lambda: known() >= 3)
        # At one a second, the rest of them would have taken longer than this.
        assert prompt or known() <= 4 + time.monotonic() - began_s
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
