"""Instances that are registered by a hostname: which of their addresses are used, and what faults of DNS do."""

from __future__ import annotations

import contextlib
import time

from plugin.dev.external import ExternalService, echo
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import Stand
from tests.support.dns_server import AAAA, A
from tests.support.eventually import eventually
from tests.support.ports import deaf, shared_port

TOPIC = "Hostnames"
MANY = 12
"""New connections that are made to see who answers."""
QUICKLY_S = 4.0
"""Less than the connect timeout, 5 s."""


async def named(stand: Stand, port: int, *addresses: str, name: str = "db", node: str = "one") -> str:
    """Register an instance of ``db`` by a hostname, link and allow it; the hostname."""
    hostname = stand.hostname(name)
    stand.dns.records[hostname] = list(addresses)
    stand.dns.ttls_s[hostname] = 1
    await stand.register("db", port, node, address=hostname)
    if node == "one":
        await stand.intention("web", "db")
        await stand.link("db")
    return hostname


async def talkers(stand: Stand, *addresses: str) -> int:
    """Talkers on all addresses and one port, which is returned; each is called by its address's last digits."""
    port = shared_port(addresses)
    for address in addresses:
        await stand.talker(address.rpartition(".")[2].rpartition(":")[2], address=address, port=port)
    return port


async def answered(stand: Stand, *, name: str = "") -> str:
    """Wait until somebody answers; who."""

    async def who() -> str:
        found = await stand.answering(name=name)
        return "" if found == "refused" else found

    return str(await eventually(who, 60.0, what=f"{stand.gateway.name} reaches db"))


async def quickly(stand: Stand) -> str:
    """The outcome of a new connection, if it comes soon."""
    began_s = time.monotonic()
    outcome = await stand.outcome()
    return outcome if outcome != "echo" or time.monotonic() - began_s < QUICKLY_S else "slow"


@conformance(
    TOPIC,
    "An instance with a hostname is reached by the address that its aliases lead to",
    expect={"outcome": "echo"},
)
async def test_aliases(stand: Stand) -> Observation:
    backend = await stand.backend()
    hostname = await named(stand, backend.port)
    first, second = stand.hostname("first"), stand.hostname("second")
    del stand.dns.records[hostname]
    stand.dns.aliases |= {hostname: first, first: second}
    stand.dns.records[second] = ["127.0.0.1"]
    await stand.reached()
    return {"outcome": await stand.outcome()}


@conformance(
    TOPIC,
    "New connections go to every address of a hostname",
    envoy={"addresses that answer": 1},
    ours={"addresses that answer": 3},
    decision="014",
)
async def test_many_addresses(stand: Stand) -> Observation:
    addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
    await named(stand, await talkers(stand, *addresses), *addresses)
    await answered(stand)
    return {"addresses that answer": len(await stand.tally(MANY))}


@conformance(
    TOPIC,
    "Every instance with a hostname is used",
    envoy={"instances that answer": 1},
    ours={"instances that answer": 3},
    decision="014",
)
async def test_many_hostnames(stand: Stand) -> Observation:
    for last in ("2", "3", "4"):
        talker = await stand.talker(last, address=f"127.0.0.{last}")
        await named(stand, talker.port, talker.address, name=f"db-{last}", node="one" if last == "2" else last)
    await stand.settled()
    await answered(stand)
    return {"instances that answer": len(await stand.tally(MANY))}


@conformance(
    TOPIC,
    "Instances with a hostname and instances with an address are used side by side",
    envoy={"who answers": ["name"]},
    ours={"who answers": ["addr", "name"]},
    decision="014",
)
async def test_hostname_beside_address(stand: Stand) -> Observation:
    by_name, by_address = await stand.talker("name"), await stand.talker("addr")
    await stand.register("db", by_address.port, "two")
    await named(stand, by_name.port, "127.0.0.1")
    await stand.settled()
    await answered(stand)
    return {"who answers": list(await stand.tally(MANY))}


@conformance(
    TOPIC,
    "A hostname that cannot be resolved does not take the instances with an address away",
    envoy={"outcome": "refused"},
    ours={"outcome": "echo"},
    decision="014",
)
async def test_unresolvable_beside_address(stand: Stand) -> Observation:
    backend = await stand.backend()
    await stand.register("db", backend.port, "two")
    hostname = await named(stand, backend.port)
    del stand.dns.records[hostname]
    await eventually(lambda: stand.dns.questions[hostname] > 0, 60.0, what=f"{hostname} is asked for")
    await stand.settled()
    return {"outcome": await stand.outcome()}


@conformance(
    TOPIC,
    "A hostname that has IPv6 addresses only is reached",
    envoy={"outcome": "refused"},
    ours={"outcome": "echo"},
    decision="014",
)
async def test_ipv6_alone(stand: Stand) -> Observation:
    backend = await stand.backend(address="::1")
    hostname = await named(stand, backend.port, "::1")
    await eventually(lambda: stand.dns.questions[hostname] > 0, 60.0, what=f"{hostname} is asked for")
    await stand.settled()
    return {"outcome": await stand.outcome()}


@conformance(
    TOPIC,
    "A hostname whose IPv4 address refuses or does not answer is reached by its IPv6 address",
    envoy={"refusing": "refused", "silent": "refused"},
    ours={"refusing": "echo", "silent": "echo"},
    decision="014",
)
async def test_ipv4_dead(stand: Stand) -> Observation:
    port = shared_port(["127.0.0.1", "::1"])
    await stand.backend(address="::1", port=port)
    hostname = await named(stand, port, "127.0.0.1", "::1")
    await eventually(lambda: stand.dns.questions[hostname] > 0, 60.0, what=f"{hostname} is asked for")
    await stand.settled()
    refusing = await quickly(stand)
    with deaf("127.0.0.1", port):
        return {"refusing": refusing, "silent": await quickly(stand)}


@conformance(
    TOPIC,
    "A hostname whose IPv6 address refuses or does not answer is reached by its IPv4 address",
    expect={"refusing": "echo", "silent": "echo"},
)
async def test_ipv6_dead(stand: Stand) -> Observation:
    port = shared_port(["127.0.0.1", "::1"])
    await stand.backend(port=port)
    await named(stand, port, "127.0.0.1", "::1")
    await stand.reached()
    refusing = await quickly(stand)
    with deaf("::1", port):
        return {"refusing": refusing, "silent": await quickly(stand)}


@conformance(
    TOPIC,
    "An address of a hostname that does not answer costs a moment, whichever it is",
    expect={"127.0.0.2 silent": "echo", "127.0.0.3 silent": "echo"},
)
async def test_one_of_two_addresses_silent(stand: Stand) -> Observation:
    addresses = ("127.0.0.2", "127.0.0.3")
    port = shared_port(addresses)
    await named(stand, port, *addresses)
    async with contextlib.AsyncExitStack() as stack:
        services = {
            one: await stack.enter_async_context(ExternalService(echo, address=one, port=port)) for one in addresses
        }
        await stand.reached()
        seen = {}
        for address, service in services.items():
            await service.stop()
            with deaf(address, port):
                seen[f"{address} silent"] = await quickly(stand)
            await service.start()
        return seen


@conformance(
    TOPIC,
    "When the address of a hostname changes, new connections go to the new one and live ones go on",
    expect={"before": "2", "after": "3", "live": "goes on"},
)
async def test_changed_address(stand: Stand) -> Observation:
    port = await talkers(stand, "127.0.0.2", "127.0.0.3")
    hostname = await named(stand, port, "127.0.0.2")
    before = await answered(stand)
    async with stand.dial("web", "db") as live:
        await live.receive_exactly(6)
        stand.dns.records[hostname] = ["127.0.0.3"]

        async def moved() -> bool:
            return await stand.answering() == "3"

        await eventually(moved, 60.0, what=f"{stand.gateway.name} follows the name")
        goes_on = await live.exchange(b"still there") == b"still there"
        return {"before": before, "after": await stand.answering(), "live": "goes on" if goes_on else "ended"}


@conformance(
    TOPIC,
    "A name server that fails leaves the last answer in force",
    expect={"SERVFAIL": "echo", "silence": "echo"},
)
async def test_server_fails(stand: Stand) -> Observation:
    backend = await stand.backend()
    hostname = await named(stand, backend.port, "127.0.0.1")
    await stand.reached()
    questions = {(hostname, A), (hostname, AAAA)}
    seen = {}
    for what, faulty in (("SERVFAIL", stand.dns.broken_for), ("silence", stand.dns.silent_for)):
        faulty |= questions
        # Each of the two families is asked for three times before that counts as a failure.
        await asked_again(stand, hostname, 7)
        seen[what] = await stand.outcome()
        faulty -= questions
    return seen


@conformance(TOPIC, "A name that does not exist any more leaves the last answer in force", expect={"after": "echo"})
async def test_name_is_gone(stand: Stand) -> Observation:
    backend = await stand.backend()
    hostname = await named(stand, backend.port, "127.0.0.1")
    await stand.reached()
    del stand.dns.records[hostname]
    await asked_again(stand, hostname, 3)
    return {"after": await stand.outcome()}


@conformance(TOPIC, "A name that has no address any more leaves the last answer in force", expect={"after": "echo"})
async def test_addresses_are_gone(stand: Stand) -> Observation:
    backend = await stand.backend()
    hostname = await named(stand, backend.port, "127.0.0.1")
    await stand.reached()
    stand.dns.records[hostname] = []
    await asked_again(stand, hostname, 3)
    return {"after": await stand.outcome()}


@conformance(
    TOPIC,
    "A service whose hostname is not answered does not keep another from being served",
    expect={"waiting": "refused", "other": "echo"},
)
async def test_unanswered_name(stand: Stand) -> Observation:
    backend = await stand.backend()
    hostname = stand.hostname("db")
    stand.dns.silent_for |= {(hostname, A), (hostname, AAAA)}
    await named(stand, backend.port, "127.0.0.1")
    await stand.register("other", backend.port, "two")
    await stand.intention("web", "other")
    await stand.link("other")
    await stand.reached(service="other")
    return {"waiting": await stand.outcome(), "other": await stand.outcome(service="other")}


async def asked_again(stand: Stand, hostname: str, times: int) -> None:
    """Wait until the gateway has asked so often that it must have seen how that goes."""
    asked = stand.dns.questions[hostname]

    def enough() -> bool:
        return stand.dns.questions[hostname] >= asked + times

    await eventually(enough, 120.0, what=f"{stand.gateway.name} asks for {hostname} {times} times")
