"""Which instances of a service are used: health, weights, addresses, and what a dead one costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually
from tests.support.ports import shared_port

TOPIC = "Instances"
_ROUND = 24
"""Connections that are enough to meet every instance that is used, whatever the order: the odds against missing one
of three are beyond a million to one."""


async def offered(stand: Stand) -> None:
    """Link the service whose instances are registered, and wait until a connection is answered and all is quiet."""
    await stand.intention("web", "db")
    await stand.link("db")
    await answered(stand)
    await stand.settled()


async def answered(stand: Stand) -> str:
    """Who answers, once somebody does."""
    answers: list[str] = []

    async def served() -> bool:
        answers.append(await stand.answering())
        return answers[-1] != REFUSED

    await eventually(served, 60.0, what=f"somebody answers through {stand.gateway.name}")
    return answers[-1]


async def talkers(stand: Stand, statuses: Mapping[str, str], **fields: Any) -> None:
    """An instance for each name, with a check of that status."""
    for name, status in statuses.items():
        backend = await stand.talker(name)
        await stand.register("db", backend.port, node=name, check_status=status, **fields)


async def node_check(stand: Stand, node: str, status: str) -> None:
    """A check of the whole node, as ``serfHealth`` is."""
    name = stand.named(f"node-{node}")
    check = {"Node": name, "CheckID": "disk", "Name": "disk", "Status": status}
    body = {"Datacenter": stand.agent.datacenter, "Node": name, "SkipNodeUpdate": True, "Check": check}
    await stand.agent.api("PUT", "/v1/catalog/register", body)


@conformance(TOPIC, "Healthy instances share the connections", expect={"who answers": ["one", "two"]})
async def test_all_healthy(stand: Stand) -> Observation:
    await talkers(stand, {"one": "passing", "two": "passing"})
    await offered(stand)
    return {"who answers": list(await stand.tally(_ROUND))}


@conformance(TOPIC, "A critical instance is left out while most are healthy", expect={"who answers": ["one", "two"]})
async def test_critical_left_out(stand: Stand) -> Observation:
    await talkers(stand, {"one": "passing", "two": "passing", "three": "critical"})
    await offered(stand)
    return {"who answers": list(await stand.tally(_ROUND))}


@conformance(
    TOPIC,
    "An instance whose check warns is used",
    expect={"who answers": ["one", "two"]},
)
async def test_warning_used(stand: Stand) -> Observation:
    await talkers(stand, {"one": "passing", "two": "warning"})
    await offered(stand)
    return {"who answers": list(await stand.tally(_ROUND))}


@conformance(
    TOPIC,
    "Fewer than half of the instances are healthy",
    envoy={"who answers": ["one", "three", "two"]},
    ours={"who answers": ["one"]},
    decision="012",
)
async def test_few_healthy(stand: Stand) -> Observation:
    await talkers(stand, {"one": "passing", "two": "critical", "three": "critical"})
    await offered(stand)
    return {"who answers": list(await stand.tally(_ROUND))}


@conformance(TOPIC, "All instances are critical: all are used", expect={"who answers": ["one", "two"]})
async def test_all_critical(stand: Stand) -> Observation:
    await talkers(stand, {"one": "critical", "two": "critical"})
    await offered(stand)
    return {"who answers": list(await stand.tally(_ROUND))}


@conformance(
    TOPIC,
    "A check of the whole node takes its instance out, and lets it in again",
    expect={"critical": ["one", "two"], "passing": ["one", "three", "two"]},
)
async def test_node_check(stand: Stand) -> Observation:
    await talkers(stand, {"one": "passing", "two": "passing", "three": "passing"})
    await node_check(stand, "three", "critical")
    await offered(stand)
    critical = list(await stand.tally(_ROUND))
    await node_check(stand, "three", "passing")
    await stand.settled()
    return {"critical": critical, "passing": list(await stand.tally(_ROUND))}


@conformance(
    TOPIC,
    "The only instance is in maintenance mode",
    envoy={"before": "one", "in maintenance": "one", "after": "one"},
    ours={"before": "one", "in maintenance": "refused", "after": "one"},
    decision="012",
)
async def test_maintenance(stand: Stand) -> Observation:
    backend = await stand.talker("one")
    service = stand.named("db")
    path = f"/v1/agent/service/maintenance/{service}"
    await stand.agent.register_service({"Name": service, "Port": backend.port, "Address": "127.0.0.1"})
    try:
        await offered(stand)
        before = await stand.answering()
        await stand.agent.api("PUT", path, params={"enable": "true", "reason": "new disks"})
        await stand.settled()
        within = await stand.answering()
        await stand.agent.api("PUT", path, params={"enable": "false"})
        after = await answered(stand)
        return {"before": before, "in maintenance": within, "after": after}
    finally:
        await stand.agent.deregister_service(service)


@conformance(TOPIC, "Weights share the connections", expect={"three of four go to the heavier one": True})
async def test_weights(stand: Stand) -> Observation:
    for name, weight in (("heavy", 3), ("light", 1)):
        backend = await stand.talker(name)
        await stand.register("db", backend.port, node=name, weights={"Passing": weight, "Warning": 1})
    await offered(stand)
    counted = await stand.tally(40)
    return {"three of four go to the heavier one": abs(counted["heavy"] - 30) <= 2}


@conformance(
    TOPIC,
    "An instance whose check warns has its weight for warnings",
    expect={"three of four go to the one that passes": True},
)
async def test_weight_for_warnings(stand: Stand) -> Observation:
    for name, status in (("fine", "passing"), ("warned", "warning")):
        backend = await stand.talker(name)
        weights = {"Passing": 9, "Warning": 3}
        await stand.register("db", backend.port, node=name, weights=weights, check_status=status)
    await offered(stand)
    counted = await stand.tally(40)
    return {"three of four go to the one that passes": abs(counted["fine"] - 30) <= 2}


@conformance(TOPIC, "A weight of 0 for warnings takes a warned instance out", expect={"who answers": ["one", "two"]})
async def test_weight_of_nothing(stand: Stand) -> Observation:
    statuses = {"one": "passing", "two": "passing", "three": "warning"}
    await talkers(stand, statuses, weights={"Passing": 1, "Warning": 0})
    await offered(stand)
    return {"who answers": list(await stand.tally(_ROUND))}


@conformance(
    TOPIC,
    "Weights beyond 128 share the connections, too",
    envoy={"three of four go to the heavier one": False},
    ours={"three of four go to the heavier one": True},
    decision="012",
)
async def test_great_weights(stand: Stand) -> Observation:
    for name, weight in (("heavy", 30_000), ("light", 10_000)):
        backend = await stand.talker(name)
        await stand.register("db", backend.port, node=name, weights={"Passing": weight, "Warning": 1})
    await offered(stand)
    counted = await stand.tally(40)
    return {"three of four go to the heavier one": abs(counted["heavy"] - 30) <= 2}


@conformance(TOPIC, "Tagged addresses lan and wan are not dialled", expect={"who answers": ["one"]})
async def test_tagged_addresses(stand: Stand) -> Observation:
    plain, lan, wan = [await stand.talker(name) for name in ("one", "lan", "wan")]
    await stand.register("db", plain.port)
    await tag(stand, plain.port, lan=lan.port, wan=wan.port)
    await offered(stand)
    return {"who answers": list(await stand.tally(4))}


async def tag(stand: Stand, port: int, *, lan: int, wan: int) -> None:
    """Give the instance of ``register`` tagged addresses as well; ``port`` is its own."""
    node, service = stand.named("node-one"), stand.named("db")
    tagged = {"lan": {"Address": "127.0.0.1", "Port": lan}, "wan": {"Address": "127.0.0.1", "Port": wan}}
    instance = {"ID": f"{service}-{node}", "Service": service, "Address": "127.0.0.1", "Port": port}
    instance["TaggedAddresses"] = tagged
    body = {"Datacenter": stand.agent.datacenter, "Node": node, "SkipNodeUpdate": True, "Service": instance}
    await stand.agent.api("PUT", "/v1/catalog/register", body)


@conformance(TOPIC, "The address of the service is preferred to that of its node", expect={"answer": "one"})
async def test_service_address(stand: Stand) -> Observation:
    backend = await stand.talker("one")
    await stand.register("db", backend.port, address="127.0.0.9", service_address="127.0.0.1")
    await offered(stand)
    return {"answer": await stand.answering()}


@conformance(TOPIC, "An IPv6 address of the service, of the node", expect={"service": "one", "node": "one"})
async def test_ipv6(stand: Stand) -> Observation:
    backend = await stand.talker("one", address="::1")
    await stand.register("db", backend.port, service_address="::1")
    await offered(stand)
    of_service = await stand.answering()
    await stand.register("db", backend.port, address="::1")
    await stand.settled()
    return {"service": of_service, "node": await stand.answering()}


@conformance(TOPIC, "An instance that moves to another port is found there", expect={"who answers": ["two"]})
async def test_port_changes(stand: Stand) -> Observation:
    one, two = await stand.talker("one"), await stand.talker("two")
    await stand.register("db", one.port)
    await offered(stand)
    await stand.register("db", two.port)
    await stand.settled()
    return {"who answers": list(await stand.tally(4))}


@conformance(
    TOPIC,
    "A live connection goes on when its instance turns critical, and when it is deregistered",
    expect={"critical": "echo", "deregistered": "echo", "new": ["two"]},
)
async def test_live_connections_go_on(stand: Stand) -> Observation:
    one = await stand.talker("one")
    await stand.register("db", one.port, node="one")
    await offered(stand)
    async with stand.dial("web", "db") as connection:
        await connection.receive_exactly(6)
        two = await stand.talker("two")
        await stand.register("db", two.port, node="two")
        await stand.register("db", one.port, node="one", check_status="critical")
        await stand.settled()
        critical = await connection.exchange(b"still")
        await stand.deregister("one")
        await stand.settled()
        gone = await connection.exchange(b"there")
        return {
            "critical": "echo" if critical == b"still" else "garbled",
            "deregistered": "echo" if gone == b"there" else "garbled",
            "new": list(await stand.tally(6)),
        }


async def with_dead_instance(stand: Stand) -> None:
    alive = await stand.talker("alive")
    await stand.register("db", alive.port, node="alive")
    await stand.register("db", shared_port(["127.0.0.1"]), node="dead")
    await offered(stand)


@conformance(
    TOPIC,
    "One of two instances is dead, and no check says so: 40 connections, one after the other",
    envoy={"refused among the first 30": True, "refused among the last 10": True},
    ours={"refused among the first 30": False, "refused among the last 10": False},
    decision="012",
)
async def test_dead_instance(stand: Stand) -> Observation:
    await with_dead_instance(stand)
    first, last = await stand.tally(30), await stand.tally(10)
    return {"refused among the first 30": REFUSED in first, "refused among the last 10": REFUSED in last}


@conformance(
    TOPIC,
    "PassiveHealthCheck of service-defaults is for callers, and changes nothing at the gateway",
    envoy={"refused among the first 30": True, "refused among the last 10": True},
    ours={"refused among the first 30": False, "refused among the last 10": False},
    decision="012",
)
async def test_passive_health_check(stand: Stand) -> Observation:
    check = {"Interval": 10**9, "MaxFailures": 1, "EnforcingConsecutive5xx": 100, "MaxEjectionPercent": 100}
    await stand.config("service-defaults", "db", UpstreamConfig={"Defaults": {"PassiveHealthCheck": check}})
    await with_dead_instance(stand)
    first, last = await stand.tally(30), await stand.tally(10)
    return {"refused among the first 30": REFUSED in first, "refused among the last 10": REFUSED in last}


@conformance(
    TOPIC,
    "All instances are dead: a connection is refused, and the next ones are served when one is back",
    expect={"dead": "refused", "back": "back"},
)
async def test_all_dead(stand: Stand) -> Observation:
    ports = [shared_port(["127.0.0.1"]), shared_port(["127.0.0.1"])]
    for number, port in enumerate(ports):
        await stand.register("db", port, node=str(number))
    await stand.intention("web", "db")
    await stand.link("db")
    await stand.settled()
    dead = [await stand.answering() for _ in range(8)]
    await stand.talker("back", port=ports[1])
    return {"dead": " ".join(sorted(set(dead))), "back": await answered(stand)}
