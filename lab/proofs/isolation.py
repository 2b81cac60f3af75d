"""Which hosts reach which: what the topology says, and nothing besides."""

from __future__ import annotations

from lab.actors import Actors
from lab.namespaces import Inside, together
from lab.proofs.proof import holds
from lab.topology import LEGACY, Role
from plugin.errors import StartError


async def only_gateways_meet(actors: Actors) -> str:
    """Hosts have a way to those on their own networks, and to no others; nobody passes anything on."""
    running = actors.running
    topology, federation = running.topology, running.federation
    everything = {
        address: (name, network)
        for name, host in topology.hosts.items()
        for network, address in host.on(federation).items()
    }

    async def look(name: str) -> tuple[int, int]:
        own = topology.hosts[name].on(federation)
        reached = await _routes(running.hosts[name], list(everything))
        for address, (other, network) in everything.items():
            has, should = address in reached, network in own
            way = f"{name} {'has a' if has else 'has no'} route to {other} ({address}, {network})"
            holds(has == should, f"{way}: {'they share no network' if has else 'they share one'}")
        forwards = (await running.hosts[name].run("cat", "/proc/sys/net/ipv4/ip_forward")).strip()
        holds(forwards == "0", f"{name} passes packets on between its networks")
        outside = await running.hosts[name].run("ip", "-4", "route", "show", "default")
        holds(not outside, f"{name} has a way out of the lab: {outside.strip()}")
        return len(reached), len(everything) - len(reached)

    counts = await together(*(look(name) for name in topology.hosts))
    await _connects_as_it_should(actors)
    present, missing = (sum(column) for column in zip(*counts, strict=True))
    return f"{missing} ways between hosts are missing and {present} are there, as the topology says"


async def _connects_as_it_should(actors: Actors) -> None:
    """The application's own attempts, and who reaches the legacy host: routes alone would not show a closed door."""
    running, topology = actors.running, actors.running.topology
    legacy = topology.hosts[topology.having(Role.LEGACY)[0]].addresses[LEGACY]
    for name in topology.hosts:
        if LEGACY in topology.hosts[name].addresses:
            continue
        holds(not await _connects(running.hosts[name], legacy, 5432), f"{name} connects to the legacy host's database")
    for gateway in actors.gateways:
        for port in (5432, 8080):
            holds(
                await _connects(gateway.host, legacy, port),
                f"{gateway.host.name} does not connect to {legacy}:{port}",
            )


async def _routes(host: Inside, addresses: list[str]) -> set[str]:
    """Those to which the host has a route."""
    script = 'for a in "$@"; do ip -4 route get "$a" >/dev/null 2>&1 && echo "$a"; done; true'
    return set((await host.run("bash", "-c", script, "routes", *addresses)).split())


async def _connects(host: Inside, address: str, port: int) -> bool:
    try:
        await host.run("timeout", "3", "bash", "-c", ': <"/dev/tcp/$0/$1"', address, str(port))
    except StartError:
        return False
    return True
