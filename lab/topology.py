"""The hosts of the lab, read from ``vagrant/topology.yaml`` and held to its rules.

Reads a file and nothing else. What is wrong in it is named, with what would be right.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec

from plugin.errors import ConfigError

FILE = Path(__file__).resolve().parent.parent / "vagrant" / "topology.yaml"

WAN, LEGACY = "wan", "legacy"
"""The networks with a meaning of their own; the others are those of datacenters."""

# Names of hosts become those of nodes of Consul (RFC 1123, section 2.1), names of networks those of network devices,
# which have 15 characters.
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_LONGEST = {"networks": 15, "datacenters": 63, "hosts": 63}


class Role(StrEnum):
    SERVER = "server"
    APPLICATION = "application"
    MESH_GATEWAY = "mesh-gateway"
    TERMINATING_GATEWAY = "terminating-gateway"
    LEGACY = "legacy"


class Federation(StrEnum):
    """How the datacenters know of each other."""

    PEERING = "peering"
    """Two clusters of their own that are peered."""
    GATEWAYS = "gateways"
    """One federation, whose servers meet through mesh gateways."""
    WAN = "wan"
    """One federation, whose servers meet on the WAN themselves."""


class Network(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    subnet: str

    @property
    def prefix_length(self) -> int:
        return ipaddress.IPv4Network(self.subnet).prefixlen


class Datacenter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: str
    """Of its hosts."""


class Host(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    roles: Annotated[list[Role], msgspec.Meta(min_length=1)]
    addresses: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    """By network."""
    datacenter: str = ""
    """Empty outside the mesh."""
    addresses_under: dict[Federation, dict[str, str]] = {}
    """Further ones that the host has under that federation alone."""
    memory_mb: Annotated[int, msgspec.Meta(ge=128)] = 512
    """Of its virtual machine."""

    def on(self, federation: Federation) -> dict[str, str]:
        """Its addresses by network."""
        return self.addresses | self.addresses_under.get(federation, {})


class Topology(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    networks: dict[str, Network]
    datacenters: dict[str, Datacenter]
    hosts: dict[str, Host]

    def having(self, role: Role, datacenter: str | None = None) -> list[str]:
        """Names of the hosts with that role, of that datacenter or of all."""
        return [
            name
            for name, host in self.hosts.items()
            if role in host.roles and (datacenter is None or host.datacenter == datacenter)
        ]

    def lan(self, name: str) -> str:
        """The host's address in its datacenter."""
        host = self.hosts[name]
        return host.addresses[self.datacenters[host.datacenter].network]

    def peer_of(self, datacenter: str) -> str:
        """The other datacenter."""
        return next(name for name in self.datacenters if name != datacenter)


def load(path: Path = FILE) -> Topology:
    """:raises ConfigError: with everything that is wrong in the file."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(text: bytes) -> Topology:
    """:raises ConfigError: with everything that is wrong."""
    try:
        topology = msgspec.yaml.decode(text, type=Topology)
    except msgspec.DecodeError as error:  # ValidationError is one of them
        raise ConfigError(str(error)) from error
    if faults := list(dict.fromkeys(_faults(topology))):
        raise ConfigError("\n".join(faults))
    return topology


def _faults(topology: Topology) -> Iterator[str]:
    # Each looks at what the ones before it have found in order.
    for look in (_names, _networks, _datacenters, _names_of_networks, _addresses, _roles, _servers):
        faults = list(look(topology))
        yield from faults
        if faults:
            return


def _names(topology: Topology) -> Iterator[str]:
    for kind, longest in _LONGEST.items():
        for name in getattr(topology, kind):
            if not _NAME.fullmatch(name) or len(name) > longest:
                yield f"{kind}: {name!r} is no name: small letters, digits and hyphens, {longest} at most"


def _networks(topology: Topology) -> Iterator[str]:
    known: dict[str, ipaddress.IPv4Network] = {}
    for name, network in topology.networks.items():
        try:
            subnet = ipaddress.IPv4Network(network.subnet)
        except ValueError as error:
            yield f"networks.{name}.subnet: {error}: write the network's own address and its length, as 10.71.0.0/24"
            continue
        if not subnet.is_private:
            yield f"networks.{name}.subnet: {subnet} is not private: take one of 10.0.0.0/8"
        for other, taken in known.items():
            if subnet.overlaps(taken):
                yield f"networks.{name}.subnet: {subnet} overlaps {taken} of {other}: each network has its own"
        known[name] = subnet
    for name in (WAN, LEGACY):
        if name not in topology.networks:
            yield f"networks: there is no {name}: it is what joins the datacenters, or the hosts outside the mesh"


def _datacenters(topology: Topology) -> Iterator[str]:
    if len(topology.datacenters) != 2:
        count = len(topology.datacenters)
        yield f"datacenters: there are {count}: the lab has two, one with the callers and one with the gateways"
    taken: dict[str, str] = {}
    for name, datacenter in topology.datacenters.items():
        network, place = datacenter.network, f"datacenters.{name}.network"
        if network not in topology.networks or network in (WAN, LEGACY):
            own = _listed(one for one in topology.networks if one not in (WAN, LEGACY))
            yield f"{place}: {network!r} is not the network of a datacenter: {own}"
        elif network in taken:
            yield f"{place}: {network} is that of {taken[network]}: each has its own"
        taken[network] = name


def _names_of_networks(topology: Topology) -> Iterator[str]:
    for name, host in topology.hosts.items():
        if host.datacenter and host.datacenter not in topology.datacenters:
            yield f"hosts.{name}.datacenter: there is no {host.datacenter!r}: {_listed(topology.datacenters)}"
        for where, addresses in _places(host):
            for network in addresses:
                if network not in topology.networks:
                    yield f"hosts.{name}.{where}: there is no network {network!r}: {_listed(topology.networks)}"


def _addresses(topology: Topology) -> Iterator[str]:
    taken: dict[str, str] = {}
    for name, host in topology.hosts.items():
        for where, addresses in _places(host):
            for network, address in addresses.items():
                place = f"hosts.{name}.{where}.{network}"
                try:
                    parsed = ipaddress.IPv4Address(address)
                except ValueError as error:
                    yield f"{place}: {error}"
                    continue
                subnet = ipaddress.IPv4Network(topology.networks[network].subnet)
                # The first one is that of the machine that carries virtual machines.
                if parsed not in subnet or parsed in (subnet[0], subnet[1], subnet[-1]):
                    yield f"{place}: {address} is not one for hosts of {subnet}: {subnet[2]} to {subnet[-2]}"
                if address in taken:
                    yield f"{place}: {address} is that of {taken[address]}: each host has its own"
                taken[address] = name


_MAY_BE_ON = {
    WAN: frozenset({Role.MESH_GATEWAY}),
    LEGACY: frozenset({Role.TERMINATING_GATEWAY, Role.LEGACY}),
}
"""Who has a way around the mesh if it is there."""
_MUST_BE_ON = {Role.MESH_GATEWAY: WAN, Role.TERMINATING_GATEWAY: LEGACY, Role.LEGACY: LEGACY}


def _roles(topology: Topology) -> Iterator[str]:
    for name, host in topology.hosts.items():
        outside = Role.LEGACY in host.roles
        if outside and (host.datacenter or len(host.roles) > 1):
            yield f"hosts.{name}: a host outside the mesh has the role legacy alone, and no datacenter"
        if not outside and not host.datacenter:
            yield f"hosts.{name}.datacenter: missing: only a host with the role legacy has none"
        own = topology.datacenters[host.datacenter].network if host.datacenter else None
        if own is not None and own not in host.addresses:
            yield f"hosts.{name}.addresses: none on {own}, the network of {host.datacenter}"
        for role in host.roles:
            if (network := _MUST_BE_ON.get(role)) is not None and network not in host.addresses:
                yield f"hosts.{name}.addresses: none on {network}, which a {role} needs"
        for network in host.addresses:
            allowed = _MAY_BE_ON.get(network, frozenset())
            if network != own and not allowed.intersection(host.roles):
                yield f"hosts.{name}.addresses: {network} is not for it: there, {_listed(allowed) or 'own hosts'} only"


def _servers(topology: Topology) -> Iterator[str]:
    for datacenter in topology.datacenters:
        count = len(topology.having(Role.SERVER, datacenter))
        if count % 2 == 0:
            yield f"datacenters.{datacenter}: has {count} servers: an odd number, or losing one is losing the majority"
        if not topology.having(Role.MESH_GATEWAY, datacenter):
            yield f"datacenters.{datacenter}: has no mesh-gateway: nothing comes in or out"
    for role in (Role.APPLICATION, Role.TERMINATING_GATEWAY, Role.LEGACY):
        if not topology.having(role):
            yield f"hosts: none has the role {role}"


def _places(host: Host) -> Iterator[tuple[str, dict[str, str]]]:
    yield "addresses", host.addresses
    for federation, addresses in host.addresses_under.items():
        yield f"addresses_under.{federation}", addresses


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
