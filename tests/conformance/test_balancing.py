"""How connections are spread over the instances: the ``LoadBalancer`` of a service-resolver."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

from plugin.dev.external import ExternalService, hello
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import Refused

TOPIC = "Balancing"
_MANY = 40
"""Connections, or client addresses, that meet each of three instances if they are spread at all: the odds against are
beyond a million to one."""
_HOME = "127.0.7.1"
_ADDRESSES = tuple(f"127.0.7.{number}" for number in range(1, _MANY + 1))
_NAMES = ("one", "two", "three")
_REQUEST = b"GET / HTTP/1.1\r\nHost: db\r\nx-user: %d\r\nConnection: close\r\n\r\n"
_SOURCE_IP = {"SourceIP": True}


async def offered(stand: Stand, policy: str, hash_policies: Sequence[Any] = (), **config: Any) -> None:
    """Three instances, linked, and balanced by ``policy``; return when all is in force."""
    for name in _NAMES:
        backend = await stand.talker(name)
        await stand.register("db", backend.port, node=name)
    await balanced(stand, policy, hash_policies, **config)


async def balanced(stand: Stand, policy: str, hash_policies: Sequence[Any] = (), **config: Any) -> None:
    """Link the service whose instances are registered."""
    if policy:
        balancer = {"Policy": policy, "HashPolicies": list(hash_policies), **config}
        await stand.config("service-resolver", "db", LoadBalancer=balancer)
    await stand.intention("web", "db")
    await stand.link("db")

    async def answered() -> bool:
        return await who_answers(stand, _HOME) != REFUSED

    await eventually(answered, 60.0, what=f"somebody answers through {stand.gateway.name}")
    await stand.settled()


async def who_answers(stand: Stand, address: str, user: int = 0) -> str:
    """The name of the instance that serves a connection from ``address``: what it says first, or in HTTP."""
    client, name = await stand.client("web"), await stand.server_name("db")
    try:
        connection = await client.connect(stand.gateway.address, stand.gateway.port, name, local_address=address)
        async with connection:
            await connection.send(_REQUEST % user)
            first = await connection.receive_exactly(6)
            if not first.startswith(b"HTTP/"):
                return first.decode().strip()
            page = b""
            while b"Hello from " not in page or not page.endswith(b"\n"):
                if not (data := await connection.receive()):
                    return REFUSED
                page += data
            return page.rpartition(b"Hello from ")[2].partition(b":")[0].decode()
    except (Refused, OSError):
        return REFUSED


async def from_one(stand: Stand) -> list[str]:
    """Who answers many connections from one address."""
    return sorted({await who_answers(stand, _HOME, user) for user in range(_MANY)})


async def from_many(stand: Stand) -> dict[str, str]:
    """Who answers a connection from each of many addresses."""
    return {address: await who_answers(stand, address) for address in _ADDRESSES}


async def places(stand: Stand) -> Observation:
    return {
        "instances that serve one client address": len(await from_one(stand)),
        "instances that serve 40": len(set((await from_many(stand)).values())),
    }


def tcp_case(policy: str, hash_policies: Sequence[Any]) -> Any:
    async def body(stand: Stand) -> Observation:
        await offered(stand, policy, hash_policies)
        return await places(stand)

    return body


@conformance(TOPIC, "Without a policy, instances take turns", expect={"each": [4, 4, 4]})
async def test_default(stand: Stand) -> Observation:
    await offered(stand, "")
    return {"each": list((await stand.tally(12)).values())}


@conformance(TOPIC, "round_robin: instances take turns", expect={"each": [4, 4, 4]})
async def test_round_robin(stand: Stand) -> Observation:
    await offered(stand, "round_robin")
    return {"each": list((await stand.tally(12)).values())}


@conformance(TOPIC, "random: every instance is used", expect={"who answers": ["one", "three", "two"]})
async def test_random(stand: Stand) -> Observation:
    await offered(stand, "random")
    return {"who answers": list(await stand.tally(_MANY))}


@conformance(
    TOPIC,
    "random: weights count",
    envoy={"nine of ten or so go to the heavier one": False},
    ours={"nine of ten or so go to the heavier one": True},
    decision="013",
)
async def test_random_weights(stand: Stand) -> Observation:
    for name, weight in (("heavy", 9), ("light", 1)):
        backend = await stand.talker(name)
        await stand.register("db", backend.port, node=name, weights={"Passing": weight, "Warning": 1})
    await balanced(stand, "random")
    counted = await stand.tally(80)
    return {"nine of ten or so go to the heavier one": counted["heavy"] > 60}


@conformance(
    TOPIC,
    "least_request: connections that stay open are spread evenly",
    expect={"open connections of each": [4, 4, 4]},
)
async def test_least_request(stand: Stand) -> Observation:
    instances: list[ExternalService] = []
    for name in _NAMES:
        instances.append(await stand.talker(name))
        await stand.register("db", instances[-1].port, node=name)
    await balanced(stand, "least_request", LeastRequestConfig={"ChoiceCount": 50})

    async def quiet() -> bool:
        return not any(instance.connections for instance in instances)

    await eventually(quiet, what="earlier connections have ended")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            connection = await stack.enter_async_context(stand.dial("web", "db"))
            await connection.receive_exactly(6)
        return {"open connections of each": [instance.connections for instance in instances]}


_STICKY = {"instances that serve one client address": 1, "instances that serve 40": 3}
_SPREAD = {"instances that serve one client address": 3, "instances that serve 40": 3}

test_ring_hash = conformance(TOPIC, "ring_hash by SourceIP, on tcp", envoy=_SPREAD, ours=_STICKY, decision="013")(
    tcp_case("ring_hash", [_SOURCE_IP])
)

test_maglev = conformance(TOPIC, "maglev by SourceIP, on tcp", envoy=_SPREAD, ours=_STICKY, decision="013")(
    tcp_case("maglev", [_SOURCE_IP])
)

test_ring_hash_of_nothing = conformance(TOPIC, "ring_hash without a hash policy is random", expect=_SPREAD)(
    tcp_case("ring_hash", [])
)

test_maglev_of_nothing = conformance(TOPIC, "maglev without a hash policy is random", expect=_SPREAD)(
    tcp_case("maglev", [])
)

test_ring_hash_of_a_header = conformance(TOPIC, "ring_hash by a header, on tcp, is random", expect=_SPREAD)(
    tcp_case("ring_hash", [{"Field": "header", "FieldValue": "x-user"}])
)


async def offered_over_http(stand: Stand, policy: str, hash_policies: Sequence[Any]) -> None:
    await stand.config("service-defaults", "db", Protocol="http")
    for name in _NAMES:
        backend = await stand.backend(functools.partial(hello, name=name))
        await stand.register("db", backend.port, node=name)
    await balanced(stand, policy, hash_policies)


def http_case(policy: str, hash_policies: Sequence[Any]) -> Any:
    async def body(stand: Stand) -> Observation:
        await offered_over_http(stand, policy, hash_policies)
        return await places(stand)

    return body


test_ring_hash_over_http = conformance(TOPIC, "ring_hash by SourceIP, on http", expect=_STICKY)(
    http_case("ring_hash", [_SOURCE_IP])
)

test_maglev_over_http = conformance(TOPIC, "maglev by SourceIP, on http", expect=_STICKY)(
    http_case("maglev", [_SOURCE_IP])
)

test_terminal = conformance(
    TOPIC, "A terminal SourceIP makes the header behind it count for nothing, on http", expect=_STICKY
)(http_case("ring_hash", [{**_SOURCE_IP, "Terminal": True}, {"Field": "header", "FieldValue": "x-user"}]))


@conformance(
    TOPIC,
    "ring_hash by SourceIP, on http: when an instance leaves, most clients of the others stay where they are",
    expect={"most stay": True, "who takes over": ["one", "two"]},
)
async def test_few_move(stand: Stand) -> Observation:
    await offered_over_http(stand, "ring_hash", [_SOURCE_IP])
    before = await from_many(stand)
    await stand.deregister("three")
    await stand.settled()
    after = await from_many(stand)
    stayed = [after[address] == place for address, place in before.items() if place != "three"]
    return {"most stay": sum(stayed) > len(stayed) / 2, "who takes over": sorted(set(after.values()))}
