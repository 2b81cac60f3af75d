"""What has to be run where, and in which order, to make a topology's hosts into the lab.

Pure: both ways of running the lab follow it, the namespaces directly and Vagrant as ``python -m lab plan`` prints it.
A script takes its settings from the environment alone; ``vagrant/provision/README.md`` says what each variable means.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.topology import LEGACY, WAN, Federation, Role, Topology

SCRIPTS = Path(__file__).resolve().parent.parent / "vagrant" / "provision"

OF_ROLE = {
    Role.SERVER: "server.sh",
    Role.LEGACY: "legacy.sh",
    Role.MESH_GATEWAY: "mesh-gateway.sh",
    Role.TERMINATING_GATEWAY: "terminating-gateway.sh",
    Role.APPLICATION: "application.sh",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One script on one or several hosts, at the same time."""

    script: str
    hosts: tuple[str, ...]
    input_from: str = ""
    """The script whose standard output is the standard input of this one."""


def steps(topology: Topology, federation: Federation) -> list[Step]:
    """In order; each may begin when the one before has ended everywhere."""
    begin = [Step(script="base.sh", hosts=tuple(topology.hosts)), _of(topology, Role.LEGACY)]
    if federation is Federation.PEERING:
        # Clusters of their own come up at the same time.
        clusters = [*_cluster(topology, None), *_peering(topology)]
    else:
        # The primary datacenter first: it has the tokens and the CA of all.
        clusters = [step for name in topology.datacenters for step in _federated(topology, federation, name)]
        clusters.append(Step(script="federated.sh", hosts=tuple(operators(topology).values())))
    return [step for step in [*begin, *clusters, _of(topology, Role.APPLICATION)] if step.hosts]


def _cluster(topology: Topology, datacenter: str | None) -> list[Step]:
    """What makes a datacenter, or all of them."""
    members = [
        name for name, host in topology.hosts.items() if host.datacenter and datacenter in (None, host.datacenter)
    ]
    clients = tuple(name for name in members if Role.SERVER not in topology.hosts[name].roles)
    operator = tuple(name for place, name in operators(topology).items() if datacenter in (None, place))
    return [
        _of(topology, Role.SERVER, datacenter),
        # Tokens first: an agent that starts with one which is not known yet takes a while to try again.
        Step(script="operator.sh", hosts=operator),
        Step(script="agent.sh", hosts=clients),
        _of(topology, Role.MESH_GATEWAY, datacenter),
        _of(topology, Role.TERMINATING_GATEWAY, datacenter),
    ]


def _federated(topology: Topology, federation: Federation, datacenter: str) -> list[Step]:
    steps = _cluster(topology, datacenter)
    if federation is Federation.GATEWAYS and datacenter != next(iter(topology.datacenters)):
        # Its servers need the primary datacenter before their own gateways can be configured.
        gateways = tuple(topology.having(Role.MESH_GATEWAY, datacenter))
        return [Step(script="relay.sh", hosts=gateways), *steps]
    return steps


def operators(topology: Topology) -> dict[str, str]:
    """By datacenter: the host on which the operator works, its first server."""
    return {name: topology.having(Role.SERVER, name)[0] for name in topology.datacenters}


def gateway_datacenter(topology: Topology) -> str:
    """Where the terminating gateways are."""
    return topology.hosts[topology.having(Role.TERMINATING_GATEWAY)[0]].datacenter


def _of(topology: Topology, role: Role, datacenter: str | None = None) -> Step:
    return Step(script=OF_ROLE[role], hosts=tuple(topology.having(role, datacenter)))


def _peering(topology: Topology) -> list[Step]:
    gateways = gateway_datacenter(topology)
    operator = operators(topology)
    return [
        Step(script="peering-token.sh", hosts=(operator[gateways],)),
        Step(
            script="peering-establish.sh",
            hosts=(operator[topology.peer_of(gateways)],),
            input_from="peering-token.sh",
        ),
    ]


def environment(topology: Topology, federation: Federation, name: str) -> dict[str, str]:
    """What the scripts are told about the host ``name``; what depends on where it runs is not in it."""
    host = topology.hosts[name]
    addresses = host.on(federation)
    gateways = topology.having(Role.TERMINATING_GATEWAY)
    told = {
        "LAB_FEDERATION": federation.value,
        "LAB_HOST": name,
        "LAB_DATACENTER": host.datacenter,
        "LAB_ROLES": " ".join(host.roles),
        "LAB_WAN_ADDRESS": addresses.get(WAN, ""),
        "LAB_LEGACY_ADDRESS": addresses.get(LEGACY, ""),
        "LAB_LEGACY_HOST": topology.hosts[topology.having(Role.LEGACY)[0]].addresses[LEGACY],
        "LAB_GATEWAYS": " ".join(topology.hosts[one].addresses[LEGACY] for one in gateways),
        "LAB_GATEWAY_DATACENTER": gateway_datacenter(topology),
        "LAB_PRIMARY": next(iter(topology.datacenters)),
    }
    if host.datacenter:
        peer = topology.peer_of(host.datacenter)
        told |= {
            "LAB_ADDRESS": topology.lan(name),
            "LAB_SERVERS": " ".join(map(topology.lan, topology.having(Role.SERVER, host.datacenter))),
            "LAB_MESH_GATEWAYS": " ".join(map(topology.lan, topology.having(Role.MESH_GATEWAY, host.datacenter))),
            "LAB_PEER": peer,
            "LAB_PEER_SERVERS_WAN": " ".join(_wan(topology, federation, Role.SERVER, peer)),
            "LAB_PEER_MESH_GATEWAYS": " ".join(_wan(topology, federation, Role.MESH_GATEWAY, peer)),
        }
    return told


def _wan(topology: Topology, federation: Federation, role: Role, datacenter: str) -> list[str]:
    hosts = (topology.hosts[name].on(federation) for name in topology.having(role, datacenter))
    return [addresses[WAN] for addresses in hosts if WAN in addresses]


def as_json(topology: Topology, federation: Federation) -> dict[str, Any]:
    """``networks`` by name, ``hosts`` by name, ``steps`` in order; for whatever makes the hosts."""
    return {
        "federation": federation.value,
        "operators": operators(topology),
        "networks": {name: network.subnet for name, network in topology.networks.items()},
        "hosts": {
            name: {
                "addresses": host.on(federation),
                "memory_mb": host.memory_mb,
                "environment": environment(topology, federation, name),
            }
            for name, host in topology.hosts.items()
        },
        "steps": [
            {"script": step.script, "hosts": step.hosts, "input_from": step.input_from}
            for step in steps(topology, federation)
        ],
    }
