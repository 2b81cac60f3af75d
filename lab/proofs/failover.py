"""A gateway dies, of either kind, and what it carried finds its way over the other of its kind."""

from __future__ import annotations

import json
import time
from typing import Any

from lab.actors import DATABASE, Actors
from lab.live import live_query
from lab.namespaces import Inside
from lab.proofs.proof import holds
from lab.topology import WAN, Federation, Role
from plugin.dev.processes import wait_until

SURVIVES_WITHIN_S = 60.0
"""Until nobody is sent to what has died any more."""
_IN_A_ROW = 20
"""Attempts that succeed, one after the other: balanced over two, one that still goes to a dead one is among them."""


async def another_terminating_gateway_takes_over(actors: Actors) -> str:
    """The instance that carries a live query is ended as a crash of the machine would, and nobody else's is."""
    async with live_query(actors) as lost:
        dead = lost.gateway
        (other,) = [gateway for gateway in actors.gateways if gateway != dead]
        since = time.monotonic()
        await kill(dead.host, "consul-tgw", "consul-tgw")
        took_s = await until_steady(actors, since)
        holds(lost.query.done(), f"the query through {dead.host.name} goes on, although that has ended")
        # Nobody else can: where it is carried is asked of this one alone.
        async with live_query(actors, [other]):
            pass
    await dead.host.control("consul-tgw", "start")

    served_before = len(await dead.records("access"))

    async def carries_again() -> bool:
        holds(await actors.application.reaches(DATABASE), f"an attempt failed when {dead.host.name} came back")
        records = await dead.records("access")
        return any(one["verdict"] == "allowed" for one in records[served_before:])

    await wait_until(carries_again, SURVIVES_WITHIN_S, what=f"{dead.host.name} carries connections again")
    return f"{other.host.name} alone carried all of them {took_s:.1f} s after {dead.host.name} was killed"


async def another_mesh_gateway_takes_over(actors: Actors) -> str:
    """One on each side is ended; the way is over the others.

    Only on the gateways' side where datacenters are federated: a sidecar's own mesh gateways are healthy to it there as
    long as the service behind them is, and one that died gets its share of connections until it is deregistered.
    """
    topology, hosts = actors.running.topology, actors.running.hosts
    far, near = await without_the_peering(actors)
    killed = (far, near) if actors.running.federation is Federation.PEERING else (near,)
    since = time.monotonic()
    for name in killed:
        await kill(hosts[name], "mesh-gateway", "envoy")
    took_s = await until_steady(actors, since)
    left = {topology.lan(name) for name in topology.having(Role.MESH_GATEWAY, actors.datacenter) if name != near}
    async with live_query(actors) as live:
        client = live.connection["client"].rpartition(":")[0]
        holds(client in left, f"a query comes from {client}, and not from a mesh gateway that is left: {sorted(left)}")
    for name in killed:
        await hosts[name].control("mesh-gateway", "start")
    await until_steady(actors, time.monotonic())
    return f"all went over the others {took_s:.1f} s after the end of {' and '.join(killed)}"


async def without_the_peering(actors: Actors) -> tuple[str, str]:
    """A mesh gateway of the callers and one of the gateways' datacenter that do not carry what the clusters tell each
    other: Consul takes up to a minute to find another way for that, and health is told on it."""
    topology, hosts = actors.running.topology, actors.running.hosts
    near = {topology.hosts[name].addresses[WAN]: name for name in topology.having(Role.MESH_GATEWAY, actors.datacenter)}
    far = topology.having(Role.MESH_GATEWAY, actors.callers_datacenter)
    carried: dict[str, int] = dict.fromkeys((*far, *near.values()), 0)
    for name in far:
        clusters = json.loads(await hosts[name].run("curl", "-sSf", "http://127.0.0.1:19000/clusters?format=json"))
        for cluster in clusters["cluster_statuses"]:
            if not cluster["name"].startswith(f"server.{actors.datacenter}.peering."):
                continue
            for host in cluster["host_statuses"]:
                active = _active(host)
                carried[name] += active
                carried[near[host["address"]["socket_address"]["address"]]] += active
    return min(far, key=carried.__getitem__), min(near.values(), key=carried.__getitem__)


def _active(host: dict[str, Any]) -> int:
    """Connections of Envoy to that host."""
    return sum(int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == "cx_active")


async def kill(host: Inside, service: str, user: str) -> None:
    """End all processes of the service at once, without asking any, and keep its supervisor from starting it again."""
    await host.run("bash", "-c", 'sv once "/etc/sv/$0" && kill -KILL $(pgrep -u "$1")', service, user)


async def until_steady(actors: Actors, since: float) -> float:
    """Seconds from ``since`` to the first of many attempts that all succeed. :raises StartError: when too late."""
    began = time.monotonic()
    successes = 0

    async def steady() -> bool:
        nonlocal began, successes
        if successes == 0:
            began = time.monotonic()
        successes = successes + 1 if await actors.application.reaches(DATABASE) else 0
        return successes >= _IN_A_ROW

    await wait_until(steady, SURVIVES_WITHIN_S, what=f"{_IN_A_ROW} attempts in a row succeed")
    return began - since
