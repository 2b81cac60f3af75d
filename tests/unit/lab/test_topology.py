"""The topology that is there is in order, and what is wrong in another is named with its place and the remedy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from lab import topology
from lab.topology import FILE, LEGACY, WAN, Federation, Role
from plugin.errors import ConfigError


@pytest.fixture
def written() -> Any:
    return copy.deepcopy(yaml.safe_load(FILE.read_text()))


def fault(content: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        topology.parse(yaml.safe_dump(content).encode())
    return str(caught.value)


def test_the_lab_has_what_its_proofs_need() -> None:
    lab = topology.load()
    assert {name: len(lab.having(Role.SERVER, name)) for name in lab.datacenters} == {"cloud": 1, "onprem": 3}
    assert all(len(lab.having(Role.MESH_GATEWAY, name)) == 2 for name in lab.datacenters)
    assert len(lab.having(Role.TERMINATING_GATEWAY)) == 2
    on = {network: {name for name, host in lab.hosts.items() if network in host.addresses} for network in lab.networks}
    assert on[WAN] == set(lab.having(Role.MESH_GATEWAY))
    assert on[LEGACY] == {*lab.having(Role.TERMINATING_GATEWAY), *lab.having(Role.LEGACY)}


def test_servers_are_on_the_wan_in_plain_federation_alone() -> None:
    lab = topology.load()
    for name in lab.having(Role.SERVER):
        assert WAN in lab.hosts[name].on(Federation.WAN)
        assert WAN not in lab.hosts[name].on(Federation.PEERING)


def test_a_server_on_the_wan_is_refused(written: Any) -> None:
    written["hosts"]["cloud-server-1"]["addresses"]["wan"] = "10.79.0.99"
    assert fault(written) == "hosts.cloud-server-1.addresses: wan is not for it: there, mesh-gateway only"


def test_an_application_on_the_network_of_the_other_datacenter_is_refused(written: Any) -> None:
    written["hosts"]["cloud-app-1"]["addresses"]["onprem"] = "10.72.0.99"
    assert fault(written) == "hosts.cloud-app-1.addresses: onprem is not for it: there, own hosts only"


def test_a_legacy_host_of_a_datacenter_is_refused(written: Any) -> None:
    written["hosts"]["legacy-1"]["datacenter"] = "onprem"
    assert "hosts.legacy-1: a host outside the mesh has the role legacy alone, and no datacenter" in fault(written)


def test_an_address_twice_is_refused(written: Any) -> None:
    written["hosts"]["cloud-mesh-2"]["addresses"]["wan"] = "10.79.0.31"
    assert (
        fault(written) == "hosts.cloud-mesh-2.addresses.wan: 10.79.0.31 is that of cloud-mesh-1: each host has its own"
    )


@pytest.mark.parametrize("address", ["10.71.0.0", "10.71.0.1", "10.71.0.255", "10.72.0.9", "::1", "nine"])
def test_an_address_that_is_none_of_its_network_is_refused(written: Any, address: str) -> None:
    written["hosts"]["cloud-app-1"]["addresses"]["cloud"] = address
    assert fault(written).startswith("hosts.cloud-app-1.addresses.cloud: ")


def test_all_that_is_wrong_is_named_at_once(written: Any) -> None:
    written["networks"]["cloud"]["subnet"] = "10.72.0.0/16"
    written["networks"]["legacy"]["subnet"] = "8.8.8.0/24"
    said = fault(written)
    assert "networks.onprem.subnet: 10.72.0.0/24 overlaps 10.72.0.0/16 of cloud: each network has its own" in said
    assert "networks.legacy.subnet: 8.8.8.0/24 is not private: take one of 10.0.0.0/8" in said


def test_an_even_number_of_servers_is_refused(written: Any) -> None:
    del written["hosts"]["onprem-server-3"]
    assert "datacenters.onprem: has 2 servers: an odd number, or losing one is losing the majority" in fault(written)


def test_a_datacenter_without_a_way_out_is_refused(written: Any) -> None:
    del written["hosts"]["cloud-mesh-1"], written["hosts"]["cloud-mesh-2"]
    assert "datacenters.cloud: has no mesh-gateway: nothing comes in or out" in fault(written)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"role": ["server"]}, "`role`"),
        ({"roles": ["sever"]}, "'sever'"),
        ({"roles": []}, "length >= 1"),
        ({"memory_mb": 1}, ">= 128"),
        ({"datacenter": "clowd"}, "there is no 'clowd': cloud, onprem"),
        ({"addresses": {"clowd": "10.71.0.9"}}, "there is no network 'clowd': cloud, legacy, onprem, wan"),
    ],
)
def test_a_slip_is_named_with_its_place(written: Any, change: dict[str, Any], said: str) -> None:
    written["hosts"]["cloud-app-1"] |= change
    assert said in fault(written)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("networks", "a-network-with-a-long-name"), ("hosts", "Upper"), ("datacenters", "-"), ("hosts", "")],
)
def test_what_is_no_name_is_refused(written: Any, kind: str, name: str) -> None:
    written[kind][name] = next(iter(written[kind].values()))
    assert f"{kind}: {name!r} is no name" in fault(written)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*topology\.yaml: No such file"):
        topology.load(tmp_path / "topology.yaml")


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    path.write_text("hosts: [")
    with pytest.raises(ConfigError, match=str(path)):
        topology.load(path)
