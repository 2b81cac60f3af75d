"""Which server names a linked service answers to, and which endpoints are behind each.

The name of the service, one for each subset of its service-resolver, one for each address of a destination, and one
for each peer that imports it. A subset whose filter cannot be used has no endpoints, and says so; it never falls back
to instances that its filter was meant to exclude. Instances that are in the mesh are left to their sidecars while
others are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from plugin.assemble.bexpr import BexprError, compile_filter
from plugin.assemble.endpoints import Endpoints, destination_endpoints, instance_endpoints
from plugin.assemble.mesh_instances import could_be_mixed, outside_mesh
from plugin.assemble.peers import importing
from plugin.assemble.server_names import destination_sni, peer_sni, service_sni
from plugin.consul.api import HealthEntry, ResolverSubset
from plugin.facts import MeshFacts, ServiceFacts
from proxy.model import ServerName


@dataclass(frozen=True, slots=True)
class ServerRoutes:
    server_names: tuple[ServerName, ...]
    warnings: tuple[str, ...]


def server_routes(facts: ServiceFacts, mesh: MeshFacts, *, trust_domain: str, protocol: str) -> ServerRoutes:
    """Return every server name of a service whose facts are known; the service's own comes first."""
    pairs = list(_routes(facts, mesh, trust_domain, protocol))
    names = {server_name.sni: server_name for server_name, _ in reversed(pairs)}
    warnings = dict.fromkeys(warning for _, endpoints in pairs for warning in endpoints.warnings)
    return ServerRoutes(tuple(reversed(names.values())), (*_sidecars_unknown(facts), *warnings))


def _routes(
    facts: ServiceFacts, mesh: MeshFacts, trust_domain: str, protocol: str
) -> Iterator[tuple[ServerName, Endpoints]]:
    place = {"datacenter": mesh.datacenter, "trust_domain": trust_domain}
    unnamed = _unnamed(facts)
    yield ServerName(service_sni(facts.name, **place), unnamed.endpoints), unnamed
    for subset in sorted(_subsets(facts)):
        found = _subset(facts, subset)
        sni = service_sni(facts.name, **place, subset=subset)
        yield ServerName(sni, found.endpoints, subset=subset), found
    destination = facts.defaults.value.destination if facts.defaults.value is not None else None
    if destination is not None:
        for host in destination.addresses or ():
            found = destination_endpoints(destination, host, facts.addresses)
            yield ServerName(destination_sni(facts.name, host, **place), found.endpoints), found
    # Callers of a peer that speak HTTP are carried by this cluster's mesh gateway, under the service's own name.
    if protocol == "tcp":
        for peer in importing(facts, mesh):
            sni = peer_sni(facts.name, peer=peer, trust_domain=trust_domain)
            yield ServerName(sni, unnamed.endpoints, peer=peer), Endpoints(unnamed.endpoints)


def _unnamed(facts: ServiceFacts) -> Endpoints:
    """All instances, or those of the resolver's default subset."""
    default_subset = facts.resolver.value.default_subset if facts.resolver.value is not None else ""
    if default_subset:
        return _subset(facts, default_subset)
    return instance_endpoints(_instances(facts), facts.addresses)


def _instances(facts: ServiceFacts) -> tuple[HealthEntry, ...]:
    """Those that the gateway stands for. While the sidecars are not known, no instance counts as having one."""
    return outside_mesh(facts.instances.value or (), facts.sidecars.value or ())


def _sidecars_unknown(facts: ServiceFacts) -> Iterator[str]:
    if not facts.sidecars.known and facts.sidecars.problem is not None and could_be_mixed(facts.instances.value or ()):
        yield f"instances that have a sidecar are used too, since it is not known which do: {facts.sidecars.problem}"


def _subset(facts: ServiceFacts, name: str) -> Endpoints:
    subset = _subsets(facts).get(name)
    if subset is None:
        return Endpoints((), (f"the service-resolver has no subset {name!r}, its DefaultSubset; add it",))
    try:
        entries = _filtered(_instances(facts), subset)
    except BexprError as error:
        problem = f"the subset {name!r} of the service-resolver has no instances: {error}. Correct its Filter"
        return Endpoints((), (problem,))
    return instance_endpoints(entries, facts.addresses, only_passing=subset.only_passing)


def _filtered(entries: tuple[HealthEntry, ...], subset: ResolverSubset) -> tuple[HealthEntry, ...]:
    if not subset.filter:
        return entries
    wanted = compile_filter(subset.filter)
    return tuple(entry for entry in entries if wanted.matches(entry))


def _subsets(facts: ServiceFacts) -> dict[str, ResolverSubset]:
    return (facts.resolver.value.subsets or {}) if facts.resolver.value is not None else {}
