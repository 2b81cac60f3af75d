"""Which services are linked: explicit links and ``*``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.external import Handler
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.errors import ConsulError
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Links, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import MeshConnection, Refused

TOPIC = "Links"
TLS_NAME = "db.example"


@conformance(
    TOPIC,
    "A linked service is reached by who is allowed, and by nobody else",
    expect={"web": "echo", "cron": "refused"},
)
async def test_allowed_and_not(stand: Stand) -> Observation:
    await stand.offer()
    return {"web": await stand.outcome("web"), "cron": await stand.outcome("cron")}


@conformance(
    TOPIC,
    "An unlinked service is not served any more",
    expect={"before": "echo", "after": "refused"},
)
async def test_unlinked(stand: Stand) -> Observation:
    await stand.offer()
    before = await stand.outcome()
    await stand.unlink("db")
    await stand.kept_out()
    return {"before": before, "after": await stand.outcome()}


@conformance(
    TOPIC,
    "A service that has no instance is linked first and registered later",
    expect={"before": "refused", "after": "echo"},
)
async def test_linked_before_registered(stand: Stand) -> Observation:
    backend = await stand.backend()
    await stand.intention("web", "db")
    await stand.link("db")
    await stand.settled()
    before = await stand.outcome()
    await stand.register("db", backend.port)
    await stand.reached()
    return {"before": before, "after": await stand.outcome()}


@conformance(
    TOPIC,
    "An explicitly linked service loses its last instance and gets it back",
    expect={"without an instance": "refused", "with it again": "echo"},
)
async def test_last_instance_leaves_and_returns(stand: Stand) -> Observation:
    backend = await stand.offer()
    await stand.deregister()
    await stand.kept_out()
    without = await stand.outcome()
    await stand.register("db", backend.port)
    await stand.reached()
    return {"without an instance": without, "with it again": await stand.outcome()}


@conformance(
    TOPIC,
    "* links services as they are registered, and unlinks them with their last instance",
    expect={"registered before": "echo", "registered later": "echo", "deregistered": "refused"},
    own_consul={},
)
async def test_wildcard_follows_the_catalog(stand: Stand) -> Observation:
    for service in ("early", "late"):
        await stand.intention("web", service)
    backend = await stand.backend()
    await stand.register("early", backend.port)
    await stand.link_all()
    await stand.reached(service="early")
    early = await stand.outcome(service="early")
    await stand.register("late", backend.port, node="two")
    await stand.reached(service="late")
    late = await stand.outcome(service="late")
    await stand.deregister("two")
    await stand.kept_out(service="late")
    return {
        "registered before": early,
        "registered later": late,
        "deregistered": await stand.outcome(service="late"),
    }


@conformance(
    TOPIC,
    "An explicit link stands beside *: nothing of * is merged into it",
    expect={"of the explicit link without CAFile": "plain text", "of * with CAFile": "TLS"},
    own_consul={},
)
async def test_explicit_link_beside_the_wildcard(stand: Stand) -> Observation:
    sealed, plain = await offered(stand, "sealed"), await offered(stand, "plain")
    ca_file = Authority().write(stand.folder, "partners")
    await stand.link_all(CAFile=str(ca_file), SNI=TLS_NAME)
    await stand.link("plain")
    await stand.settled()
    return {
        "of the explicit link without CAFile": await arriving(stand, "plain", plain),
        "of * with CAFile": await arriving(stand, "sealed", sealed),
    }


@conformance(
    TOPIC,
    "An explicit link to a TLS service beside a plain *: another registration of that service changes nothing",
    envoy={"in Consul's list": "the TLS settings of *", "before": "TLS", "after": "plain text"},
    ours={"in Consul's list": "the TLS settings of *", "before": "TLS", "after": "TLS"},
    decision="010",
    own_consul={},
)
async def test_registering_again_beside_the_wildcard(stand: Stand) -> Observation:
    arrived = await offered(stand, "db")
    ca_file = Authority().write(stand.folder, "partners")
    await stand.link_all()
    await stand.link("db", CAFile=str(ca_file), SNI=TLS_NAME)
    before = await arriving(stand, "db", arrived, until="TLS")
    await stand.register("db", arrived.port, meta={"release": "2"})

    async def overwritten() -> bool:
        rows = await stand.agent.api("GET", f"/v1/catalog/gateway-services/{stand.gateway.name}")
        return not any(row.get("CAFile") for row in rows if row["Service"]["Name"] == stand.named("db"))

    await eventually(overwritten, what="Consul gives the explicit link's row the settings of *")
    await stand.settled()
    return {
        "in Consul's list": "the TLS settings of *",
        "before": before,
        "after": await arriving(stand, "db", arrived),
    }


@conformance(
    TOPIC,
    "Beside *, an explicitly linked service loses its last instance and gets it back: its link stays as it was",
    envoy={"afterwards": "plain text"},
    ours={"afterwards": "TLS"},
    decision="010",
    own_consul={},
)
async def test_last_instance_beside_the_wildcard(stand: Stand) -> Observation:
    arrived = await offered(stand, "db")
    ca_file = Authority().write(stand.folder, "partners")
    await stand.link_all()
    await stand.link("db", CAFile=str(ca_file), SNI=TLS_NAME)
    await arriving(stand, "db", arrived, until="TLS")
    await stand.deregister()
    await stand.kept_out()
    await stand.register("db", arrived.port)
    await arriving(stand, "db", arrived)
    await stand.settled()
    return {"afterwards": await arriving(stand, "db", arrived)}


@conformance(
    TOPIC,
    "An explicit link is removed from under *: the service goes on with the settings of *",
    expect={"with the explicit link": "TLS", "with * alone": "plain text"},
    own_consul={},
)
async def test_explicit_link_removed_from_under_the_wildcard(stand: Stand) -> Observation:
    arrived = await offered(stand, "db")
    ca_file = Authority().write(stand.folder, "partners")
    await stand.link_all()
    await stand.link("db", CAFile=str(ca_file), SNI=TLS_NAME)
    explicit = await arriving(stand, "db", arrived, until="TLS")
    await stand.unlink("db")
    wildcard = await arriving(stand, "db", arrived, until="plain text")
    return {"with the explicit link": explicit, "with * alone": wildcard}


@conformance(
    TOPIC,
    "* is not linked to consul itself, nor to gateways and sidecars",
    expect={"consul": "refused", "the gateway": "refused", "a sidecar": "refused", "a service": "echo"},
    own_consul={},
)
async def test_what_the_wildcard_leaves_out(stand: Stand) -> Observation:
    backend = await stand.backend()
    await stand.register("db", backend.port)
    await stand.intention("web", "*")
    service_name = await stand.server_name("db")
    names = {
        "consul": service_name.replace(stand.named("db"), "consul"),
        "the gateway": service_name.replace(stand.named("db"), stand.gateway.name),
        "a sidecar": service_name.replace(stand.named("db"), f"{stand.named('app')}-sidecar-proxy"),
    }
    async with in_mesh(stand, "app", backend.port):
        await stand.link_all()
        await stand.reached()
        await stand.settled()
        refused = {what: await stand.outcome(name=name) for what, name in names.items()}
        return {**refused, "a service": await stand.outcome()}


@conformance(
    TOPIC,
    "Two gateways share a service: each carries it, and unlinking it from one leaves the other alone",
    expect={"first": "echo", "second": "echo", "first, unlinked": "refused", "second, still linked": "echo"},
)
async def test_two_gateways(stand: Stand) -> Observation:
    await stand.offer()
    name = await stand.server_name("db")
    async with second_gateway(stand) as second, linked(stand, second, "db"):

        async def through_second() -> str:
            try:
                connection = await (await stand.client()).connect(second.address, second.port, name)
                async with connection:
                    return "echo" if await connection.exchange(b"ping") == b"ping" else "garbled"
            except (Refused, OSError):
                return REFUSED

        async def carried() -> bool:
            return await through_second() == "echo"

        await eventually(carried, 60.0, what=f"{stand.named('db')} is reached through {second.name}")
        both = {"first": await stand.outcome(), "second": await through_second()}
        await stand.unlink("db")
        await stand.kept_out()
        return {**both, "first, unlinked": await stand.outcome(), "second, still linked": await through_second()}


@conformance(
    TOPIC,
    "The terminating-gateway entry is deleted and written again",
    envoy={"deleted": "refused", "its live connection": "goes on", "written again": "echo"},
    ours={"deleted": "refused", "its live connection": "ended", "written again": "echo"},
    decision="004",
    own_consul={},
)
async def test_entry_deleted_and_written_again(stand: Stand) -> Observation:
    await stand.offer()
    async with stand.dial("web", "db") as live:
        await live.exchange(b"ping")
        await stand.agent.delete_config("terminating-gateway", stand.gateway.name)
        await stand.kept_out()
        deleted, goes_on = await stand.outcome(), await still_open(live)
    await stand.link("db")
    await stand.reached()
    return {"deleted": deleted, "its live connection": goes_on, "written again": await stand.outcome()}


@conformance(
    TOPIC,
    "A link gets its CAFile at run time: new connections follow",
    expect={"before": "plain text", "after": "TLS"},
)
async def test_link_rewritten(stand: Stand) -> Observation:
    arrived = await offered(stand, "db")
    await stand.link("db")
    # While it takes the link over, Envoy hands on what comes as it comes: the client's own TLS.
    before = await arriving(stand, "db", arrived, until="plain text")
    await stand.link("db", CAFile=str(Authority().write(stand.folder, "partners")))
    return {"before": before, "after": await arriving(stand, "db", arrived, until="TLS")}


@conformance(
    TOPIC,
    "A service has an instance with a sidecar and gets another outside the mesh, for a while",
    envoy={"with a sidecar alone": ["mesh"], "both": ["mesh", "out"], "the other one gone": ["mesh"]},
    ours={"with a sidecar alone": ["mesh"], "both": ["out"], "the other one gone": ["mesh"]},
    decision="011",
)
async def test_instances_inside_and_outside(stand: Stand) -> Observation:
    inside, outside = await stand.talker("mesh"), await stand.talker("out")
    await stand.intention("web", "db")
    await stand.link("db")
    async with in_mesh(stand, "db", inside.port):
        await answers_are(stand, ["mesh"])
        alone = await answers(stand)
        await stand.register("db", outside.port)
        both = await answers_are(stand, ["mesh", "out"], ["out"])
        await stand.deregister()
        await answers_are(stand, ["mesh"])
        return {"with a sidecar alone": alone, "both": both, "the other one gone": await answers(stand)}


@conformance(
    TOPIC,
    "* links a service of the mesh that also has instances outside of it",
    envoy={"answering": ["mesh", "one", "two"]},
    ours={"answering": ["one", "two"]},
    decision="011",
    own_consul={},
)
async def test_instances_inside_and_outside_under_the_wildcard(stand: Stand) -> Observation:
    inside = await stand.talker("mesh")
    for node in ("one", "two"):
        await stand.register("db", (await stand.talker(node)).port, node=node)
    await stand.intention("web", "db")
    async with in_mesh(stand, "db", inside.port):
        await stand.link_all()
        return {"answering": await answers_are(stand, ["mesh", "one", "two"], ["one", "two"])}


@conformance(
    TOPIC,
    "An instance of a linked service gets its sidecar at run time",
    envoy={"before": ["first", "out"], "after": ["first", "out"]},
    ours={"before": ["first", "out"], "after": ["out"]},
    decision="011",
)
async def test_sidecar_registered_later(stand: Stand) -> Observation:
    first, outside = await stand.talker("first"), await stand.talker("out")
    await stand.register("db", outside.port)
    await stand.intention("web", "db")
    await stand.link("db")
    async with in_mesh(stand, "db", first.port, sidecar=False):
        before = await answers_are(stand, ["first", "out"])
        async with in_mesh(stand, "db", first.port):
            await stand.settled()
            return {"before": before, "after": await answers_are(stand, ["first", "out"], ["out"])}


@conformance(
    TOPIC,
    "A service has a connect-native instance and one outside the mesh",
    envoy={"answering": ["native", "out"]},
    ours={"answering": ["out"]},
    decision="011",
)
async def test_native_instance(stand: Stand) -> Observation:
    native, outside = await stand.talker("native"), await stand.talker("out")
    await stand.register("db", outside.port)
    await stand.intention("web", "db")
    await stand.link("db")
    async with in_mesh(stand, "db", native.port, sidecar=False, native=True):
        await stand.settled()
        return {"answering": await answers_are(stand, ["native", "out"], ["out"])}


class Arrivals:
    """What comes first on each connection to a service: a TLS handshake or the client's own bytes."""

    def __init__(self) -> None:
        self.port = 0
        self.kinds: list[str] = []

    def handler(self) -> Handler:
        async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if data := await reader.read(4096):
                # 22 is the content type of a handshake (RFC 8446, section 5.1).
                self.kinds.append("TLS" if data[0] == 22 else "plain text")

        return note


async def offered(stand: Stand, service: str) -> Arrivals:
    """A service outside the mesh that notes what arrives, registered and allowed for ``web``; not linked."""
    arrivals = Arrivals()
    backend = await stand.backend(arrivals.handler())
    arrivals.port = backend.port
    await stand.register(service, backend.port)
    await stand.intention("web", service)
    return arrivals


async def arriving(stand: Stand, service: str, arrivals: Arrivals, *, until: str = "") -> str:
    """What a new connection brings to the service; with ``until``, wait for that."""
    arrivals.kinds.clear()

    async def seen() -> str:
        with contextlib.suppress(Refused, OSError):
            async with stand.dial("web", service) as connection:
                await connection.send(b"ping")
                await connection.ended()
        newest = arrivals.kinds[-1] if arrivals.kinds else ""
        return newest if until in ("", newest) else ""

    return str(await eventually(seen, 60.0, what=f"{until or 'something'} arrives at {stand.named(service)}"))


async def still_open(connection: MeshConnection) -> str:
    try:
        await connection.exchange(b"ping")
    except (Refused, OSError):
        return "ended"
    return "goes on"


@asynccontextmanager
async def in_mesh(
    stand: Stand, service: str, port: int, *, sidecar: bool = True, native: bool = False
) -> AsyncIterator[None]:
    """An instance of ``service`` on the agent; its ``sidecar`` is registered but does not run."""
    name = stand.named(service)
    connect: dict[str, Any] = {"Native": True} if native else {"SidecarService": {}} if sidecar else {}
    await stand.agent.register_service({"Name": name, "Address": "127.0.0.1", "Port": port, "Connect": connect})
    try:
        yield
    finally:
        with contextlib.suppress(ConsulError):
            await stand.agent.deregister_service(name)


async def answers(stand: Stand) -> list[str]:
    """Which talkers answer for ``db``, each once."""
    return sorted(await stand.tally(12))


async def answers_are(stand: Stand, *wanted: list[str]) -> list[str]:
    """Wait until the talkers that answer are ``wanted``, the set for Envoy's gateway first; return them."""
    expected = wanted[0] if stand.is_envoy else wanted[-1]

    async def found() -> list[str]:
        now = await answers(stand)
        return now if now == expected else []

    return list(await eventually(found, 60.0, what=f"{expected} answer for {stand.named('db')}"))


@asynccontextmanager
async def second_gateway(stand: Stand) -> AsyncIterator[Gateway | EnvoyTerminatingGateway]:
    """Another of the same kind."""
    name = stand.named("second-gateway")
    second: Gateway | EnvoyTerminatingGateway = (
        EnvoyTerminatingGateway(stand.agent, name)
        if stand.is_envoy
        else Gateway(stand.agent, stand.folder / "second", name)
    )
    async with second:
        yield second


@asynccontextmanager
async def linked(stand: Stand, gateway: Gateway | EnvoyTerminatingGateway, service: str) -> AsyncIterator[None]:
    """``service``, linked to a gateway of the case's own."""
    fields: dict[str, Any] = {}
    await Links(stand.agent, gateway.name).set(stand.named(service), fields)
    try:
        yield
    finally:
        await stand.agent.delete_config("terminating-gateway", gateway.name)
