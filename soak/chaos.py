"""The faults and changes, each a function of the world that returns when the world is whole again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

from plugin.dev.pki import Authority
from plugin.dev.processes import wait_until
from plugin.errors import ConsulError, StartError
from soak.asked import FLIP
from soak.ledger import Standing
from soak.traffic import Traffic
from soak.world import FLIPPED, PLAIN, RELINKED, SECURED, STEADY, by_name

Fault = Callable[[Traffic, random.Random], Coroutine[Any, Any, None]]

_CONNECTIONS_OF_A_FLOOD = 150
_WHOLE_AGAIN_S = 120.0
_END_S = 30.0
"""What is denied has ended by then at the client; loaded machines need their time."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def flip_intention(traffic: Traffic, chance: random.Random) -> None:
    """Deny a source and allow it again: its connections end, no byte of theirs passes after the denial is in force."""
    world, ledger, pair = traffic.world, traffic.world.ledger, (FLIPPED, PLAIN)

    def is_used() -> bool:
        return any(flow.relayed for flow, _ in traffic.pumps.values() if flow.pair == pair)

    # Of the flip before, clients may know no more than the denial.
    with contextlib.suppress(StartError):
        await wait_until(is_used, _END_S, what="there is something to end")
    await world.decide(FLIPPED, "deny")
    concerned = {number: pump for number, pump in traffic.pumps.items() if pump[0].pair == pair}
    limits = {number: (progress.sent, progress.received) for number, (_, progress) in concerned.items()}
    with contextlib.suppress(StartError):
        await wait_until(lambda: not concerned.keys() & traffic.pumps.keys(), _END_S, what="they have ended")
    for number in concerned.keys() & traffic.pumps.keys():
        ledger.violated(f"not closed {_END_S:g} s after the denial was in force: pump {number}")
    for number, (sent, _) in limits.items():
        reached = world.plain.progress.get(number)
        if reached is not None and reached.received > sent:
            ledger.violated(f"{reached.received - sent} bytes of pump {number} passed after the denial was in force")
    await asyncio.sleep(chance.random() * 0.5)
    await world.decide(FLIPPED, "allow")


async def flip_permission(traffic: Traffic, chance: random.Random) -> None:
    """Deny a path and allow it again: calls of it end, no byte of theirs passes after the denial is in force."""
    world, calls = traffic.world, traffic.web.calls
    await world.permit("deny")
    limits = {number: call.sent for number, call in calls.items() if call.flow.pair[1].endswith(FLIP)}
    with contextlib.suppress(StartError):
        await wait_until(lambda: not limits.keys() & calls.keys(), _END_S, what="they have ended")
    for number in limits.keys() & calls.keys():
        world.ledger.violated(f"not closed {_END_S:g} s after the denial was in force: call {number}")
    for number, sent in limits.items():
        reached = world.calls.received.get(number, 0)
        if reached > sent:
            world.ledger.violated(f"{reached - sent} bytes of call {number} passed after the denial was in force")
    await asyncio.sleep(chance.random() * 0.5)
    await world.permit("allow")


async def relink(traffic: Traffic, chance: random.Random) -> None:
    """Unlink a service and link it again."""
    world, ledger = traffic.world, traffic.world.ledger
    pair = (STEADY, RELINKED)
    ledger.stands(pair, Standing.CHANGING)
    world.links.remove(RELINKED)
    await world.write_links()
    await world.in_force(lambda shown: RELINKED not in by_name(shown), "it is unlinked")
    ledger.stands(pair, Standing.DENIED)
    await asyncio.sleep(chance.random())
    ledger.stands(pair, Standing.CHANGING)
    world.links.append(RELINKED)
    await world.write_links()
    await world.in_force(lambda shown: RELINKED in by_name(shown), "it is linked")
    ledger.stands(pair, Standing.ALLOWED)


async def churn_endpoints(traffic: Traffic, chance: random.Random) -> None:
    """Other instances come, those that carry connections go: live connections stay."""
    world = traffic.world
    before = int(ports_of(by_name(await world.gateway.snapshot())[PLAIN]) == {world.plain.ports[1]})
    now = 1 - before
    await world.register(PLAIN, now, world.plain.ports[now])
    await world.deregister(PLAIN, before)
    wanted = {world.plain.ports[now]}
    await world.in_force(lambda shown: ports_of(by_name(shown)[PLAIN]) == wanted, "the other instance is used")


def ports_of(service: object) -> set[int]:
    """Where the instances of a service of the snapshot listen."""
    names = service["server_names"] if isinstance(service, dict) else ()
    return {endpoint["port"] for name in names for endpoint in name["endpoints"]}


async def rotate_root(traffic: Traffic, chance: random.Random) -> None:
    """A new root of the mesh, with a new key; the old one is trusted meanwhile."""
    world = traffic.world
    before = {
        name: service["leaf"]["serial_number"] for name, service in by_name(await world.gateway.snapshot()).items()
    }
    await world.new_root()

    def all_new(shown: object) -> bool:
        services = by_name(shown) if isinstance(shown, dict) else {}
        return all(services[name]["leaf"]["serial_number"] != serial for name, serial in before.items())

    await world.in_force(all_new, "leaves of the new root are used")


async def rotate_upstream_tls(traffic: Traffic, chance: random.Random) -> None:
    """A new CA and certificate of the external service, and a new client certificate of the gateway."""
    world = traffic.world
    former, world.authority = world.authority, Authority("External CA")
    both = world.write_ca(former, world.authority)
    await world.in_force(lambda shown: upstream_tls(shown, "ca_pem") == both, "both authorities are trusted")
    world.show(world.authority)
    only = world.write_ca(world.authority)
    await world.in_force(lambda shown: upstream_tls(shown, "ca_pem") == only, "the new authority is trusted")
    pair = world.write_client_pair()
    chain = pair.certificate_pem
    await world.in_force(lambda shown: upstream_tls(shown, "certificate_chain_pem") == chain, "the new pair is used")


def upstream_tls(shown: object, field: str) -> str:
    services = by_name(shown) if isinstance(shown, dict) else {}
    return str(((services.get(SECURED) or {}).get("upstream_tls") or {}).get(field, ""))


async def kill_worker(traffic: Traffic, chance: random.Random) -> None:
    """SIGKILL one: its connections are lost, and only they."""
    world = traffic.world
    pid = chance.choice(await world.workers())
    listed = (await world.gateway.connections())["connections"]
    ports = [int(one["connection"]["client"].rpartition(":")[2]) for one in listed if one["pid"] == pid]
    world.ledger.lost(ports)
    os.kill(pid, signal.SIGKILL)

    async def replaced() -> bool:
        return pid not in await world.workers()

    await wait_until(replaced, _WHOLE_AGAIN_S, what="it is gone from the status")
    await world.in_force(lambda shown: True, "another worker has the newest state")


async def restart_control(traffic: Traffic, chance: random.Random) -> None:
    """SIGKILL the control process; its successor takes the workers over."""
    world = traffic.world
    world.control_away = True
    try:
        await world.gateway.kill_control()
        await asyncio.sleep(chance.random())
        await world.gateway.start()
    finally:
        world.control_away = False
    await world.in_force(lambda shown: bool(by_name(shown)), "every worker has the newest state")


async def stop_agent(traffic: Traffic, chance: random.Random) -> None:
    """SIGSTOP the agent for a moment."""
    world = traffic.world
    world.consul_away = True
    world.agent.pause()
    await asyncio.sleep(1 + 3 * chance.random())
    world.agent.resume()
    await _consul_is_back(traffic)


async def kill_agent(traffic: Traffic, chance: random.Random) -> None:
    """SIGKILL the agent and start it again, with its state."""
    world = traffic.world
    world.consul_away = True
    await world.agent.kill()
    await asyncio.sleep(chance.random())
    await world.agent.start()
    await _consul_is_back(traffic)


async def _consul_is_back(traffic: Traffic) -> None:
    world = traffic.world

    async def answers() -> bool:
        with contextlib.suppress(ConsulError):
            await world.write_intentions(PLAIN)
            return True
        return False

    await wait_until(answers, _WHOLE_AGAIN_S, what="Consul takes writes again")
    world.consul_away = False


async def stop_external_service(traffic: Traffic, chance: random.Random) -> None:
    """SIGSTOP one external service: its connections wait."""
    stopped = traffic.world.stopped
    assert stopped is not None
    stopped.pause()
    await asyncio.sleep(1 + 2 * chance.random())
    stopped.resume()


async def flood(traffic: Traffic, chance: random.Random) -> None:
    """Connections that say nothing, say a byte now and then, or are reset at once."""
    world = traffic.world
    place = (world.gateway.address, world.gateway.port)
    silent = [await _raw(*place) for _ in range(_CONNECTIONS_OF_A_FLOOD)]
    for _ in range(10):
        for one in silent[::3]:
            with contextlib.suppress(OSError):
                one.send(b"\x16")
        await asyncio.sleep(0.05)
    for one in silent:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        one.close()
    world.ledger.bad_inputs["silent, slow or reset connections"] += len(silent)


async def garbage(traffic: Traffic, chance: random.Random) -> None:
    """Bytes that are no TLS, or begin like it."""
    world = traffic.world
    for _ in range(40):
        one = await _raw(world.gateway.address, world.gateway.port)
        head = chance.choice((b"", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\n", b"\x80"))
        with contextlib.suppress(OSError):
            one.send(head + chance.randbytes(chance.randint(1, 2_000)))
        one.close()
    world.ledger.bad_inputs["garbage"] += 40


async def _raw(address: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    async with asyncio.timeout(_END_S):
        await asyncio.get_running_loop().sock_connect(one, (address, port))
    return one


FAULTS: dict[str, Fault] = {
    "intention flipped": flip_intention,
    "permission of a path flipped": flip_permission,
    "service unlinked and linked": relink,
    "endpoints replaced": churn_endpoints,
    "mesh root replaced": rotate_root,
    "TLS files of a link replaced": rotate_upstream_tls,
    "worker killed": kill_worker,
    "control process killed": restart_control,
    "agent stopped for seconds": stop_agent,
    "agent killed and restarted": kill_agent,
    "external service stopped for seconds": stop_external_service,
    "flood": flood,
    "garbage": garbage,
}
