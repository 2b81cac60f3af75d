"""The networks of the lab: bridges in a host of their own, the switch, and a cable from it to each host.

A host's device is called as the network is, and has its address there; there are no routes beyond that. Nothing is made
in the network namespace of this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lab.namespaces import Inside, plain_environment
from lab.topology import Federation, Topology
from plugin.dev import processes


async def connect(topology: Topology, federation: Federation, switch: Inside, hosts: Mapping[str, Inside]) -> None:
    """Make the networks, and connect each host to its own. :raises StartError:"""
    # Within the switch's network but among our processes: `ip` is told hosts by the numbers that these have here.
    await _ip(["nsenter", f"--target={switch.pid}", "--net", "--"], _cables(topology, federation, hosts))
    for name, host in hosts.items():
        await _ip(host.command(), _addresses(topology, federation, name))


def _cables(topology: Topology, federation: Federation, hosts: Mapping[str, Inside]) -> Iterator[str]:
    for network in topology.networks:
        yield f"link add {network} type bridge"
        yield f"link set {network} up"
    number = 0
    for name, host in hosts.items():
        for network in topology.hosts[name].on(federation):
            number += 1
            yield f"link add port{number} type veth peer name {network} netns {host.pid}"
            yield f'link set port{number} master {network} alias "{name}" up'


def _addresses(topology: Topology, federation: Federation, name: str) -> Iterator[str]:
    for network, address in topology.hosts[name].on(federation).items():
        yield f"address add {address}/{topology.networks[network].prefix_length} dev {network}"
        yield f"link set {network} up"


async def cut(switch: Inside, network: str) -> None:
    """Let nothing through that network any more: its devices stay up, as when a cable is lost further on."""
    await switch.run("ip", "link", "set", network, "down")


async def restore(switch: Inside, network: str) -> None:
    await switch.run("ip", "link", "set", network, "up")


async def _ip(where: list[str], lines: Iterator[str]) -> None:
    batch = "".join(f"{line}\n" for line in lines)
    await processes.run([*where, "ip", "-batch", "-"], environment=plain_environment(), input_text=batch)
