"""Where instances answer. The golden files of assembling show whole services; here are the edges."""

from __future__ import annotations

import msgspec
import pytest

from plugin.assemble.endpoints import destination_endpoints, hostnames, instance_endpoints, is_address
from plugin.consul.api import Check, Destination, HealthEntry, Instance, Node, ServiceDefaults, Weights
from plugin.errors import NameUnresolved
from plugin.facts import Fact
from tests.support.goldens import fact

WEIGHTS = Weights(passing=3, warning=2)


def instance(address: str = "10.0.0.1", *statuses: str, weights: Weights = WEIGHTS, kind: str = "") -> HealthEntry:
    service = Instance(id="db-1", service="db", address=address, port=5432, weights=weights, kind=kind)
    checks = tuple(Check(check_id=str(number), status=status) for number, status in enumerate(statuses))
    return HealthEntry(node=Node(node="vm1", address="10.9.9.9"), service=service, checks=checks)


@pytest.mark.parametrize(
    ("statuses", "only_passing", "weight", "healthy"),
    [
        ((), False, 3, True),
        (("passing",), False, 3, True),
        (("passing", "warning"), False, 2, True),
        (("passing", "warning"), True, 2, False),
        (("critical", "passing"), False, 3, False),
        (("warning", "critical"), False, 2, False),
        (("maintenance",), False, 3, False),
        (("",), False, 3, False),
        ((), True, 3, True),
    ],
)
def test_weight_and_health(statuses: tuple[str, ...], only_passing: bool, weight: int, healthy: bool) -> None:
    (endpoint,) = instance_endpoints([instance("10.0.0.1", *statuses)], {}, only_passing=only_passing).endpoints
    assert (endpoint.weight, endpoint.healthy) == (weight, healthy)


@pytest.mark.parametrize("weights", [Weights(passing=0, warning=5), Weights(passing=-1, warning=5)])
def test_a_weight_of_nothing_takes_an_instance_out(weights: Weights) -> None:
    (endpoint,) = instance_endpoints([instance(weights=weights)], {}).endpoints
    assert (endpoint.weight, endpoint.healthy) == (1, False)


@pytest.mark.parametrize("check_id", ["_node_maintenance", "_service_maintenance:db-1"])
def test_an_instance_in_maintenance_mode_is_not_even_a_last_resort(check_id: str) -> None:
    within = msgspec.structs.replace(instance(), checks=(Check(check_id=check_id, status="critical"),))
    found = instance_endpoints([within, instance("10.0.0.2")], {})
    assert [endpoint.address for endpoint in found.endpoints] == ["10.0.0.2"]
    (warning,) = found.warnings
    assert "vm1/db-1 is in maintenance mode" in warning


def test_the_address_of_the_node_stands_in() -> None:
    (endpoint,) = instance_endpoints([instance("")], {}).endpoints
    assert endpoint.address == "10.9.9.9"


@pytest.mark.parametrize("text", ["10.0.0.1", "::1", "[::1]", "fe80::1%eth0"])
def test_what_is_an_address(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize("text", ["", "db", "db.example.", "10.0.0", "10.0.0.256", "[10.0.0.1", "010.0.0.1"])
def test_what_is_a_name(text: str) -> None:
    assert not is_address(text)


def test_only_what_must_be_resolved_is_asked_for() -> None:
    entries = [instance("db.example"), instance("10.0.0.1"), instance("sidecar.example", kind="connect-proxy")]
    destination = Destination(addresses=("api.example", "10.0.0.2"), port=443)
    defaults = ServiceDefaults(name="db", destination=destination)
    assert hostnames(entries, defaults) == {"db.example", "api.example"}
    assert hostnames(entries, None) == {"db.example"}


def test_every_address_of_a_name_has_the_weight_of_its_instance() -> None:
    found = instance_endpoints([instance("db.example")], {"db.example": fact(("10.1.0.1", "2001:db8::1"))})
    assert [(e.address, e.hostname, e.weight, e.instance) for e in found.endpoints] == [
        ("10.1.0.1", "db.example", 3, "vm1/db-1"),
        ("2001:db8::1", "db.example", 3, "vm1/db-1"),
    ]
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("known", "why"),
    [
        (Fact[tuple[str, ...]](), "still awaited"),
        (fact(()), "no address"),
        (Fact[tuple[str, ...]]().failed(NameUnresolved("db.example cannot be resolved: why")), "why"),
    ],
)
def test_a_name_without_addresses_is_a_warning(known: Fact[tuple[str, ...]], why: str) -> None:
    found = instance_endpoints([instance("db.example"), instance()], {"db.example": known})
    assert [endpoint.address for endpoint in found.endpoints] == ["10.0.0.1"]
    (warning,) = found.warnings
    assert "vm1/db-1" in warning
    assert why in warning


def test_instances_that_are_the_same_place_count_once() -> None:
    assert len(instance_endpoints([instance(), instance()], {}).endpoints) == 1


def test_a_destination_without_a_port_cannot_be_dialled() -> None:
    found = destination_endpoints(Destination(addresses=("10.0.0.1",)), "10.0.0.1", {})
    assert found.endpoints == ()
    assert "has port 0" in found.warnings[0]
