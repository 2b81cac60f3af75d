from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

from plugin import gateway
from plugin.consul.api import (
    IntentionMatch,
    LinkedService,
    ProxyDefaults,
    Root,
    Roots,
    ServiceDefaults,
    ServiceResolver,
    TerminatingGatewayEntry,
)
from plugin.errors import ConsulBusy, ConsulForbidden
from plugin.facts import ServiceFacts
from plugin.gateway import Gateway
from plugin.observe.needs import Needs
from plugin.observe.store import FactStore
from plugin.workers.published import Published
from proxy.messages import Update
from proxy.model import Leaf, ServiceName
from proxy.rules import Action
from tests.support.eventually import eventually

A, B = ServiceName("a"), ServiceName("b")
LEAF = Leaf("chain", "key", "spiffe://x", "01", 0.0, 9e9)


class Rig:
    """A gateway with a real store, and what it told the workers."""

    def __init__(self) -> None:
        self.store = FactStore()
        self.published = Published()
        self.updates: list[Update] = []
        self.needs: list[tuple[ServiceName, ServiceFacts | None]] = []
        self.gateway = Gateway(
            self.store, self.published, self._publish, needs=lambda name, facts: self.needs.append((name, facts))
        )

    def _publish(self, names: Collection[ServiceName], *, mesh: bool) -> None:
        self.updates.append(self.published.delta(names, mesh=mesh))

    def learn_mesh(self) -> None:
        self.store.set_datacenter("dc1")
        self.store.roots.learned(Roots("r", "T.consul", (Root("r", "PEM", active=True),)), index=1)
        self.store.mesh.learned(None)
        self.store.proxy_defaults.learned(None)
        self.store.default_action.learned(Action.DENY)
        self.store.service_defaults.learned(())
        self.store.service_resolvers.learned(())

    def link(self, *links: LinkedService) -> None:
        self.store.entry.learned(TerminatingGatewayEntry(name="gw", services=links))
        self.store.gateway_services.learned(())

    def learn(self, name: ServiceName) -> None:
        self.store.instances(name).learned(())
        self.store.intentions(name).learned(())
        self.store.leaf(name).learned(LEAF)

    async def settled(self) -> None:
        """The gateway has consumed every change so far."""
        await eventually(lambda: not self.store._wake.is_set())
        await asyncio.sleep(0)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    started = Rig()
    task = asyncio.get_running_loop().create_task(started.gateway.run())
    yield started
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def serving(rig: Rig, *links: LinkedService) -> None:
    rig.learn_mesh()
    rig.link(*links)
    for link in links:
        rig.learn(ServiceName(link.name))
    await eventually(lambda: rig.published.complete and set(rig.published.services) == set(rig.store.linked()))
    rig.updates.clear()


async def test_the_first_state_is_complete_when_every_answer_has_come(rig: Rig) -> None:
    rig.learn_mesh()
    rig.link(LinkedService(name="a"), LinkedService(name="b"))
    rig.learn(A)
    await eventually(lambda: A in rig.published.services)
    assert not rig.published.complete
    rig.store.intentions(B).learned(())
    rig.store.instances(B).learned(())
    rig.store.leaf(B).failed(ConsulForbidden("no leaf for b", 'service "b" { policy = "write" }'))
    await eventually(lambda: rig.published.complete)
    assert set(rig.published.services) == {A}
    assert any("no leaf for b" in reason for reason in rig.gateway.problems_of(B))


async def test_a_gateway_without_links_is_complete(rig: Rig) -> None:
    rig.learn_mesh()
    rig.store.entry.learned(None)
    await eventually(lambda: rig.published.complete)
    assert rig.published.linked == frozenset()


async def test_only_the_changed_service_is_sent(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"), LinkedService(name="b"))
    rig.store.intentions(A).learned((IntentionMatch(source_name="web", destination_name="a", action="allow"),))
    await eventually(lambda: rig.updates)
    (update,) = rig.updates
    assert [service.name for service in update.upserts] == [A]
    assert update.mesh is None
    assert update.generation == rig.published.generation


async def test_news_that_change_nothing_for_workers_are_not_sent(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"))
    rig.store.leaf(A).failed(ConsulForbidden("lost the right"))
    await rig.settled()
    await eventually(lambda: rig.gateway.warnings_of(A))
    assert rig.updates == []


async def test_an_unlinked_service_is_removed(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"), LinkedService(name="b"))
    rig.link(LinkedService(name="b"))
    await eventually(lambda: rig.updates)
    assert rig.updates[0].removals == (A,)
    assert (A, None) in rig.needs


async def test_a_service_that_breaks_keeps_its_state_but_never_its_old_policy(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"))
    # Somebody sets a CAFile that nobody has read yet: the service cannot be assembled any more.
    rig.store.entry.learned(TerminatingGatewayEntry(name="gw", services=(LinkedService(name="a", ca_file="/none"),)))
    await eventually(lambda: rig.gateway.problems_of(A))
    assert A in rig.published.services
    rig.store.intentions(A).learned((IntentionMatch(source_name="web", destination_name="a", action="deny"),))
    await eventually(lambda: rig.updates)
    (service,) = rig.updates[-1].upserts
    assert service.intentions is not None
    assert [intention.action for intention in service.intentions] == [Action.DENY]
    assert rig.gateway.problems_of(A)


async def test_a_broken_service_does_not_delay_another(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"))
    rig.link(LinkedService(name="a"), LinkedService(name="b", ca_file="/none"))
    rig.learn(B)
    await eventually(lambda: rig.gateway.problems_of(B))
    assert B not in rig.published.services
    rig.store.intentions(A).learned((IntentionMatch(source_name="web", destination_name="a", action="allow"),))
    await eventually(lambda: any(update.upserts for update in rig.updates))


async def test_what_all_services_share_reaches_all_of_them(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"), LinkedService(name="b"))
    rig.store.proxy_defaults.learned(ProxyDefaults(config={"protocol": "http"}))
    await eventually(lambda: rig.updates)
    assert {service.name: service.protocol for service in rig.updates[0].upserts} == {A: "http", B: "http"}


async def test_a_burst_goes_out_together(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"), LinkedService(name="b"))
    rig.store.service_defaults.learned((ServiceDefaults(name="a", protocol="http"),))
    rig.store.service_resolvers.learned((ServiceResolver(name="b", connect_timeout="9s"),))
    await eventually(lambda: rig.updates)
    assert len(rig.updates) == 1
    assert [service.name for service in rig.updates[0].upserts] == [A, B]


async def test_the_links_are_not_known_before_the_wildcard_is_expanded(rig: Rig) -> None:
    rig.learn_mesh()
    rig.store.entry.learned(TerminatingGatewayEntry(name="gw", services=(LinkedService(name="*"),)))
    await rig.settled()
    assert rig.published.linked is None
    rig.store.gateway_services.learned(())
    await eventually(lambda: rig.published.complete)
    assert rig.published.linked == frozenset()


async def test_a_state_that_is_too_old_is_said_to_workers_and_stays_so_when_the_mesh_changes(rig: Rig) -> None:
    await serving(rig, LinkedService(name="a"))
    rig.gateway.set_stale(True)
    assert [update.mesh is not None and update.mesh.stale for update in rig.updates] == [True]
    rig.store.default_action.learned(Action.ALLOW)
    await eventually(lambda: len(rig.updates) == 2)
    assert rig.published.mesh is not None
    assert (rig.published.mesh.stale, rig.published.mesh.default_action) == (True, Action.ALLOW)
    rig.gateway.set_stale(False)
    assert not rig.published.mesh.stale
    assert len(rig.updates) == 3


async def test_a_state_that_is_too_old_at_the_start_is_never_said_to_be_young(rig: Rig) -> None:
    rig.gateway.set_stale(True)
    assert rig.updates == []
    rig.learn_mesh()
    rig.link(LinkedService(name="a"))
    rig.learn(A)
    await eventually(lambda: rig.published.complete)
    assert rig.updates
    assert all(update.mesh is None or update.mesh.stale for update in rig.updates)


KEYS = base64.b64encode(b'{"keys":[{"kty":"oct","k":"c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}').decode()
OTHER_KEYS = base64.b64encode(b'{"keys":[{"kty":"oct","k":"dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ"}]}').decode()


def provider(keys: str) -> dict[str, Any]:
    return {"Name": "okta", "JSONWebKeySet": {"Local": {"JWKS": keys}}}


async def test_an_intention_and_the_provider_that_it_names_go_out_together(rig: Rig) -> None:
    needs = Needs(rig.store)
    rig.gateway._needs = needs.changed
    await serving(rig, LinkedService(name="a"))
    rig.store.providers.learned((provider(KEYS),))
    await rig.settled()
    rig.updates.clear()
    needed = {"Providers": [{"Name": "okta"}]}
    rig.store.intentions(A).learned((IntentionMatch(source_name="web", destination_name="a", jwt=needed),))
    await eventually(lambda: rig.updates)
    first = rig.updates[0]
    assert [one.name for one in first.upserts] == [A]
    assert first.mesh is not None
    assert [bool(one.keys_json) for one in first.mesh.token_providers] == [True]


async def test_new_keys_touch_no_service(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await serving(rig, LinkedService(name="a"), LinkedService(name="b"))
    rig.store.set_wanted_providers(frozenset({"okta"}))
    rig.store.providers.learned((provider(KEYS),))
    await eventually(lambda: rig.published.mesh and rig.published.mesh.token_providers)
    await rig.settled()
    rig.updates.clear()
    assembled: list[ServiceName] = []
    monkeypatch.setattr(rig.gateway, "_assemble", lambda name: assembled.append(name))
    rig.store.providers.learned((provider(OTHER_KEYS),))
    await eventually(lambda: rig.updates)
    assert rig.updates[0].mesh is not None
    assert assembled == []
    # With anything else in the same breath they are assembled, whether the mesh shows it or not.
    rig.store.providers.learned((provider(KEYS),))
    rig.store.proxy_defaults.learned(ProxyDefaults(config={"protocol": "http"}))
    await eventually(lambda: set(assembled) == {A, B})


async def test_the_first_state_waits_for_the_providers_that_are_named(rig: Rig) -> None:
    rig.gateway._needs = Needs(rig.store).changed
    rig.learn_mesh()
    rig.link(LinkedService(name="a"))
    rig.learn(A)
    needed = {"Providers": [{"Name": "okta"}]}
    rig.store.intentions(A).learned((IntentionMatch(source_name="web", destination_name="a", jwt=needed),))
    await eventually(lambda: A in rig.published.services)
    await rig.settled()
    assert not rig.published.complete
    rig.store.providers.failed(ConsulForbidden("no right"))
    await eventually(lambda: rig.published.complete)
    assert any("okta" in text and "no right" in text for text in rig.gateway.warnings_of(A))


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s


async def test_the_first_state_waits_as_long_as_services_go_on_coming(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Consul signs a bounded number of leaves a second: a gateway of many services is not ready before the last one."""
    clock = Clock()
    monkeypatch.setattr(gateway, "time", clock)
    rig.learn_mesh()
    rig.link(*(LinkedService(name=name) for name in "abc"))
    await rig.settled()
    began_s = clock.now_s
    for passed_s, name in ((9.0, A), (18.0, B)):
        clock.now_s = began_s + passed_s
        rig.learn(name)
        await eventually(lambda name=name: name in rig.published.services)  # type: ignore[misc]
        assert rig.gateway._patience_left_s() == gateway.PATIENCE_S
    clock.now_s += gateway.PATIENCE_S
    assert rig.gateway._patience_left_s() == 0
    # However many come one by one, it is not put off without end.
    monkeypatch.setattr(gateway, "LONGEST_PATIENCE_S", 20.0)
    clock.now_s = began_s + 18.0
    assert rig.gateway._patience_left_s() == 2.0
    assert not rig.published.complete


async def test_a_leaf_that_waits_for_its_turn_is_awaited_and_one_that_is_refused_is_not(rig: Rig) -> None:
    """Consul signs so many leaves a second for all of its clients."""
    rig.learn_mesh()
    rig.link(LinkedService(name="a"), LinkedService(name="b"))
    rig.learn(A)
    rig.store.instances(B).learned(())
    rig.store.intentions(B).learned(())
    rig.store.leaf(B).failed(ConsulBusy("Rate limit reached, try again later"))
    await eventually(lambda: A in rig.published.services)
    await rig.settled()
    assert not rig.published.complete
    rig.store.leaf(B).failed(ConsulForbidden("Permission denied"))
    await eventually(lambda: rig.published.complete)
