"""Between the fact store and a saved state: what is known goes in, and comes back as known as it was.

What was not known is not in it, and stays unknown. Nothing is read from a file or a clock here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plugin.errors import ConsulUnavailable
from plugin.facts import Fact
from plugin.jwks.provider import KeptKeys
from plugin.observe.slots import Slot
from plugin.observe.store import FactStore
from plugin.saved_state.form import Known, Owner, SavedKeys, SavedService, SavedState
from proxy.model import Leaf, ServiceName

Addresses = dict[str, Fact[tuple[str, ...]]]


def gather(store: FactStore, owner: Owner, ages_s: Mapping[str, float], **stamps: Any) -> SavedState:
    """``stamps`` are the fields that say when it is saved."""
    mesh = store.mesh_facts()
    return SavedState(
        owner=owner,
        datacenter=mesh.datacenter,
        ages_s=dict(ages_s),
        entry=_known(store.entry.fact),
        gateway_services=_known(store.gateway_services.fact),
        service_defaults=_known(store.service_defaults.all),
        service_resolvers=_known(store.service_resolvers.all),
        roots=_known(mesh.roots),
        mesh=_known(mesh.mesh),
        proxy_defaults=_known(mesh.proxy_defaults),
        default_action=_known(mesh.default_action),
        providers=_known(mesh.providers),
        keys=tuple(
            SavedKeys(source, known) for source, fact in mesh.keys.items() if (known := _known(fact)) is not None
        ),
        peers=_known(mesh.peers),
        exports=_known(mesh.exports),
        proxy_config=dict(mesh.proxy_config),
        services=tuple(_service(store, name) for name in store.linked()),
        **stamps,
    )


def _service(store: FactStore, name: ServiceName) -> SavedService:
    facts = store.service_facts(name)
    return SavedService(
        name=name,
        instances=_known(facts.instances),
        sidecars=_known(facts.sidecars),
        intentions=_known(facts.intentions),
        leaf=_known(facts.leaf),
        addresses={host: known for host, fact in facts.addresses.items() if (known := _known(fact)) is not None},
    )


def _known(fact: Fact[Any]) -> Known[Any] | None:
    return Known(fact.value, fact.as_of_s) if fact.known else None


@dataclass(frozen=True, slots=True)
class Rest:
    """What is known again, for those who keep it up to date."""

    addresses: Addresses = field(default_factory=dict)
    """By hostname."""
    keys: dict[KeptKeys, Fact[str]] = field(default_factory=dict)


def put_back(state: SavedState, store: FactStore, *, now_s: float) -> Rest:
    """Make everything in ``state`` known again, but no leaf that has ended by ``now_s`` (Unix time)."""
    if state.datacenter:
        store.set_datacenter(state.datacenter)
    for slot, known in (
        (store.roots, state.roots),
        (store.mesh, state.mesh),
        (store.proxy_defaults, state.proxy_defaults),
        (store.default_action, state.default_action),
        (store.providers, state.providers),
        (store.peers, state.peers),
        (store.exports, state.exports),
    ):
        _restore(slot, known)
    if state.service_defaults is not None:
        store.service_defaults.restore(state.service_defaults.value or (), as_of_s=state.service_defaults.as_of_s)
    if state.service_resolvers is not None:
        store.service_resolvers.restore(state.service_resolvers.value or (), as_of_s=state.service_resolvers.as_of_s)
    _restore(store.gateway_services, state.gateway_services)
    _restore(store.entry, state.entry)
    addresses: Addresses = {}
    for service in state.services:
        _restore(store.instances(service.name), service.instances)
        _restore(store.sidecars(service.name), service.sidecars)
        _restore(store.intentions(service.name), service.intentions)
        _restore_leaf(store.leaf(service.name), service.leaf, service.name, now_s)
        addresses |= {
            host: Fact(known.value, True, None, 0, known.as_of_s) for host, known in service.addresses.items()
        }
    keys = {one.source: Fact(one.keys.value, True, None, 0, one.keys.as_of_s) for one in state.keys}
    return Rest(addresses, keys)


def _restore(slot: Slot[Any], known: Known[Any] | None) -> None:
    if known is not None:
        slot.restore(known.value, as_of_s=known.as_of_s)


def _restore_leaf(slot: Slot[Leaf], known: Known[Leaf] | None, name: ServiceName, now_s: float) -> None:
    leaf = known.value if known is not None else None
    if leaf is not None and leaf.not_after_s <= now_s:
        ended = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(leaf.not_after_s))
        slot.failed(ConsulUnavailable(f"the saved leaf certificate of {name} ended at {ended}; Consul has to renew it"))
    else:
        _restore(slot, known)
