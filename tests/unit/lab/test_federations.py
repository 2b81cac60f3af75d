"""The order of steps, by how the datacenters know of each other."""

from __future__ import annotations

import pytest

from lab import plan
from lab.plan import Step
from lab.topology import Federation, Role, Topology, load

FEDERATED = (Federation.GATEWAYS, Federation.WAN)


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load()


def place(steps: list[Step], script: str, host: str) -> int:
    (found,) = [number for number, step in enumerate(steps) if step.script == script and host in step.hosts]
    return found


@pytest.mark.parametrize("federation", Federation)
def test_every_host_gets_the_scripts_of_its_roles_once(topology: Topology, federation: Federation) -> None:
    steps = plan.steps(topology, federation)
    for name, host in topology.hosts.items():
        for role, script in plan.OF_ROLE.items():
            assert [name in step.hosts for step in steps if step.script == script].count(True) == (role in host.roles)
    assert all(step.hosts for step in steps)


@pytest.mark.parametrize("federation", FEDERATED)
def test_the_primary_datacenter_comes_up_before_the_other(topology: Topology, federation: Federation) -> None:
    steps = plan.steps(topology, federation)
    for first in topology.having(Role.MESH_GATEWAY, "cloud"):
        for then in topology.having(Role.SERVER, "onprem"):
            assert place(steps, "mesh-gateway.sh", first) < place(steps, "server.sh", then)
    assert place(steps, "operator.sh", "cloud-server-1") < place(steps, "operator.sh", "onprem-server-1")
    assert steps[-2].script == "federated.sh"
    assert set(steps[-2].hosts) == set(plan.operators(topology).values())
    assert not any("peering" in step.script for step in steps)


def test_servers_have_a_relay_before_they_need_it(topology: Topology) -> None:
    steps = plan.steps(topology, Federation.GATEWAYS)
    relays = topology.having(Role.MESH_GATEWAY, "onprem")
    for relay in relays:
        assert place(steps, "relay.sh", relay) < place(steps, "server.sh", "onprem-server-1")
    told = plan.environment(topology, Federation.GATEWAYS, "onprem-server-1")
    assert told["LAB_MESH_GATEWAYS"].split() == [topology.lan(relay) for relay in relays]
    assert told["LAB_WAN_ADDRESS"] == ""
    for federation in (Federation.PEERING, Federation.WAN):
        assert not any(step.script == "relay.sh" for step in plan.steps(topology, federation))
