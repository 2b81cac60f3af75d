"""What counts as a peer whose callers can be verified, and how peerings and exports are read."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from plugin.assemble.assembler import assemble_service
from plugin.assemble.peers import importers, peer_warnings, read_peers, usable
from plugin.consul import endpoints
from plugin.consul.api import ExportedService, LinkedService, Peering, TerminatingGatewayEntry
from plugin.consul.client import ConsulClient
from plugin.dev.pki import Authority
from plugin.gateway import with_newest_policy
from plugin.observe.peering_reader import PeeringReader
from plugin.observe.store import FactStore
from plugin.process import tasks
from proxy.model import PeerBundle, ServerName, Service, ServiceName
from tests.support.eventually import eventually
from tests.support.fake_consul import FakeConsul, status
from tests.support.goldens import cases, fact

ONE = Authority("One", trust_domain="one.consul").certificate_pem
OTHER = Authority("Other", trust_domain="other.consul").certificate_pem
NAMELESS = Authority("Nameless").certificate_pem
DB = ServiceName("db")


def row(**changed: Any) -> dict[str, Any]:
    return {"Name": "cloud", "State": "ACTIVE", "PeerCAPems": [ONE], **changed}


def peering(**changed: Any) -> Peering:
    return msgspec.convert(row(**changed), Peering)


def test_roots_and_their_trust_domain_make_a_peer() -> None:
    found = read_peers([peering(Remote={"Partition": "east"}), peering(Name="b", PeerCAPems=[ONE, ONE])])
    assert [(one.peer, one.trust_domain, one.partition) for one in found.bundles] == [
        ("b", "one.consul", "default"),
        ("cloud", "one.consul", "east"),
    ]
    assert found.problems == ()


@pytest.mark.parametrize("state", ["DELETING", "TERMINATED", "UNDEFINED", "", "SOMETHING_NEW"])
def test_other_states_let_nobody_in(state: str) -> None:
    assert read_peers([peering(State=state)]).bundles == ()


def test_what_a_server_that_has_started_again_calls_pending_is_in_force() -> None:
    assert [one.peer for one in read_peers([peering(State="PENDING")]).bundles] == ["cloud"]
    assert read_peers([peering(State="PENDING", PeerCAPems=None)]) == read_peers([])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"PeerCAPems": None}, "no roots"),
        ({"PeerCAPems": ["junk"]}, "can be read"),
        ({"PeerCAPems": [ONE, OTHER]}, "several trust domains (one.consul, other.consul)"),
        ({"PeerCAPems": [NAMELESS]}, "no trust domain"),
    ],
)
def test_what_is_not_known_is_not_guessed_and_named(changed: dict[str, Any], why: str) -> None:
    found = read_peers([peering(**changed), peering(Name="well")])
    assert [one.peer for one in found.bundles] == ["well"]
    assert why in found.problems[-1]
    assert "cloud" in found.problems[-1]


def test_a_root_that_cannot_be_read_leaves_the_others() -> None:
    found = read_peers([peering(PeerCAPems=["junk", ONE])])
    assert [len(one.roots_pem) for one in found.bundles] == [1]
    assert "root 1 of peer cloud" in found.problems[0]


def test_the_side_that_dials_knows_the_trust_domain_of_roots_that_do_not_name_it() -> None:
    found = read_peers([peering(PeerCAPems=[NAMELESS], PeerServerName="server.dc2.peering.Far.consul")])
    assert [one.trust_domain for one in found.bundles] == ["far.consul"]


def test_a_peer_does_not_speak_for_this_cluster() -> None:
    (plain,) = [case for case in cases("services") if case.path.stem == "plain"]
    assert plain.mesh.roots.value is not None
    own = PeerBundle("cloud", plain.mesh.roots.value.trust_domain.lower(), ())
    mesh = dataclasses.replace(plain.mesh, peers=fact((own, PeerBundle("well", "well.consul", ()))))
    assert [one.peer for one in usable(mesh)] == ["well"]
    assert "own trust domain" in "".join(peer_warnings(mesh))


def test_exports_are_of_one_service_to_named_peers() -> None:
    rows = [
        {"Service": "db", "Consumers": {"Peers": ["b", "a", ""], "Partitions": ["x"]}},
        {"Service": "db", "Consumers": {"Peers": ["c"]}},
        {"Service": "web", "Namespace": "team", "Consumers": {"Peers": None}},
    ]
    assert importers(msgspec.convert(rows, list[ExportedService])) == {DB: ("a", "b", "c")}


@contextlib.asynccontextmanager
async def reading(fake: FakeConsul) -> AsyncIterator[FactStore]:
    store = FactStore()
    store.entry.learned(TerminatingGatewayEntry(name="tgw", services=(LinkedService(name="db"),)))
    async with ConsulClient(fake.settings) as client:
        task = tasks.spawn(PeeringReader(client, store).run(), name="reader")
        try:
            yield store
        finally:
            task.cancel()


@pytest.fixture
async def fake() -> AsyncIterator[FakeConsul]:
    async with FakeConsul() as consul:
        consul.values[endpoints.EXPORTED_SERVICES] = [{"Service": "db", "Consumers": {"Peers": ["cloud"]}}]
        consul.values[endpoints.PEERINGS] = [row()]
        yield consul


async def test_peers_are_asked_for_only_when_a_linked_service_is_exported(fake: FakeConsul) -> None:
    fake.values[endpoints.EXPORTED_SERVICES] = [{"Service": "web", "Consumers": {"Peers": ["cloud"]}}]
    async with reading(fake) as store:
        await eventually(lambda: store.exports.fact.known)
        assert store.service_facts(DB).exported_to == ()
        assert fake.asked(endpoints.PEERINGS) == []
        await fake.put(endpoints.EXPORTED_SERVICES, [{"Service": "db", "Consumers": {"Peers": ["cloud"]}}])
        await eventually(lambda: store.peers.fact.known)
        assert store.service_facts(DB).exported_to == ("cloud",)
        await fake.put(endpoints.EXPORTED_SERVICES, None)
        await eventually(lambda: store.service_facts(DB).exported_to == ())


async def test_exports_are_asked_of_a_server_that_answers_itself(fake: FakeConsul) -> None:
    """As a follower of Consul 1.21 does with this question: it passes it on to the leader without the token."""
    rows = fake.values[endpoints.EXPORTED_SERVICES]
    fake.values[endpoints.EXPORTED_SERVICES] = lambda request: (
        rows if "stale" in request.query else web.Response(status=403, text="anonymous token lacks 'mesh:read'")
    )
    async with reading(fake) as store:
        await eventually(lambda: store.exports.fact.known and store.service_facts(DB).exported_to == ("cloud",))


@pytest.mark.parametrize(
    "answer", [status(500, "no leader"), status(403, "Permission denied"), lambda request: [{"State": 7}]]
)
async def test_what_is_no_answer_leaves_known_peers_in_force(fake: FakeConsul, answer: Any) -> None:
    async with reading(fake) as store:
        await eventually(lambda: store.peers.fact.known)
        fake.fail(endpoints.PEERINGS, answer)
        fake.fail(endpoints.EXPORTED_SERVICES, answer)
        await fake.move(fake.index + 1)
        await eventually(lambda: store.peers.fact.problem is not None)
        assert store.peers.fact.value
        assert store.service_facts(DB).exported_to == ("cloud",)


async def test_peers_that_go_are_forgotten(fake: FakeConsul) -> None:
    async with reading(fake) as store:
        await eventually(lambda: store.peers.fact.value)
        await fake.put(endpoints.PEERINGS, [row(PeerCAPems=["junk"])])
        await eventually(lambda: store.peers.fact.value == ())
        assert store.mesh_facts().unusable_peers
        await fake.put(endpoints.PEERINGS, [])
        await eventually(lambda: not store.mesh_facts().unusable_peers)


async def test_who_may_not_ask_has_no_peers_and_no_problem(fake: FakeConsul) -> None:
    fake.fail(endpoints.EXPORTED_SERVICES, *[status(403, "Permission denied")] * 5)
    async with reading(fake) as store:
        await eventually(lambda: store.exports.fact.known)
        assert (store.exports.fact.value, store.exports.fact.problem) == (None, None)
        assert fake.asked(endpoints.PEERINGS) == []


async def test_what_was_restored_stays_for_who_may_no_longer_ask(fake: FakeConsul) -> None:
    fake.fail(endpoints.EXPORTED_SERVICES, *[status(403, "Permission denied")] * 5)
    async with FakeConsul():
        store = FactStore()
        store.entry.learned(TerminatingGatewayEntry(name="tgw", services=(LinkedService(name="db"),)))
        rows = msgspec.convert(fake.values[endpoints.EXPORTED_SERVICES], tuple[ExportedService, ...])
        store.exports.restore(rows, as_of_s=1.0)
        async with ConsulClient(fake.settings) as client:
            task = tasks.spawn(PeeringReader(client, store).run(), name="reader")
            await eventually(lambda: store.exports.fact.problem is not None)
            assert store.service_facts(DB).exported_to == ("cloud",)
            task.cancel()


ENTRIES = endpoints.config("exported-services")


def entry(*rows: dict[str, Any], name: str = "default") -> dict[str, Any]:
    return {"Kind": "exported-services", "Name": name, "Services": list(rows)}


def exported(name: str, *consumers: dict[str, str], **fields: str) -> dict[str, Any]:
    return {"Name": name, "Consumers": list(consumers), **fields}


@pytest.fixture
async def older(fake: FakeConsul) -> FakeConsul:
    """Consul 1.13 to 1.17.1: what exported-services entries come to is not to be had."""
    fake.values[endpoints.EXPORTED_SERVICES] = lambda request: web.Response(status=404, text="Invalid URL path")
    fake.values[ENTRIES] = [entry(exported("db", {"Peer": "cloud"}), exported("web", {"Peer": "other"}))]
    return fake


async def test_where_exports_are_not_listed_the_entries_are_read(older: FakeConsul) -> None:
    async with reading(older) as store:
        await eventually(lambda: store.peers.fact.value)
        assert store.service_facts(DB).exported_to == ("cloud",)
        await older.put(ENTRIES, [entry(exported("db", {"PeerName": "first"}, {"Peer": "cloud"}))])
        await eventually(lambda: store.service_facts(DB).exported_to == ("cloud", "first"))
        await older.put(ENTRIES, [])
        await eventually(lambda: store.service_facts(DB).exported_to == ())


@pytest.mark.parametrize(
    ("rows", "peers"),
    [
        ([exported("*", {"Peer": "cloud"})], ("cloud",)),
        ([exported("*", {"Peer": "cloud"}), exported("db", {"Peer": "b"})], ("b", "cloud")),
        ([exported("*", {"Peer": "cloud"}, Namespace="*")], ("cloud",)),
        ([exported("*", {"Peer": "cloud"}, Namespace="team")], ()),
        ([exported("db", {"Peer": "cloud"}, Namespace="team")], ()),
        ([exported("db", {"Partition": "east"}), exported("db")], ()),
        ([{"Name": "db", "Consumers": None}], ()),
    ],
)
async def test_entries_export_by_name_or_all(older: FakeConsul, rows: Any, peers: tuple[str, ...]) -> None:
    older.values[ENTRIES] = [entry(*rows)]
    async with reading(older) as store:
        await eventually(lambda: store.exports.fact.known)
        assert store.service_facts(DB).exported_to == peers


async def test_an_entry_of_another_partition_exports_nothing_of_this_one(older: FakeConsul) -> None:
    older.values[ENTRIES] = [entry(exported("*", {"Peer": "cloud"}), name="east")]
    async with reading(older) as store:
        await eventually(lambda: store.exports.fact.known)
        assert store.service_facts(DB).exported_to == ()


async def test_groups_that_nobody_resolves_are_named(older: FakeConsul) -> None:
    older.values[ENTRIES] = [entry(exported("db", {"SamenessGroup": "all"}, {"Peer": "cloud"}))]
    async with reading(older) as store:
        await eventually(lambda: store.exports.fact.known)
        assert store.service_facts(DB).exported_to == ("cloud",)
        (problem,) = store.mesh_facts().unusable_peers
        assert "sameness groups (all)" in problem


async def test_a_consul_without_such_entries_has_no_peers(older: FakeConsul) -> None:
    older.fail(ENTRIES, *[status(500, "invalid config entry kind: exported-services")] * 3)
    async with reading(older) as store:
        await eventually(lambda: store.exports.fact.known)
        assert store.exports.fact.value is None


async def test_entries_that_cannot_be_read_are_a_problem_and_no_end(older: FakeConsul) -> None:
    async with reading(older) as store:
        await eventually(lambda: store.service_facts(DB).exported_to)
        older.fail(ENTRIES, *[status(500, "no leader")] * 3)
        await older.move(older.index + 1)
        await eventually(lambda: store.exports.fact.problem)
        assert store.service_facts(DB).exported_to == ("cloud",)


async def test_what_is_listed_counts_as_soon_as_it_is(older: FakeConsul, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.consul.watch.UNKNOWN_KIND_PAUSE_S", 0.05)
    async with reading(older) as store:
        await eventually(lambda: store.service_facts(DB).exported_to == ("cloud",))
        older.values[endpoints.EXPORTED_SERVICES] = [{"Service": "db", "Consumers": {"Peers": ["listed"]}}]
        await eventually(lambda: store.service_facts(DB).exported_to == ("listed",))
        await older.put(ENTRIES, [entry(exported("db", {"Peer": "ignored"}))])
        await older.put(endpoints.EXPORTED_SERVICES, [{"Service": "db", "Consumers": {"Peers": ["newer"]}}])
        await eventually(lambda: store.service_facts(DB).exported_to == ("newer",))


def test_an_export_that_is_gone_counts_also_while_the_service_cannot_be_assembled() -> None:
    (plain,) = [case for case in cases("services") if case.path.stem == "plain"]
    assembled = assemble_service(plain.service, plain.mesh)
    assert isinstance(assembled, Service)
    names = (*assembled.server_names, ServerName("east", peer="east"), ServerName("west", peer="west"))
    served = msgspec.structs.replace(assembled, server_names=names, importers=("east", "west"))
    left = with_newest_policy(served, dataclasses.replace(plain.service, exported_to=("west",)))
    assert [one.peer for one in left.server_names] == ["", "west"]
    assert left.importers == ("west",)
