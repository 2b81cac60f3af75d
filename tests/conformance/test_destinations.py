"""Destinations: external services that stand in ``service-defaults``, not in the catalog.

They are dialled as a sidecar of a transparent proxy dials them: each address has a server name of its own.
"""

from __future__ import annotations

from typing import Any

from plugin.dev.pki import Authority
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually

TOPIC = "Destinations"
TLS_NAME = "partner.example"


@conformance(
    TOPIC,
    "A destination by IP address is reached under the server name of its address, by who is allowed",
    expect={"web": "echo", "cron": "refused"},
)
async def test_by_ip_address(stand: Stand) -> Observation:
    backend = await stand.backend()
    await destination(stand, "partner", "127.0.0.1", port=backend.port)
    name = await server_name(stand, "partner", "127.0.0.1")
    await stand.reached(name=name)
    return {"web": await stand.outcome("web", name=name), "cron": await stand.outcome("cron", name=name)}


@conformance(
    TOPIC, "A destination by IPv6 address is reached under the server name of its address", expect={"web": "echo"}
)
async def test_by_ipv6_address(stand: Stand) -> Observation:
    backend = await stand.backend(address="::1")
    await destination(stand, "partner", "::1", port=backend.port)
    name = await server_name(stand, "partner", "::1")
    await stand.reached(name=name)
    return {"web": await stand.outcome(name=name)}


@conformance(TOPIC, "A destination by hostname is reached, its name resolved by the gateway", expect={"web": "echo"})
async def test_by_hostname(stand: Stand) -> Observation:
    backend = await stand.backend()
    await destination(stand, "partner", "localhost", port=backend.port)
    name = await server_name(stand, "partner", "localhost")
    await stand.reached(name=name)
    return {"web": await stand.outcome(name=name)}


@conformance(
    TOPIC,
    "A destination with several addresses: each server name leads to its own address",
    expect={
        "127.0.0.1": "first",
        "127.0.0.2": "second",
        "localhost": "first",
        "an address it does not have": "refused",
    },
)
async def test_several_addresses(stand: Stand) -> Observation:
    first = await stand.talker("first")
    await stand.talker("second", address="127.0.0.2", port=first.port)
    await destination(stand, "partner", "127.0.0.1", "127.0.0.2", "localhost", port=first.port)
    names = {address: await server_name(stand, "partner", address) for address in ("127.0.0.1", "127.0.0.2")}
    names["localhost"] = await server_name(stand, "partner", "localhost")
    for name in names.values():
        await answered(stand, name)
    stranger = await server_name(stand, "partner", "127.0.0.3")
    answers = {address: await stand.answering(name=name) for address, name in names.items()}
    return {**answers, "an address it does not have": await stand.answering(name=stranger)}


@conformance(
    TOPIC,
    "A destination without an instance in the catalog does not answer to the service's own name",
    expect={"the address's name": "echo", "the service's name": "refused"},
)
async def test_the_services_own_name(stand: Stand) -> Observation:
    backend = await stand.backend()
    await destination(stand, "partner", "127.0.0.1", port=backend.port)
    name = await server_name(stand, "partner", "127.0.0.1")
    await stand.reached(name=name)
    return {
        "the address's name": await stand.outcome(name=name),
        "the service's name": await stand.outcome(service="partner"),
    }


@conformance(
    TOPIC,
    "The link's CAFile and SNI are for every address of a destination",
    expect={"by address": "echo", "by hostname": "echo", "asked for by SNI": ["partner.example"]},
)
async def test_tls_from_the_link(stand: Stand) -> Observation:
    authority = Authority()
    backend = await stand.backend(tls=authority.server(TLS_NAME))
    ca_file = authority.write(stand.folder, "partner")
    await destination(stand, "partner", "127.0.0.1", "localhost", port=backend.port, CAFile=str(ca_file), SNI=TLS_NAME)
    by_address = await server_name(stand, "partner", "127.0.0.1")
    by_hostname = await server_name(stand, "partner", "localhost")
    for name in (by_address, by_hostname):
        await stand.reached(name=name)
    return {
        "by address": await stand.outcome(name=by_address),
        "by hostname": await stand.outcome(name=by_hostname),
        "asked for by SNI": sorted({name or "" for name in backend.server_names}),
    }


@conformance(
    TOPIC,
    "A destination's server is not of the link's CAFile: no handshake with it succeeds",
    expect={"its CA": "echo", "another CA": "refused", "further handshakes": 0},
)
async def test_tls_with_a_stranger(stand: Stand) -> Observation:
    authority = Authority()
    backend = await stand.backend(tls=authority.server(TLS_NAME))
    its_ca = authority.write(stand.folder, "partner")
    another_ca = Authority("Another CA").write(stand.folder, "another")
    await destination(stand, "partner", "127.0.0.1", port=backend.port, CAFile=str(its_ca), SNI=TLS_NAME)
    name = await server_name(stand, "partner", "127.0.0.1")
    await stand.reached(name=name)
    before = await stand.outcome(name=name)
    await stand.link("partner", CAFile=str(another_ca), SNI=TLS_NAME)
    await stand.kept_out(name=name)
    accepted = backend.accepted
    return {
        "its CA": before,
        "another CA": await stand.outcome(name=name),
        "further handshakes": backend.accepted - accepted,
    }


@conformance(
    TOPIC,
    "A destination is registered in the catalog too: it answers to the service's own name as well",
    expect={"the service's name": "echo", "the address's name": "echo"},
)
async def test_registered_too(stand: Stand) -> Observation:
    backend = await stand.backend()
    await destination(stand, "partner", "127.0.0.1", port=backend.port)
    name = await server_name(stand, "partner", "127.0.0.1")
    await stand.reached(name=name)
    await stand.register("partner", backend.port)
    await stand.reached(service="partner")
    await stand.settled()
    return {
        "the service's name": await stand.outcome(service="partner"),
        "the address's name": await stand.outcome(name=name),
    }


@conformance(
    TOPIC,
    "* links destinations, when they are written and when they are taken away",
    expect={"written before": "echo", "written later": "echo", "taken away": "refused"},
    own_consul={},
)
async def test_under_the_wildcard(stand: Stand) -> Observation:
    backend = await stand.backend()
    await write(stand, "early", "127.0.0.1", port=backend.port)
    await stand.link_all()
    early, late = await server_name(stand, "early", "127.0.0.1"), await server_name(stand, "late", "localhost")
    await stand.reached(name=early)
    before = await stand.outcome(name=early)
    await write(stand, "late", "localhost", port=backend.port)
    await stand.reached(name=late)
    later = await stand.outcome(name=late)
    await stand.no_config("service-defaults", "late")
    await stand.kept_out(name=late)
    return {"written before": before, "written later": later, "taken away": await stand.outcome(name=late)}


@conformance(
    TOPIC,
    "service-defaults without Destination link nothing under *",
    expect={"a destination": "echo", "defaults alone": "refused"},
    own_consul={},
)
async def test_defaults_alone_under_the_wildcard(stand: Stand) -> Observation:
    backend = await stand.backend()
    await stand.intention("web", "alone")
    await stand.config("service-defaults", "alone", Protocol="tcp")
    await write(stand, "partner", "127.0.0.1", port=backend.port)
    await stand.link_all()
    name = await server_name(stand, "partner", "127.0.0.1")
    await stand.reached(name=name)
    return {"a destination": await stand.outcome(name=name), "defaults alone": await stand.outcome(service="alone")}


@conformance(
    TOPIC,
    "An address is exchanged at run time: the old server name is gone, the new one is served",
    expect={"old": "refused", "new": "echo"},
)
async def test_address_exchanged(stand: Stand) -> Observation:
    backend = await stand.backend()
    await destination(stand, "partner", "127.0.0.1", port=backend.port)
    old, new = [await server_name(stand, "partner", address) for address in ("127.0.0.1", "localhost")]
    await stand.reached(name=old)
    await write(stand, "partner", "localhost", port=backend.port)
    await stand.reached(name=new)
    await stand.kept_out(name=old)
    return {"old": await stand.outcome(name=old), "new": await stand.outcome(name=new)}


@conformance(
    TOPIC,
    "A deny of a destination's caller holds for every address",
    expect={"127.0.0.1": "refused", "localhost": "refused"},
)
async def test_denied(stand: Stand) -> Observation:
    backend = await stand.backend()
    await destination(stand, "partner", "127.0.0.1", "localhost", port=backend.port)
    names = {address: await server_name(stand, "partner", address) for address in ("127.0.0.1", "localhost")}
    for name in names.values():
        await stand.reached(name=name)
    await stand.intention("web", "partner", "deny")
    for name in names.values():
        await stand.kept_out(name=name)
    return {address: await stand.outcome(name=name) for address, name in names.items()}


async def destination(stand: Stand, service: str, *addresses: str, port: int, **link: Any) -> None:
    """A linked destination, allowed for ``web``."""
    await write(stand, service, *addresses, port=port)
    await stand.link(service, **link)


async def write(stand: Stand, service: str, *addresses: str, port: int) -> None:
    await stand.intention("web", service)
    await stand.config("service-defaults", service, Protocol="tcp", Destination={"Addresses": addresses, "Port": port})


async def server_name(stand: Stand, service: str, address: str) -> str:
    """What a sidecar sends for one address of a destination."""
    label = address.replace(".", "-").replace(":", "-")
    return f"destination.{label}.{await stand.server_name(service)}"


async def answered(stand: Stand, name: str) -> None:
    """Wait until a talker answers to ``name``."""

    async def answers() -> bool:
        return await stand.answering(name=name) != REFUSED

    await eventually(answers, 60.0, what=f"{name} is answered")
