"""Instances with a sidecar are left to it while others have none."""

from __future__ import annotations

import pytest

from plugin.assemble.mesh_instances import could_be_mixed, outside_mesh
from plugin.consul.api import ConnectFlags, HealthEntry, Instance, InstanceProxy, Node


def instance(name: str, *, node: str = "n1", kind: str = "", native: bool = False) -> HealthEntry:
    service = Instance(id=name, service="db", kind=kind, connect=ConnectFlags(native=native))
    return HealthEntry(node=Node(node=node), service=service)


def sidecar(of: str, *, node: str = "n1", kind: str = "connect-proxy") -> HealthEntry:
    proxy = InstanceProxy(destination_service_name="db", destination_service_id=of)
    return HealthEntry(
        node=Node(node=node), service=Instance(id=f"{of}-proxy", service="db-proxy", kind=kind, proxy=proxy)
    )


A, B, NATIVE = instance("a"), instance("b"), instance("c", native=True)
GATEWAY = instance("gw", kind="mesh-gateway")


def test_without_sidecars_every_instance_stays() -> None:
    assert outside_mesh((A, B), ()) == (A, B)


def test_an_instance_with_a_sidecar_is_left_to_it() -> None:
    assert outside_mesh((A, B), (sidecar("a"),)) == (B,)


def test_native_instances_are_in_the_mesh() -> None:
    assert outside_mesh((A, NATIVE), ()) == (A,)


@pytest.mark.parametrize("instances", [(A,), (A, B), (A, NATIVE), (NATIVE,), ()])
def test_all_are_kept_when_all_are_in_the_mesh(instances: tuple[HealthEntry, ...]) -> None:
    assert outside_mesh(instances, (sidecar("a"), sidecar("b"))) == instances


@pytest.mark.parametrize(
    "stranger",
    [
        sidecar("a", node="n2"),
        sidecar(""),
        sidecar("a", kind="terminating-gateway"),
        HealthEntry(node=Node(node="n1"), service=Instance(id="a", service="db-proxy", kind="connect-proxy")),
    ],
    ids=["same ID on another node", "of no instance", "not a proxy", "says nothing"],
)
def test_what_is_no_sidecar_of_an_instance_leaves_none_out(stranger: HealthEntry) -> None:
    assert outside_mesh((A, B), (stranger,)) == (A, B)


def test_the_same_id_on_two_nodes_is_two_instances() -> None:
    other = instance("a", node="n2")
    assert outside_mesh((A, other), (sidecar("a", node="n2"),)) == (A,)


def test_a_gateway_under_the_services_name_is_no_instance_outside_the_mesh() -> None:
    assert outside_mesh((A, GATEWAY), (sidecar("a"),)) == (A, GATEWAY)


@pytest.mark.parametrize(
    ("instances", "matters"),
    [
        ((), False),
        ((A,), False),
        ((A, GATEWAY), False),
        ((NATIVE, NATIVE), False),
        ((A, B), True),
        ((A, NATIVE), True),
    ],
)
def test_sidecars_matter_when_there_is_a_choice(instances: tuple[HealthEntry, ...], matters: bool) -> None:
    assert could_be_mixed(instances) is matters
