"""The facts as they would be with other config entries: pure, and never written anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from plugin.assemble.intentions import named_providers
from plugin.assemble.links import WILDCARD, Link, linked_services
from plugin.consul.api import (
    GatewayService,
    IntentionMatch,
    MeshEntry,
    ProxyDefaults,
    ServiceDefaults,
    ServiceResolver,
    TerminatingGatewayEntry,
)
from plugin.errors import ConfigError
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.jwks.provider import by_name
from plugin.simulate.entries import name_of, namespace_of, partition_of
from proxy.model import ServiceName

Entries = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All facts that services are assembled from."""

    services: Mapping[ServiceName, ServiceFacts]
    """Of linked ones."""
    mesh: MeshFacts
    gateway: str
    """The name of the gateway's own entry."""
    entry: TerminatingGatewayEntry | None = None
    rows: tuple[GatewayService, ...] = ()


@dataclass(slots=True)
class Proposed:
    """The world with the entries."""

    world: World
    touched: set[ServiceName] = field(default_factory=set)
    """Linked services that may be others than before; also those that are linked newly."""
    unlinked: set[ServiceName] = field(default_factory=set)
    linked: set[ServiceName] = field(default_factory=set)
    mesh_touched: bool = False
    remarks: list[str] = field(default_factory=list)


def propose(world: World, entries: Entries) -> Proposed:
    """:raises ConfigError: when an entry is not what Consul would take."""
    proposed = Proposed(world)
    links = [one for one in entries if one["Kind"] == "terminating-gateway"]
    for entry in (*links, *(one for one in entries if one["Kind"] != "terminating-gateway")):
        try:
            _TAKE[entry["Kind"]](proposed, entry)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{name_of(entry)} is not understood: {error}") from error
    return proposed


def new_services(proposed: Proposed, found: Mapping[ServiceName, ServiceFacts], entries: Entries) -> None:
    """Take in what was asked about services that are linked newly, with the entries over it."""
    services = {**proposed.world.services, **found}
    proposed.world = replace(proposed.world, services=services)
    for entry in entries:
        if entry["Kind"] != "terminating-gateway":
            _TAKE[entry["Kind"]](proposed, entry)
    proposed.remarks = list(dict.fromkeys(proposed.remarks))


def matches_of(entry: Mapping[str, Any]) -> tuple[IntentionMatch, ...]:
    """What ``GET /v1/connect/intentions/match`` would say of the entry."""
    namespace = namespace_of(entry)
    return tuple(
        msgspec.convert(
            {
                "SourceName": source["Name"],
                "SourceNS": str(source.get("Namespace") or namespace),
                "SourcePartition": str(source.get("Partition") or ""),
                "SourcePeer": str(source.get("Peer") or ""),
                "SourceSamenessGroup": str(source.get("SamenessGroup") or ""),
                "DestinationName": entry["Name"],
                "DestinationNS": namespace,
                "Action": source.get("Action") or "",
                "Permissions": source.get("Permissions"),
                "JWT": entry.get("JWT"),
                "Precedence": precedence(
                    source["Name"], str(source.get("Namespace") or namespace), entry["Name"], namespace
                ),
            },
            IntentionMatch,
        )
        for source in entry["Sources"]
    )


def precedence(source: str, source_namespace: str, destination: str, destination_namespace: str) -> int:
    """Consul's number: https://developer.hashicorp.com/consul/docs/secure-mesh/intention (precedence)."""
    return (9, 6, 3)[2 - _exact(destination, destination_namespace)] - (2 - _exact(source, source_namespace))


def _exact(name: str, namespace: str) -> int:
    if namespace == WILDCARD:
        return 0
    return 1 if name == WILDCARD else 2


def _intentions(proposed: Proposed, entry: Mapping[str, Any]) -> None:
    namespace, name = namespace_of(entry), entry["Name"]
    fresh = matches_of(entry)
    for service, facts in proposed.world.services.items():
        in_place = service.namespace == namespace or namespace == WILDCARD
        if not in_place or name not in (service.name, WILDCARD):
            continue
        kept = [
            one
            for one in facts.intentions.value or ()
            if (one.destination_name, one.destination_ns.lower()) != (name, namespace)
        ]
        both = sorted((*kept, *fresh), key=lambda one: -one.precedence)
        _replace(proposed, service, intentions=facts.intentions.learned(tuple(both)))
    wanted = proposed.world.mesh.wanted_providers | named_providers(fresh)
    if wanted != proposed.world.mesh.wanted_providers:
        _set_mesh(proposed, wanted_providers=wanted)
        for one in sorted(wanted - by_name(proposed.world.mesh.providers.value or ()).keys()):
            proposed.remarks.append(
                f"The jwt-provider {one} is not known to the gateway yet: whether its keys can be had is seen when the"
                " entry is written."
            )
    if not any(_names(service, name) for service in proposed.world.services):
        proposed.remarks.append(f"{name_of(entry)} concerns no service that is linked to this gateway.")


def _links(proposed: Proposed, entry: Mapping[str, Any]) -> None:
    world = proposed.world
    if entry["Name"] != world.gateway:
        proposed.remarks.append(f"{name_of(entry)} is the entry of another gateway than {world.gateway}.")
        return
    read = msgspec.convert(entry, TerminatingGatewayEntry)
    links = linked_services(read, _rows(read, world))
    services = {name: _linked(name, link, world) for name, link in links.items() if name in world.services}
    proposed.linked = set(links.keys() - world.services.keys())
    proposed.unlinked = set(world.services.keys() - links.keys())
    proposed.touched |= {name for name, facts in services.items() if facts != world.services[name]} | proposed.linked
    services |= {
        name: ServiceFacts(name=name, link=links[name].link, from_wildcard=links[name].from_wildcard)
        for name in proposed.linked
    }
    proposed.world = replace(world, services=services, entry=read)
    if _has_wildcard(read) and not _has_wildcard(world.entry):
        proposed.remarks.append("Which services `*` stands for is said by Consul when the entry is written.")


def _rows(read: TerminatingGatewayEntry, world: World) -> Iterator[GatewayService]:
    """What Consul says ``*`` stands for; a service whose own link is removed may still be one of them."""
    for row in world.rows:
        explicit_only = not row.from_wildcard and not _has_wildcard(world.entry)
        if not explicit_only:
            yield row


def _has_wildcard(entry: TerminatingGatewayEntry | None) -> bool:
    return any(link.name == WILDCARD for link in (entry.services if entry is not None else None) or ())


def _linked(name: ServiceName, link: Link, world: World) -> ServiceFacts:
    return replace(world.services[name], link=link.link, from_wildcard=link.from_wildcard)


def _defaults(proposed: Proposed, entry: Mapping[str, Any]) -> None:
    read = msgspec.convert(entry, ServiceDefaults)
    _of_service(proposed, entry, defaults=Fact[ServiceDefaults]().learned(read))


def _resolver(proposed: Proposed, entry: Mapping[str, Any]) -> None:
    read = msgspec.convert(entry, ServiceResolver)
    _of_service(proposed, entry, resolver=Fact[ServiceResolver]().learned(read))


def _of_service(proposed: Proposed, entry: Mapping[str, Any], **facts: Any) -> None:
    name = ServiceName(entry["Name"], namespace_of(entry), partition_of(entry))
    if name in proposed.world.services:
        _replace(proposed, name, **facts)
    else:
        proposed.remarks.append(f"{name_of(entry)} concerns no service that is linked to this gateway.")


def _mesh(proposed: Proposed, entry: Mapping[str, Any]) -> None:
    _set_mesh(proposed, mesh=Fact[MeshEntry]().learned(msgspec.convert(entry, MeshEntry)))


def _proxy_defaults(proposed: Proposed, entry: Mapping[str, Any]) -> None:
    if entry["Name"] != "global":
        raise ConfigError("the proxy-defaults entry is named global; Consul takes no other")
    _set_mesh(proposed, proxy_defaults=Fact[ProxyDefaults]().learned(msgspec.convert(entry, ProxyDefaults)))


def _provider(proposed: Proposed, entry: Mapping[str, Any]) -> None:
    mesh = proposed.world.mesh
    rows = by_name(mesh.providers.value or ())
    _set_mesh(proposed, providers=Fact[tuple[Any, ...]]().learned(tuple({**rows, entry["Name"]: entry}.values())))
    if entry["Name"] not in mesh.wanted_providers:
        proposed.remarks.append(
            f"No intention of a linked service asks for tokens of the jwt-provider {entry['Name']}."
        )


def _names(service: ServiceName, name: str) -> bool:
    return name in (service.name, WILDCARD)


def _replace(proposed: Proposed, name: ServiceName, **facts: Any) -> None:
    services = dict(proposed.world.services)
    services[name] = replace(services[name], **facts)
    proposed.world = replace(proposed.world, services=services)
    proposed.touched.add(name)


def _set_mesh(proposed: Proposed, **facts: Any) -> None:
    proposed.world = replace(proposed.world, mesh=replace(proposed.world.mesh, **facts))
    proposed.mesh_touched = True
    proposed.touched.update(proposed.world.services)


def needed_files(services: Iterable[ServiceFacts]) -> frozenset[str]:
    """Of links, that nobody has read yet."""
    return frozenset(
        path
        for facts in services
        for path in (facts.link.ca_file, facts.link.cert_file, facts.link.key_file)
        if path and path not in facts.files
    )


_TAKE = {
    "service-intentions": _intentions,
    "terminating-gateway": _links,
    "service-defaults": _defaults,
    "service-resolver": _resolver,
    "mesh": _mesh,
    "proxy-defaults": _proxy_defaults,
    "jwt-provider": _provider,
}
