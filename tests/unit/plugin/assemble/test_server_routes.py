"""Server names and what is behind each. The golden files show whole services; here are the rules."""

from __future__ import annotations

import dataclasses

from plugin.assemble.server_routes import ServerRoutes, server_routes
from plugin.consul.api import HealthEntry, Instance, InstanceProxy, Node, ResolverSubset, ServiceResolver
from plugin.errors import ConsulUnavailable
from plugin.facts import Fact, ServiceFacts
from proxy.model import PeerBundle
from tests.support.goldens import cases, fact

TD = "11111111-2222-3333-4444-555555555555.consul"
(PLAIN,) = [case for case in cases("services") if case.path.stem == "plain"]


def routes(facts: ServiceFacts, *peers: str, protocol: str = "tcp") -> ServerRoutes:
    bundles = tuple(PeerBundle(peer, "other.consul", ()) for peer in peers)
    mesh = dataclasses.replace(PLAIN.mesh, peers=fact(bundles))
    return server_routes(facts, mesh, trust_domain=TD, protocol=protocol)


def resolved(default_subset: str = "", **subsets: ResolverSubset) -> ServiceFacts:
    entry = ServiceResolver(name="db", default_subset=default_subset, subsets=subsets)
    return dataclasses.replace(PLAIN.service, resolver=fact(entry))


def test_the_services_own_name_comes_first() -> None:
    names = routes(resolved(a=ResolverSubset(), b=ResolverSubset())).server_names
    assert [name.sni.split(".default.")[0] for name in names] == ["db", "a.db", "b.db"]


def test_a_broken_filter_empties_its_own_subset_and_no_other() -> None:
    found = routes(resolved(bad=ResolverSubset(filter="("), good=ResolverSubset()))
    assert [bool(name.endpoints) for name in found.server_names] == [True, False, True]
    (warning,) = found.warnings
    assert "'bad'" in warning
    assert "Correct its Filter" in warning


def test_a_broken_default_subset_never_falls_back_to_all_instances() -> None:
    found = routes(resolved("bad", bad=ResolverSubset(filter="Service.Nonsense == 1")))
    assert [name.endpoints for name in found.server_names] == [(), ()]
    assert len(found.warnings) == 1


def test_a_peer_needs_an_export_and_a_bundle() -> None:
    exported = dataclasses.replace(PLAIN.service, exported_to=("east", "west"))
    assert [name.peer for name in routes(exported, "east", "north").server_names] == ["", "east"]
    assert [name.peer for name in routes(PLAIN.service, "east").server_names] == [""]


def test_callers_of_a_peer_that_speak_http_come_under_the_services_own_name() -> None:
    exported = dataclasses.replace(PLAIN.service, exported_to=("east",))
    assert [name.peer for name in routes(exported, "east", protocol="http").server_names] == [""]


def mixed(resolver: ServiceResolver | None = None) -> ServiceFacts:
    """Two instances; ``a`` has a sidecar."""
    rows = tuple(
        HealthEntry(
            node=Node(node="n", address="10.0.0.1"),
            service=Instance(id=name, service="db", port=port, meta={"name": name}),
        )
        for name, port in (("a", 1), ("b", 2))
    )
    proxy = Instance(id="p", service="p", kind="connect-proxy", proxy=InstanceProxy(destination_service_id="a"))
    sidecars = (HealthEntry(node=Node(node="n"), service=proxy),)
    return dataclasses.replace(PLAIN.service, instances=fact(rows), sidecars=fact(sidecars), resolver=fact(resolver))


def ports(found: ServerRoutes) -> list[list[int]]:
    return [[endpoint.port for endpoint in name.endpoints] for name in found.server_names]


def test_an_instance_with_a_sidecar_is_behind_no_server_name() -> None:
    of_a = ResolverSubset(filter="Service.Meta.name == a")
    assert ports(routes(mixed())) == [[2]]
    assert ports(routes(mixed(ServiceResolver(name="db", subsets={"all": ResolverSubset(), "of-a": of_a})))) == [
        [2],
        [2],
        [],
    ]


def test_while_the_sidecars_are_not_known_every_instance_is_used() -> None:
    assert ports(routes(dataclasses.replace(mixed(), sidecars=Fact()))) == [[1, 2]]
    failed = dataclasses.replace(mixed(), sidecars=Fact().failed(ConsulUnavailable("no answer")))
    found = routes(failed)
    assert ports(found) == [[1, 2]]
    assert "no answer" in found.warnings[0]


def test_sidecars_that_were_known_count_while_they_cannot_be_read() -> None:
    facts = mixed()
    stale = dataclasses.replace(facts, sidecars=facts.sidecars.failed(ConsulUnavailable("no answer")))
    assert ports(routes(stale)) == [[2]]
    assert routes(stale).warnings == ()
