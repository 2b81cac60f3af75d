"""The fact store: what is known, what is dirty, and what is linked."""

from __future__ import annotations

import asyncio

import pytest

from plugin.consul.api import (
    CompoundName,
    GatewayService,
    LinkedService,
    Roots,
    ServiceDefaults,
    TerminatingGatewayEntry,
)
from plugin.errors import ConsulForbidden, ConsulUnavailable
from plugin.facts import Fact
from plugin.observe.store import Changes, FactStore
from proxy.model import ServiceName
from proxy.rules import Action

DB = ServiceName("db")
LDAP = ServiceName("ldap")


def entry(*links: LinkedService | str) -> TerminatingGatewayEntry:
    services = tuple(link if isinstance(link, LinkedService) else LinkedService(name=link) for link in links)
    return TerminatingGatewayEntry(name="tgw", services=services)


async def changes(store: FactStore) -> Changes:
    async with asyncio.timeout(1):
        return await store.changed()


async def quiet(store: FactStore) -> bool:
    try:
        async with asyncio.timeout(0.02):
            await store.changed()
    except TimeoutError:
        return True
    return False


async def linked(*names: str) -> FactStore:
    store = FactStore()
    store.entry.learned(entry(*names))
    await changes(store)
    return store


async def test_many_changes_come_as_one_and_only_once() -> None:
    store = await linked("db", "ldap", "mq")
    store.intentions(DB).learned(())
    store.instances(DB).learned(())
    store.intentions(LDAP).learned(())
    store.default_action.learned(Action.DENY)
    assert await changes(store) == Changes(True, frozenset({DB, LDAP}), frozenset())
    assert await quiet(store)


async def test_waiting_consumer_is_woken() -> None:
    store = await linked("db")
    waiting = asyncio.get_running_loop().create_task(changes(store))
    await asyncio.sleep(0)
    store.intentions(DB).learned(())
    assert (await waiting).updated == {DB}


async def test_confirmation_is_not_a_change_but_moves_the_time() -> None:
    store = await linked("db")
    store.intentions(DB).learned((), index=4)
    await changes(store)
    before = store.service_facts(DB).intentions
    store.intentions(DB).learned((), index=5)
    after = store.service_facts(DB).intentions
    assert await quiet(store)
    assert (after.index, after.known, after.value) == (5, True, ())
    assert after.as_of_s >= before.as_of_s


async def test_unknown_is_not_empty() -> None:
    store = await linked("db")
    facts = store.service_facts(DB)
    for fact in (facts.intentions, facts.instances, facts.leaf, facts.defaults, facts.resolver):
        assert (fact.known, fact.value) == (False, None)
    store.service_defaults.learned(())
    assert (store.service_facts(DB).defaults.known, store.service_facts(DB).defaults.value) == (True, None)


async def test_problem_keeps_the_value_and_is_told_once() -> None:
    store = await linked("db")
    store.intentions(DB).learned(())
    await changes(store)
    store.intentions(DB).failed(ConsulUnavailable("away"))
    assert (await changes(store)).updated == {DB}
    store.intentions(DB).failed(ConsulUnavailable("away"))
    assert await quiet(store)
    fact = store.service_facts(DB).intentions
    assert (fact.known, fact.value, str(fact.problem)) == (True, (), "away")
    store.intentions(DB).learned(())
    assert (await changes(store)).updated == {DB}
    assert store.service_facts(DB).intentions.problem is None


async def test_links_follow_the_entry_and_wildcard_rows() -> None:
    store = FactStore()
    heard: list[tuple[frozenset[ServiceName], frozenset[ServiceName]]] = []
    store.subscribe_links(lambda added, removed: heard.append((added, removed)))
    assert not store.entry.fact.known
    store.entry.learned(entry("db", LinkedService(name="*", ca_file="/ca.pem")))
    store.gateway_services.learned((GatewayService(service=CompoundName(name="ldap"), from_wildcard=True),))
    assert store.linked() == (DB, LDAP)
    assert store.service_facts(LDAP).from_wildcard
    assert store.service_facts(LDAP).link.ca_file == "/ca.pem"
    store.entry.learned(entry("ldap"))
    assert heard == [(frozenset({DB}), frozenset()), (frozenset({LDAP}), frozenset()), (frozenset(), frozenset({DB}))]
    got = await changes(store)
    assert got.updated == {LDAP}
    assert got.removed == {DB}
    with pytest.raises(KeyError):
        store.service_facts(DB)


async def test_changed_link_keeps_the_facts() -> None:
    store = await linked("db")
    store.intentions(DB).learned(())
    await changes(store)
    store.entry.learned(entry(LinkedService(name="db", sni="db.example")))
    assert (await changes(store)).updated == {DB}
    assert store.service_facts(DB).link.sni == "db.example"
    assert store.service_facts(DB).intentions.known


async def test_relinked_service_starts_afresh_and_late_answers_are_dropped() -> None:
    store = await linked("db")
    late = store.intentions(DB)
    late.learned(())
    store.entry.learned(entry())
    late.learned(())
    store.entry.learned(entry("db"))
    got = await changes(store)
    assert got.updated == {DB}
    assert got.removed == frozenset()
    late.learned(())
    late.failed(ConsulUnavailable("late"))
    assert not store.service_facts(DB).intentions.known
    assert store.service_facts(DB).intentions.problem is None


async def test_deleted_entry_unlinks_everything_but_an_unreadable_one_nothing() -> None:
    store = await linked("db")
    store.entry.failed(ConsulForbidden("no"))
    assert store.linked() == (DB,)
    store.entry.learned(None)
    assert store.linked() == ()
    assert store.entry.fact.known


async def test_only_services_whose_entry_changed_are_touched() -> None:
    store = await linked("db", "ldap")
    store.service_defaults.learned([ServiceDefaults(name="db", protocol="tcp")])
    assert (await changes(store)).updated == {DB, LDAP}
    store.service_defaults.learned(
        [ServiceDefaults(name="db", protocol="tcp"), ServiceDefaults(name="unlinked", protocol="http")]
    )
    assert await quiet(store)
    store.service_defaults.learned([ServiceDefaults(name="db", protocol="http")])
    assert (await changes(store)).updated == {DB}
    store.service_defaults.learned([])
    assert (await changes(store)).updated == {DB}
    assert store.service_facts(DB).defaults.value is None


async def test_failed_list_keeps_the_entries() -> None:
    store = await linked("db")
    store.service_defaults.learned([ServiceDefaults(name="db", protocol="http")])
    store.service_defaults.failed(ConsulUnavailable("away"))
    fact = store.service_facts(DB).defaults
    assert fact.known
    assert fact.value is not None
    assert (fact.value.protocol, str(fact.problem)) == ("http", "away")


async def test_mesh_changes_are_told_apart() -> None:
    store = await linked("db")
    store.roots.learned(Roots(active_root_id="a", trust_domain="td.consul"))
    store.set_datacenter("dc1")
    store.set_proxy_config({"connect_timeout_ms": 1})
    assert await changes(store) == Changes(True, frozenset(), frozenset())
    store.set_datacenter("dc1")
    store.set_proxy_config({"connect_timeout_ms": 1})
    assert await quiet(store)
    assert store.mesh_facts().roots.known


async def test_files_and_addresses_are_the_services_own() -> None:
    store = await linked("db")
    store.set_files(ServiceName("unlinked"), {})
    store.set_addresses(DB, {})
    assert await quiet(store)
    fact = Fact(b"pem", known=True)
    store.set_files(DB, {"/ca.pem": fact})
    assert (await changes(store)).updated == {DB}
    assert store.service_facts(DB).files == {"/ca.pem": fact}


async def test_recording_a_change_does_not_look_at_the_other_services(monkeypatch: pytest.MonkeyPatch) -> None:
    store = await linked(*(f"s{number}" for number in range(2000)))

    class Counting(dict[ServiceName, object]):
        iterations = 0

        def __iter__(self) -> object:  # type: ignore[override]
            Counting.iterations += 1
            return super().__iter__()

    monkeypatch.setattr(store, "_linked", Counting(store._linked))
    store.intentions(ServiceName("s7")).learned(())
    store.service_facts(ServiceName("s7"))
    await changes(store)
    assert Counting.iterations == 0


async def test_entry_of_a_new_link_is_unknown_while_the_list_may_be_older() -> None:
    store = await linked("db", "ldap")
    assert not store.service_defaults.doubt([DB])
    store.service_defaults.learned([], index=7)
    assert store.service_defaults.doubt([DB])
    assert not store.service_facts(DB).defaults.known
    assert store.service_facts(LDAP).defaults.known
    await changes(store)
    store.service_defaults.learned([ServiceDefaults(name="db", protocol="http")], index=8)
    assert not store.service_facts(DB).defaults.known
    store.service_defaults.sure([DB])
    assert (await changes(store)).updated == {DB}
    fact = store.service_facts(DB).defaults
    assert fact.value is not None
    assert fact.value.protocol == "http"


async def test_entries_that_were_saved_are_not_doubted() -> None:
    store = await linked("db")
    store.service_defaults.restore([ServiceDefaults(name="db", protocol="http")], as_of_s=1.0)
    assert not store.service_defaults.doubt([DB])
    assert store.service_facts(DB).defaults.known
