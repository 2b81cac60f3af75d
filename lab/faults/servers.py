"""Faults of Consul's servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from lab import plan
from lab.actors import DATABASE, Actors, Operator
from lab.faults.attempts import attempting
from lab.faults.talk import talking
from lab.namespaces import together
from lab.proofs.failover import kill
from lab.proofs.proof import holds
from lab.topology import Role
from plugin.dev.processes import wait_until
from plugin.errors import StartError

ELECTED_WITHIN_S = 30.0
UNTOUCHED_S = 2.0
"""A silence that a busy machine makes by itself."""
_AWAY_S = 8.0
_COUNTS_WITHIN_S = 20.0


async def the_leader_is_lost(actors: Actors) -> str:
    """Of the datacenter with the gateways. Traffic goes on, and policy counts again with the next leader."""
    topology, hosts = actors.running.topology, actors.running.hosts
    datacenter = plan.gateway_datacenter(topology)
    by_address = {topology.lan(name): name for name in topology.having(Role.SERVER, datacenter)}
    leader = by_address[_host_of(await actors.here.ask("/v1/status/leader"))]
    others = [Operator(hosts[name]) for name in by_address.values() if name != leader]
    # Who is left works with a server that is left.
    left = replace(actors, here=others[0])
    async with talking(actors) as talk, attempting(actors) as attempts:
        since = time.monotonic()
        await kill(hosts[leader], "consul", "consul")

        async def elected() -> bool:
            said = await others[0].ask("/v1/status/leader")
            return bool(said) and by_address[_host_of(said)] != leader

        await wait_until(elected, ELECTED_WITHIN_S, what="the servers that are left have a leader", every_s=0.1)
        elected_s = time.monotonic() - since
        silence_s = talk.longest_silence_s(since)
        holds(not talk.ended and silence_s < UNTOUCHED_S, f"a session was silent for {silence_s:.1f} s")
        meanwhile = str(attempts)
        holds(not attempts.failed, f"only {meanwhile} succeeded while there was no leader")
        since = time.monotonic()
        await _written(left.deny)
        await talk.until_ended(_COUNTS_WITHIN_S)
        counts_s = time.monotonic() - since
    await _written(left.allow)
    await hosts[leader].control("consul", "start")

    async def whole_again() -> bool:
        return bool((await others[0].ask("/v1/operator/autopilot/health"))["Healthy"])

    await wait_until(_able(whole_again), 60.0, what="all servers are healthy", every_s=0.5)
    await actors.until_reached(DATABASE)
    return (
        f"{leader} was lost: another led {elected_s:.1f} s later; an open session and {meanwhile} went on meanwhile;"
        f" an intention written then ended a live session after {counts_s:.1f} s"
    )


async def the_callers_servers_are_away(actors: Actors) -> str:
    """All of them. In a federation these are the primary datacenter's."""
    topology, hosts = actors.running.topology, actors.running.hosts
    away = topology.having(Role.SERVER, actors.callers_datacenter)
    async with talking(actors) as talk:
        since = time.monotonic()
        await together(*(kill(hosts[name], "consul", "consul") for name in away))
        async with attempting(actors) as attempts:
            await asyncio.sleep(_AWAY_S)
        silence_s = talk.longest_silence_s(since)
        holds(not talk.ended and silence_s < UNTOUCHED_S, f"a session was silent for {silence_s:.1f} s")
        holds(attempts.took_s and not attempts.failed, f"only {attempts} succeeded while the servers were away")
        await together(*(hosts[name].control("consul", "start") for name in away))

        async def led_again() -> bool:
            return bool(await actors.there.ask("/v1/status/leader"))

        await wait_until(_able(led_again), 60.0, what=f"{actors.callers_datacenter} has a leader again", every_s=0.2)
        since = time.monotonic()
        await _written(actors.deny)
        await talk.until_ended(60.0)
        counts_s = time.monotonic() - since
    await _written(actors.allow)
    await actors.until_reached(DATABASE)
    return (
        f"for {_AWAY_S:.0f} s: an open session and {attempts} went on; back, an intention ended a live session after"
        f" {counts_s:.1f} s"
    )


def _host_of(address: str) -> str:
    return address.rpartition(":")[0]


def _able(predicate: Callable[[], Awaitable[bool]]) -> Callable[[], Awaitable[bool]]:
    """False also while nobody answers."""

    async def asked() -> bool:
        try:
            return await predicate()
        except StartError:
            return False

    return asked


async def _written(write: Callable[[str], Awaitable[None]]) -> None:
    """Servers that have just come to lead refuse writes for a moment."""

    async def done() -> bool:
        try:
            await write(DATABASE)
        except StartError:
            return False
        return True

    await wait_until(done, 30.0, what="Consul takes an intention", every_s=0.2)
