"""Updates are taken over service by service: policy always, material only when it can be used."""

from __future__ import annotations

import msgspec
import pytest
from OpenSSL import SSL

from proxy.messages import Update
from proxy.model import Leaf, PeerBundle, ServerName, ServiceName, UpstreamTLS
from proxy.routes import RouteTable
from proxy.rules import Action
from tests.support.mesh import HandMadeMesh, allow, sni


@pytest.fixture
def mesh() -> HandMadeMesh:
    return HandMadeMesh()


def test_an_update_touches_only_what_it_names(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    table.apply(Update(1, mesh.settings(), (mesh.service("a"), mesh.service("b"))))
    untouched = table.state(ServiceName("b"))
    changed, removed, problems = table.apply(Update(2, None, (mesh.service("a", 80),)))
    assert (changed, removed, problems) == ({ServiceName("a")}, set(), [])
    assert table.state(ServiceName("b")) is untouched
    assert table.generation == 2


def test_a_full_update_forgets_what_it_does_not_name(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    table.apply(Update(1, mesh.settings(), (mesh.service("a"), mesh.service("b"))))
    _, removed, _ = table.apply(Update(2, mesh.settings(), (mesh.service("a"),), full=True))
    assert removed == {ServiceName("b")}
    assert table.lookup(sni("b")) is None
    assert table.lookup(sni("a")) is not None


def test_server_names_that_a_service_no_longer_has_are_unknown(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    service = mesh.service("a")
    subset = msgspec.structs.replace(service, server_names=(*service.server_names, ServerName("v1." + sni("a"))))
    table.apply(Update(1, mesh.settings(), (subset,)))
    assert table.lookup("v1." + sni("a"))
    table.apply(Update(2, None, (service,)))
    assert table.lookup("v1." + sni("a")) is None


def test_a_broken_leaf_is_reported_and_the_former_one_serves_on_under_the_new_policy(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    service = mesh.service("a", intentions=(allow("web"),))
    table.apply(Update(1, mesh.settings(), (service,)))
    state = table.state(ServiceName("a"))
    assert state is not None
    former = state.contexts[""]
    broken = Leaf("junk", "junk", service.leaf.spiffe_id, "02", 0.0, 1.0)
    _, _, problems = table.apply(Update(2, None, (msgspec.structs.replace(service, leaf=broken, intentions=()),)))
    assert [problem.service for problem in problems] == [ServiceName("a")]
    assert state.contexts[""] is former
    assert state.service.intentions == ()


def test_tls_that_cannot_be_set_up_is_never_replaced_by_plain_text(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    table.apply(Update(1, mesh.settings(), (mesh.service("a", 80),)))
    table.apply(Update(2, None, (mesh.service("a", 80, upstream_tls=UpstreamTLS("junk")),)))
    route = table.lookup(sni("a"))
    assert route is not None
    assert "cannot be set up" in route.target.unusable


def test_contexts_are_made_anew_only_when_trust_or_leaf_changed(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    leaf = mesh.leaf("a")
    table.apply(Update(1, mesh.settings(), (mesh.service("a", leaf=leaf),)))
    state = table.state(ServiceName("a"))
    assert state is not None
    table.apply(Update(2, mesh.settings(Action.ALLOW), ()))
    assert not state.stale
    table.apply(Update(3, mesh.settings(roots_pem=(mesh.authority.certificate_pem,) * 2), ()))
    assert state.stale


def test_a_peers_server_name_trusts_that_peer_alone(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    other = HandMadeMesh()
    bundle = PeerBundle(peer="cloud", trust_domain="other.consul", roots_pem=(other.authority.certificate_pem,))
    service = mesh.service("a")
    external = ServerName("a.external", peer="cloud")
    service = msgspec.structs.replace(service, server_names=(*service.server_names, external))
    table.apply(Update(1, mesh.settings(peer_bundles=(bundle,)), (service,)))
    state = table.state(ServiceName("a"))
    assert state is not None
    assert set(state.contexts) == {"", "cloud"}
    assert state.contexts[""] is not state.contexts["cloud"]


def test_what_is_exported_later_to_a_known_peer_is_served_to_it(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    bundle = PeerBundle("cloud", "other.consul", (HandMadeMesh().authority.certificate_pem,))
    service = mesh.service("a")
    table.apply(Update(1, mesh.settings(peer_bundles=(bundle,)), (service,)))
    assert table._select(sni("a")) is not None
    names = (*service.server_names, ServerName("a.external", peer="cloud"))
    table.apply(Update(2, None, (msgspec.structs.replace(service, server_names=names),)))
    assert table._select("a.external") is not None


def test_services_before_the_mesh_are_refused_and_named(mesh: HandMadeMesh) -> None:
    table = RouteTable()
    _, _, problems = table.apply(Update(1, None, (mesh.service("a"),)))
    assert [str(problem.service) for problem in problems] == ["a"]
    assert table.accept() is None


def test_cipher_suites_of_the_mesh_are_those_of_every_service(mesh: HandMadeMesh) -> None:
    def suites(table: RouteTable) -> set[str]:
        state = table.state(ServiceName("a"))
        assert state is not None
        table._select(sni("a"))
        ciphers = SSL.Connection(state.contexts[""].context, None).get_cipher_list()
        return {cipher for cipher in ciphers if not cipher.startswith("TLS_")}

    table = RouteTable()
    one = "ECDHE-ECDSA-AES256-GCM-SHA384"
    settings = mesh.settings()
    table.apply(Update(1, msgspec.structs.replace(settings, cipher_suites=(one,)), (mesh.service("a"),)))
    assert suites(table) == {one}
    # What OpenSSL does not know leaves what was in force, and is reported.
    _, _, problems = table.apply(Update(2, msgspec.structs.replace(settings, cipher_suites=("NONSENSE",))))
    assert "NONSENSE" in problems[0].message
    assert suites(table) == {one}
    table.apply(Update(3, settings))
    assert len(suites(table)) > 1
