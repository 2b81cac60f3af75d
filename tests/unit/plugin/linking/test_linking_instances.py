from __future__ import annotations

from typing import Any

import pytest

from plugin.consul.api import ConnectFlags, HealthEntry, Instance, InstanceProxy, Node
from plugin.linking.edit import Refused
from plugin.linking.instances import CatalogNode, check_outside_mesh, plan_registration, plan_removals
from plugin.linking.request import LinkRequest

MARKED = {"managed-by": "consul-tgw"}


def request(**fields: Any) -> LinkRequest:
    return LinkRequest(**{"service": "db", "host": "10.0.0.9", "port": 5432, **fields})


def row(
    node: str, service_id: str = "db", *, address: str = "10.0.0.9", port: int = 5432, **fields: Any
) -> HealthEntry:
    service = Instance(id=service_id, service="db", port=port, **fields)
    return HealthEntry(node=Node(node=node, address=address), service=service)


def sidecar(node: str, of: str) -> HealthEntry:
    proxy = InstanceProxy(destination_service_name="db", destination_service_id=of)
    return row(node, f"{of}-sidecar-proxy", kind="connect-proxy", proxy=proxy)


def node(**fields: Any) -> CatalogNode:
    given: dict[str, Any] = {"address": "10.0.0.9", "meta": {"external-node": "true"}, "has_agent": False, **fields}
    return CatalogNode(**{"services": {}, **given})


def test_a_new_node_is_external_and_marked() -> None:
    planned = plan_registration(request(), None, ())
    assert planned.body == {
        "Node": "external-10-0-0-9",
        "Address": "10.0.0.9",
        "NodeMeta": {"external-node": "true", "external-probe": "true", **MARKED},
        "Service": {"ID": "db", "Service": "db", "Address": "10.0.0.9", "Port": 5432, "Meta": MARKED},
    }


def test_a_node_that_exists_is_not_changed() -> None:
    planned = plan_registration(request(node="legacy"), node(address="10.0.0.1", meta={}), ())
    assert planned.body is not None
    assert planned.body["SkipNodeUpdate"] is True
    assert not {"Address", "NodeMeta"} & set(planned.body)
    assert [word in text for word, text in zip(("keeps it", "consul-esm"), planned.notes, strict=True)] == [True, True]


def test_a_node_with_an_agent_is_not_used() -> None:
    with pytest.raises(Refused, match="runs a Consul agent"):
        plan_registration(request(node="legacy"), node(has_agent=True), ())


def at(node_name: str, *, node_address: str, service_address: str) -> HealthEntry:
    service = Instance(id="x", service="db", address=service_address, port=5432)
    return HealthEntry(node=Node(node=node_name, address=node_address), service=service)


@pytest.mark.parametrize(
    "there",
    [
        at("legacy", node_address="10.0.0.9", service_address=""),
        at("legacy", node_address="10.0.0.1", service_address="10.0.0.9"),
    ],
)
def test_what_is_registered_anywhere_is_not_registered_again(there: HealthEntry) -> None:
    planned = plan_registration(request(), None, (there,))
    assert planned.body is None
    assert there.node.node in planned.kept[0]


def test_an_explicit_place_means_that_place() -> None:
    planned = plan_registration(request(node="second"), None, (row("legacy"),))
    assert planned.body is not None
    assert planned.body["Node"] == "second"


def test_another_instance_is_mentioned() -> None:
    planned = plan_registration(request(), None, (row("legacy", address="10.0.0.8"),))
    assert planned.body is not None
    assert planned.notes == ("db has another instance, at 10.0.0.8:5432 (db on node legacy): both carry traffic",)


EXISTING = {
    "ID": "db", "Service": "db", "Address": "10.0.0.9", "Port": 1, "Tags": ["t"], "Meta": {"version": "1"},
    "Weights": {"Passing": 3, "Warning": 1}, "Future": 1, "ModifyIndex": 9, "TaggedAddresses": {"lan": {}},
}  # fmt: skip


def test_an_instance_is_moved_only_when_told_and_keeps_the_rest() -> None:
    there = node(services={"db": EXISTING})
    with pytest.raises(Refused, match=r"registered at 10.0.0.9:1, not 10.0.0.9:5432.*--replace.*--id"):
        plan_registration(request(), there, ())
    planned = plan_registration(request(replace=True), there, ())
    assert planned.body is not None
    gone = ("ModifyIndex", "TaggedAddresses")
    assert planned.body["Service"] == {k: v for k, v in EXISTING.items() if k not in gone} | {"Port": 5432}
    assert "from 10.0.0.9:1 to 10.0.0.9:5432" in planned.todo[0]


def test_an_id_of_another_service_is_never_taken() -> None:
    there = node(services={"db": {**EXISTING, "Service": "ldap"}})
    with pytest.raises(Refused, match="an instance of ldap"):
        plan_registration(request(replace=True), there, ())


def test_a_service_with_sidecars_only_is_refused() -> None:
    native = row("n2", "native", connect=ConnectFlags(native=True))
    for instances, mesh in (
        ((row("n1"),), (sidecar("n1", "db"),)),
        ((row("n1"), native), (sidecar("n1", "db"), native)),
        ((), (sidecar("n1", "db"),)),
    ):
        with pytest.raises(Refused, match="is in the mesh"):
            check_outside_mesh("db", instances, mesh)


def test_a_service_with_an_instance_outside_is_not() -> None:
    gateway = row("gw", "gw", kind="terminating-gateway")
    check_outside_mesh("db", (row("n1"), row("n2")), (sidecar("n1", "db"), gateway))
    check_outside_mesh("db", (), (gateway,))
    check_outside_mesh("db", (row("n1"),), ())


def test_only_marked_instances_are_removed() -> None:
    removals, notes = plan_removals("db", (row("n1", meta=MARKED), row("n2", "x", meta={"managed-by": "terraform"})))
    assert [one.body for one in removals] == [{"Node": "n1", "ServiceID": "db"}]
    assert notes == ("db stays registered at 10.0.0.9:5432 (x on node n2), which consul-tgw did not register",)
