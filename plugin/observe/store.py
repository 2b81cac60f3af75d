"""Everything that is known, in one place, and which services a change concerns.

It owns the facts and the set of linked services; it asks nobody and decides nothing. Who learns something writes it
into a :class:`plugin.observe.slots.Slot`; the one consumer waits in :meth:`FactStore.changed` and reads the facts of
what changed. Recording a change costs the same whatever the number of services.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from plugin.assemble.links import linked_services
from plugin.assemble.peers import importers, importers_among
from plugin.consul.api import (
    ExportedService,
    GatewayService,
    HealthEntry,
    IntentionMatch,
    LinkedService,
    MeshEntry,
    ProxyDefaults,
    Roots,
    ServiceDefaults,
    ServiceResolver,
    TerminatingGatewayEntry,
)
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.jwks.provider import KeptKeys
from plugin.observe.slots import EntryList, Slot
from proxy.model import Leaf, PeerBundle, ServiceName
from proxy.rules import Action

LinksChanged = Callable[[frozenset[ServiceName], frozenset[ServiceName]], None]
"""Called with the services that were linked, and those that no longer are."""
ProvidersChanged = Callable[[], None]
"""Called when other providers are wanted, or their entries are others than before."""
InstancesChanged = Callable[[ServiceName], None]
"""Called with a linked service whose instances are others than before."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since the last time somebody asked."""

    mesh: bool
    updated: frozenset[ServiceName]
    removed: frozenset[ServiceName]
    """No longer linked."""


@dataclass(slots=True)
class _Linked:
    link: LinkedService
    from_wildcard: bool
    instances: Fact[tuple[HealthEntry, ...]] = field(default_factory=Fact)
    sidecars: Fact[tuple[HealthEntry, ...]] = field(default_factory=Fact)
    intentions: Fact[tuple[IntentionMatch, ...]] = field(default_factory=Fact)
    leaf: Fact[Leaf] = field(default_factory=Fact)
    files: Mapping[str, Fact[bytes]] = field(default_factory=dict)
    addresses: Mapping[str, Fact[tuple[str, ...]]] = field(default_factory=dict)


class FactStore:
    """For one event loop and one consumer of :meth:`changed`."""

    def __init__(self) -> None:
        self._mesh = MeshFacts()
        self._linked: dict[ServiceName, _Linked] = {}
        self._subscribers: list[LinksChanged] = []
        self._instance_subscribers: list[InstancesChanged] = []
        self._mesh_dirty = False
        self._updated: set[ServiceName] = set()
        self._removed: set[ServiceName] = set()
        self._wake = asyncio.Event()
        self.revision = 0
        """Raised with every change; a mere confirmation is none."""
        self.service_defaults: EntryList[ServiceDefaults] = EntryList(self._entries_touched)
        self.service_resolvers: EntryList[ServiceResolver] = EntryList(self._entries_touched)
        self.roots: Slot[Roots] = self._mesh_slot("roots")
        self.mesh: Slot[MeshEntry] = self._mesh_slot("mesh")
        self.proxy_defaults: Slot[ProxyDefaults] = self._mesh_slot("proxy_defaults")
        self.default_action: Slot[Action] = self._mesh_slot("default_action")
        self.peers: Slot[tuple[PeerBundle, ...]] = self._mesh_slot("peers")
        self._importers: dict[ServiceName, tuple[str, ...]] = {}
        self.exports: Slot[tuple[ExportedService, ...]] = Slot(lambda: self._mesh.exports, self._set_exports)
        self._provider_subscribers: list[ProvidersChanged] = []
        self.providers: Slot[tuple[Any, ...]] = Slot(lambda: self._mesh.providers, self._set_providers)
        self._entry: Fact[TerminatingGatewayEntry] = Fact()
        self._rows: Fact[tuple[GatewayService, ...]] = Fact()
        self.entry: Slot[TerminatingGatewayEntry] = Slot(lambda: self._entry, self._set_entry)
        self.gateway_services: Slot[tuple[GatewayService, ...]] = Slot(lambda: self._rows, self._set_rows)

    def forget(self) -> None:
        """Know nothing again of what Consul says: no link, no policy, no mesh."""
        self.service_defaults.forget()
        self.service_resolvers.forget()
        self._set_mesh(True, **dict.fromkeys(("roots", "mesh", "proxy_defaults", "default_action", "peers"), Fact()))
        self._set_mesh(True, datacenter="", consul_version="")
        self._set_providers(Fact(), True)
        self._set_exports(Fact(), True)
        self.set_unusable_peers(())
        self._entry, self._rows = Fact(), Fact()
        self._relink()

    def mesh_facts(self) -> MeshFacts:
        return self._mesh

    def linked(self) -> tuple[ServiceName, ...]:
        """Empty also while the links are not known: see ``entry.fact.known``."""
        return tuple(self._linked)

    def index_of_intentions(self, name: ServiceName) -> int:
        """Consul's index of what is known of them; 0 while nothing is, or the service is not linked."""
        linked = self._linked.get(name)
        return linked.intentions.index if linked is not None else 0

    def service_facts(self, name: ServiceName) -> ServiceFacts:
        """:raises KeyError: when ``name`` is not linked."""
        linked = self._linked[name]
        return ServiceFacts(
            name=name,
            link=linked.link,
            from_wildcard=linked.from_wildcard,
            instances=linked.instances,
            sidecars=linked.sidecars,
            intentions=linked.intentions,
            leaf=linked.leaf,
            defaults=self.service_defaults.of(name),
            resolver=self.service_resolvers.of(name),
            files=linked.files,
            addresses=linked.addresses,
            exported_to=importers_among(self._importers, name),
        )

    async def changed(self) -> Changes:
        """Wait for the next change; everything that changed until the caller runs again comes as one."""
        await self._wake.wait()
        self._wake.clear()
        changes = Changes(self._mesh_dirty, frozenset(self._updated), frozenset(self._removed))
        self._mesh_dirty = False
        self._updated.clear()
        self._removed.clear()
        return changes

    def subscribe_links(self, subscriber: LinksChanged) -> None:
        """``subscriber`` is called at every change of the links, before the consumer of :meth:`changed`."""
        self._subscribers.append(subscriber)
        if self._linked:
            subscriber(frozenset(self._linked), frozenset())

    def subscribe_instances(self, subscriber: InstancesChanged) -> None:
        """``subscriber`` is called for every service whose instances are known, and at every change of them."""
        self._instance_subscribers.append(subscriber)
        for name, linked in self._linked.items():
            if linked.instances.known:
                subscriber(name)

    def subscribe_providers(self, subscriber: ProvidersChanged) -> None:
        """``subscriber`` is called at once, and whenever other providers are wanted or their entries have changed."""
        self._provider_subscribers.append(subscriber)
        subscriber()

    def instances(self, name: ServiceName) -> Slot[tuple[HealthEntry, ...]]:
        return self._service_slot(name, "instances", self._instance_subscribers)

    def sidecars(self, name: ServiceName) -> Slot[tuple[HealthEntry, ...]]:
        return self._service_slot(name, "sidecars")

    def intentions(self, name: ServiceName) -> Slot[tuple[IntentionMatch, ...]]:
        return self._service_slot(name, "intentions")

    def leaf(self, name: ServiceName) -> Slot[Leaf]:
        return self._service_slot(name, "leaf")

    def set_files(self, name: ServiceName, files: Mapping[str, Fact[bytes]]) -> None:
        self._set_mapping(name, "files", files)

    def set_addresses(self, name: ServiceName, addresses: Mapping[str, Fact[tuple[str, ...]]]) -> None:
        self._set_mapping(name, "addresses", addresses)

    def _set_mapping(self, name: ServiceName, which: str, value: Mapping[str, Any]) -> None:
        linked = self._linked.get(name)
        if linked is not None and getattr(linked, which) != value:
            setattr(linked, which, dict(value))
            self._touch(name)

    def _service_slot(self, name: ServiceName, which: str, subscribers: Iterable[InstancesChanged] = ()) -> Slot[Any]:
        """A slot of a service that is unlinked meanwhile takes nothing: an answer that comes late is dropped, also
        when the service is linked again."""
        linked = self._linked.get(name)

        def current() -> _Linked | None:
            return linked if linked is not None and self._linked.get(name) is linked else None

        def read() -> Fact[Any] | None:
            found = current()
            return None if found is None else getattr(found, which)

        def write(fact: Fact[Any], changed: bool) -> None:
            found = current()
            if found is not None:
                setattr(found, which, fact)
                if changed:
                    self._touch(name)
                    for subscriber in subscribers:
                        subscriber(name)

        return Slot(read, write)

    def set_datacenter(self, datacenter: str) -> None:
        if datacenter != self._mesh.datacenter:
            self._set_mesh(True, datacenter=datacenter)

    def set_consul_version(self, version: str) -> None:
        # For operators alone: nothing is assembled from it.
        self._set_mesh(False, consul_version=version)

    def set_proxy_config(self, config: Mapping[str, object]) -> None:
        if config != self._mesh.proxy_config:
            self._set_mesh(True, proxy_config=dict(config))

    def set_wanted_providers(self, names: frozenset[str]) -> None:
        if names != self._mesh.wanted_providers:
            self._set_mesh(True, wanted_providers=names)
            self._tell_of_providers()

    def _set_providers(self, fact: Fact[tuple[Any, ...]], changed: bool) -> None:
        self._set_mesh(changed, providers=fact)
        if changed:
            self._tell_of_providers()

    def _tell_of_providers(self) -> None:
        for subscriber in self._provider_subscribers:
            subscriber()

    def set_exports_awaited(self) -> None:
        self._set_mesh(True, exports_awaited=True)

    def is_any_exported(self) -> bool:
        """To a peer, of the linked services."""
        return any(importers_among(self._importers, name) for name in self._linked) if self._importers else False

    def set_unusable_peers(self, why: tuple[str, ...]) -> None:
        if why != self._mesh.unusable_peers:
            self._set_mesh(True, unusable_peers=why)

    def _set_exports(self, fact: Fact[tuple[ExportedService, ...]], changed: bool) -> None:
        self._set_mesh(changed, exports=fact)
        if changed:
            old, self._importers = self._importers, importers(fact.value or ())
            names = old.keys() | self._importers.keys() | self._linked.keys()
            self._entries_touched(
                name for name in names if importers_among(old, name) != importers_among(self._importers, name)
            )
            self._look_for_exported()

    def _look_for_exported(self) -> None:
        if self.is_any_exported() != self._mesh.peers_awaited:
            self._set_mesh(True, peers_awaited=self.is_any_exported())

    def set_keys(self, keys: Mapping[KeptKeys, Fact[str]]) -> None:
        self._set_mesh(not _same(keys, self._mesh.keys), keys=dict(keys))

    def _mesh_slot(self, which: str) -> Slot[Any]:
        return Slot(lambda: getattr(self._mesh, which), lambda fact, changed: self._set_mesh(changed, **{which: fact}))

    def _set_mesh(self, changed: bool, **values: Any) -> None:
        self._mesh = replace(self._mesh, **values)
        if changed:
            self._mesh_dirty = True
            self._changed()

    def _set_entry(self, fact: Fact[TerminatingGatewayEntry], changed: bool) -> None:
        self._entry = fact
        if changed:
            self._relink()

    def _set_rows(self, fact: Fact[tuple[GatewayService, ...]], changed: bool) -> None:
        self._rows = fact
        if changed:
            self._relink()

    def _relink(self) -> None:
        links = linked_services(self._entry.value, self._rows.value or ())
        removed = frozenset(self._linked.keys() - links.keys())
        added = frozenset(links.keys() - self._linked.keys())
        for name in removed:
            del self._linked[name]
        for name, link in links.items():
            self._link(name, link.link, link.from_wildcard)
        self._updated -= removed
        self._removed = (self._removed | removed) - self._linked.keys()
        self._look_for_exported()
        # The consumer also hears of an entry that became known and links nothing, or that cannot be read.
        self._mesh_dirty = True
        self._changed()
        if added or removed:
            for subscriber in self._subscribers:
                subscriber(added, removed)

    def _link(self, name: ServiceName, link: LinkedService, from_wildcard: bool) -> None:
        linked = self._linked.get(name)
        if linked is None:
            self._linked[name] = _Linked(link, from_wildcard)
        elif (linked.link, linked.from_wildcard) != (link, from_wildcard):
            linked.link, linked.from_wildcard = link, from_wildcard
        else:
            return
        self._touch(name)

    def _entries_touched(self, names: Iterable[ServiceName] | None) -> None:
        for name in self._linked if names is None else names:
            if name in self._linked:
                self._touch(name)

    def _changed(self) -> None:
        self.revision += 1
        self._wake.set()

    def _touch(self, name: ServiceName) -> None:
        self._updated.add(name)
        self._changed()


def _same(new: Mapping[Any, Fact[Any]], old: Mapping[Any, Fact[Any]]) -> bool:
    """But for when they were confirmed."""
    return new.keys() == old.keys() and all(
        (fact.value, fact.known, str(fact.problem)) == (old[key].value, old[key].known, str(old[key].problem))
        for key, fact in new.items()
    )
