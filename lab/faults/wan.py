"""Faults on the way between the datacenters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from lab.actors import DATABASE, HTTP, Actors
from lab.faults.attempts import Attempts
from lab.faults.talk import talking
from lab.namespaces import together
from lab.proofs.failover import kill, until_steady, without_the_peering
from lab.proofs.proof import holds
from lab.slow import SlowWire
from lab.topology import WAN, Federation
from plugin.dev.processes import wait_until
from plugin.explain.answer import Verdict

CUT_S = 10.0
GOES_ON_WITHIN_S = 30.0
"""After the WAN is back: TCP waits twice as long each time before it sends again, so about as long as the cut."""
ROUND_TRIP_MS, LOSS = 150.0, 0.01
_CONNECTIONS, _AT_ONCE = 20, 5
_SESSIONS = 6
_UNTOUCHED_S = 2.0
"""A silence that a busy machine makes by itself."""


async def cut_and_restored(actors: Actors) -> str:
    """Nothing new comes through, what is open waits; each datacenter goes on by itself."""
    peered = actors.running.federation is Federation.PEERING
    async with talking(actors) as talk:
        since = time.monotonic()
        await actors.running.cut(WAN)
        try:
            holds(not await actors.application.reaches(HTTP), "the HTTP service is reached, although the WAN is cut")
            await _gateways_go_on(actors)
            # Peered, intentions are those of the gateways' own cluster; federated, of the first datacenter.
            written = time.monotonic()
            await actors.deny(HTTP)
            if peered:
                await _until_all_say(actors, Verdict.DENIED)
            policy = f"an intention written meanwhile counted after {time.monotonic() - written:.1f} s"
            await asyncio.sleep(max(0.0, since + CUT_S - time.monotonic()))
            holds(peered or await _say(actors, Verdict.ALLOWED), "an intention has come over a WAN that is cut")
            holds(talk.longest_silence_s(since) > CUT_S / 2, "a session went on, although the WAN was cut")
            holds(not talk.ended, "a session ended, although it had only to wait")
        finally:
            await actors.running.restore(WAN)
        back = time.monotonic()
        if not peered:
            await _until_all_say(actors, Verdict.DENIED)
            policy = f"an intention written meanwhile counted {time.monotonic() - back:.1f} s after it was back"
        went_on_s = await talk.heard_after(back, GOES_ON_WITHIN_S)
    await actors.until_reached(DATABASE)
    new_s = time.monotonic() - back
    await actors.allow(HTTP)
    await actors.until_reached(HTTP)
    return (
        f"for {back - since:.0f} s: no new connections, the gateways went on; {policy}; an open session went on"
        f" {went_on_s:.1f} s, new connections came {new_s:.1f} s after the WAN was back"
    )


async def _say(actors: Actors, verdict: Verdict) -> bool:
    """Whether every gateway says that of web's next call of the HTTP service."""
    peered = actors.running.federation is Federation.PEERING
    caller = f"{actors.callers_datacenter}:web" if peered else "web"
    # Its exit code is the verdict, too, and no failure here.
    script = 'consul-tgw explain "$@" --json --runtime-dir /run/consul-tgw || (($? == 1))'
    said = await together(
        *(gateway.host.run("bash", "-c", script, "explain", caller, HTTP) for gateway in actors.gateways)
    )
    return all(json.loads(one)["verdict"] == verdict for one in said)


async def _until_all_say(actors: Actors, verdict: Verdict) -> None:
    await wait_until(
        lambda: _say(actors, verdict), GOES_ON_WITHIN_S, what=f"every gateway says {verdict.value}", every_s=0.1
    )


async def _gateways_go_on(actors: Actors) -> None:
    """They are passing in their catalog, and their leaves can be had."""
    for service in (DATABASE, HTTP):
        leaf = await actors.here.ask(f"/v1/agent/connect/ca/leaf/{service}")
        holds(leaf["CertPEM"], f"no leaf for {service} is to be had while the WAN is cut")
    rows = await actors.here.ask("/v1/health/service/terminating-gateway?passing=true")
    holds(len(rows) == len(actors.gateways), f"{len(rows)} gateways are passing while the WAN is cut")


async def a_mesh_gateway_is_killed(actors: Actors) -> str:
    """What it carried ends, what the other one of its side carries goes on, and new connections find their way."""
    topology, hosts = actors.running.topology, actors.running.hosts
    _, name = await without_the_peering(actors)
    # A WAN that was cut may have left some that have not noticed yet.
    before = {one["id"] for one in await _sessions(actors)}
    async with contextlib.AsyncExitStack() as stack:
        talks = [await stack.enter_async_context(talking(actors)) for _ in range(_SESSIONS)]
        carried = await _carried_by(actors, topology.lan(name), before)
        since = time.monotonic()
        await kill(hosts[name], "mesh-gateway", "envoy")
        steady_s = await until_steady(actors, since)
        over = [talk for talk in talks if talk.ended]
        for talk in talks:
            if not talk.ended:
                silence_s = talk.longest_silence_s(since)
                holds(silence_s < _UNTOUCHED_S, f"a session over the other gateway was silent for {silence_s:.1f} s")
    await hosts[name].control("mesh-gateway", "start")
    holds(len(over) == carried, f"{len(over)} sessions ended, and {name} carried {carried}")
    return (
        f"{name}: the {len(over)} sessions that it carried ended, {len(talks) - len(over)} others went on;"
        f" all new connections came through {steady_s:.1f} s later"
    )


async def _carried_by(actors: Actors, address: str, before: set[str]) -> int:
    """Sessions that come from the mesh gateway with that address, once all that were not there ``before`` are seen."""

    async def clients() -> list[str]:
        new = [one for one in await _sessions(actors) if one["id"] not in before]
        return [one["connection"]["client"].rpartition(":")[0] for one in new]

    async def all_are_seen() -> bool:
        return len(await clients()) == _SESSIONS

    await wait_until(all_are_seen, 30.0, what=f"the gateways carry {_SESSIONS} sessions", every_s=0.2)
    return (await clients()).count(address)


async def _sessions(actors: Actors) -> list[dict[str, Any]]:
    """With the database, on all gateways. Two gateways may have the same ``id``, so it is made one of both."""
    found = []
    for gateway in actors.gateways:
        rows = await gateway.connections(DATABASE)
        found += [row | {"id": f"{gateway.host.name} {row['id']}"} for row in rows]
    return found


async def slow_and_lossy(actors: Actors) -> str:
    """Everything works, as late as the wire makes it."""
    with tempfile.TemporaryDirectory(prefix="consul-tgw-lab-") as folder:
        wire = SlowWire(actors.running, Path(folder), round_trip_ms=ROUND_TRIP_MS, loss=LOSS)
        async with wire:
            await actors.until_reached(DATABASE)
            attempts = Attempts()
            for _ in range(_CONNECTIONS // _AT_ONCE):
                await together(*(attempts.one(actors) for _ in range(_AT_ONCE)))
            holds(not attempts.failed, f"{len(attempts.failed)} of {_CONNECTIONS} new connections failed")
            holds(attempts.median_s > ROUND_TRIP_MS / 1000, "the wire is not slow")
            rows = await actors.application.sql("select repeat(md5(i::text), 32) from generate_series(1, 1000) i")
            holds(len(rows) == 1000 * 1025 - 1, f"of a megabyte, {len(rows)} bytes have come")
            denied_s = await _deny_a_talk(actors)
        carried, lost = wire.lost()
    holds(lost, f"of {carried} frames none was lost: the wire is too good")
    return (
        f"{ROUND_TRIP_MS:.0f} ms more for each round trip, {lost} of {carried + lost} frames lost: {attempts} took"
        f" {attempts.median_s:.1f} s; a megabyte came whole; a denied session ended after {denied_s:.1f} s"
    )


async def _deny_a_talk(actors: Actors) -> float:
    async with talking(actors) as talk:
        since = time.monotonic()
        await actors.deny(DATABASE)
        await talk.until_ended(GOES_ON_WITHIN_S)
        took_s = time.monotonic() - since
    await actors.allow(DATABASE)
    await actors.until_reached(DATABASE)
    return took_s
