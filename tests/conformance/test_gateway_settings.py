"""``Proxy.Config`` of the gateway's own definition: what is bound, and how external services are reached.

The same definition is registered for both; Envoy's gateway and ours (``--no-register``) then read it from the agent.
"""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from plugin.errors import StartError
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Links, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import MeshConnection, Refused
from tests.support.sockets import keepalive_s, remote_ports

TOPIC = "Gateway settings"
SERVED, NOT = "echo", "refused"


def at(port: int) -> dict[str, object]:
    return {"Address": "127.0.0.1", "Port": port}


async def define(stand: Stand, port: int, config: Mapping[str, Any], **fields: Any) -> None:
    """Register the gateway of this case with the agent."""
    name = stand.named("gw")
    definition = {
        "Kind": "terminating-gateway",
        "ID": name,
        "Name": name,
        **at(port),
        "Proxy": {"Config": dict(config)},
    }
    await stand.agent.register_service(definition | fields)


@asynccontextmanager
async def defined(
    stand: Stand, port: int, config: Mapping[str, Any], bound: int | None = None, **fields: Any
) -> AsyncIterator[Stand]:
    """A gateway of the kind under test that reads its definition from the agent, with an echo service linked.

    ``bound`` is a port that it listens on, if the registered ``port`` is none; ``fields`` are of the definition.
    """
    name = stand.named("gw")
    await define(stand, port, config, **fields)
    gateway: EnvoyTerminatingGateway | Gateway
    if stand.is_envoy:
        gateway = EnvoyTerminatingGateway(stand.agent, name, port=port, register=False)
    else:
        arguments = ["--no-register"]
        gateway = Gateway(stand.agent, stand.folder / "gateway", name, port=port, bound_port=bound, arguments=arguments)
    own = Stand(stand.agent, gateway, Links(stand.agent, name), stand.folder / "own", stand.dns)
    async with own:
        backend = await own.backend()
        await own.register("db", backend.port)
        await own.intention("web", "db")
        await own.link("db")
        async with gateway:
            yield own
    await stand.agent.deregister_service(name)


async def outcome_at(stand: Stand, port: int) -> str:
    client = await stand.client("web")
    try:
        async with await client.connect("127.0.0.1", port, await stand.server_name("db")) as connection:
            return "echo" if await connection.exchange(b"ping") == b"ping" else "garbled"
    except (Refused, OSError):
        return REFUSED


async def served_at(stand: Stand, **ports: int) -> dict[str, str]:
    """Which ports carry connections, once the gateway has come to rest and one of them does."""

    async def answers() -> dict[str, str]:
        return {name: await outcome_at(stand, port) for name, port in ports.items()}

    async def any_does() -> bool:
        return SERVED in (await answers()).values()

    await eventually(any_does, 60.0, what="one port carries connections")
    await stand.settled()
    return await answers()


@conformance(
    TOPIC,
    "envoy_gateway_bind_addresses are bound in addition to the registered address",
    expect={"registered": SERVED, "extra": SERVED},
)
async def test_bind_addresses(stand: Stand) -> Observation:
    port, extra = free_ports(2)
    async with defined(stand, port, {"envoy_gateway_bind_addresses": {"extra": at(extra)}}) as own:
        return await served_at(own, registered=port, extra=extra)


@conformance(
    TOPIC,
    "envoy_gateway_no_default_bind leaves the registered address out",
    expect={"registered": NOT, "extra": SERVED},
)
async def test_no_default_bind(stand: Stand) -> Observation:
    port, extra = free_ports(2)
    config = {"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_addresses": {"extra": at(extra)}}
    async with defined(stand, port, config, bound=extra) as own:
        return await served_at(own, registered=port, extra=extra)


@conformance(
    TOPIC,
    "An address in envoy_gateway_bind_addresses that this host lacks: Envoy leaves it out, this gateway does not start",
    envoy={"registered": SERVED, "extra": SERVED, "told at the start": False},
    ours={"registered": NOT, "extra": NOT, "told at the start": True},
    decision="017",
)
async def test_foreign_bind_address(stand: Stand) -> Observation:
    port, extra = free_ports(2)
    foreign = {"Address": "192.0.2.7", "Port": extra}
    config = {"envoy_gateway_bind_addresses": {"extra": at(extra), "foreign": foreign}}
    return await started_with(stand, config, "192.0.2.7", registered=port, extra=extra)


@conformance(
    TOPIC,
    "An address in envoy_gateway_bind_addresses that is none: Envoy leaves it out, this gateway does not start",
    envoy={"registered": SERVED, "extra": SERVED, "told at the start": False},
    ours={"registered": NOT, "extra": NOT, "told at the start": True},
    decision="017",
)
async def test_unusable_bind_address(stand: Stand) -> Observation:
    port, extra = free_ports(2)
    nonsense = {"Address": "not an address", "Port": extra}
    config = {"envoy_gateway_bind_addresses": {"extra": at(extra), "nonsense": nonsense}}
    return await started_with(stand, config, "nonsense", registered=port, extra=extra)


async def started_with(stand: Stand, config: Mapping[str, Any], named: str, **ports: int) -> dict[str, object]:
    """Which of ``ports`` carry connections, and whether the gateway ended at the start with ``named`` in its words."""
    try:
        async with defined(stand, ports["registered"], config, bound=None) as own:
            await own.settled()
            found = {name: await outcome_at(own, port) for name, port in ports.items()}
            return found | {"told at the start": False}
    except StartError as error:
        return {**dict.fromkeys(ports, NOT), "told at the start": named in str(error)}


@conformance(
    TOPIC,
    "envoy_gateway_bind_tagged_addresses binds the TaggedAddresses, also the registered one, which the agent adds",
    expect={"registered": SERVED, "lan": SERVED, "wan": SERVED},
)
async def test_bind_tagged_addresses(stand: Stand) -> Observation:
    port, lan, wan = free_ports(3)
    config = {"envoy_gateway_no_default_bind": True, "envoy_gateway_bind_tagged_addresses": True}
    tagged = {"lan": at(lan), "wan": at(wan)}
    async with defined(stand, port, config, bound=lan, TaggedAddresses=tagged) as own:
        return await served_at(own, registered=port, lan=lan, wan=wan)


@conformance(
    TOPIC,
    "The older names envoy_mesh_gateway_* mean the same, and numbers may be texts",
    expect={"registered": NOT, "extra": SERVED},
)
async def test_older_names(stand: Stand) -> Observation:
    port, extra = free_ports(2)
    config = {
        "envoy_mesh_gateway_no_default_bind": "true",
        "envoy_mesh_gateway_bind_addresses": {"extra": {"Address": "127.0.0.1", "Port": str(extra)}},
    }
    async with defined(stand, port, config, bound=extra) as own:
        return await served_at(own, registered=port, extra=extra)


@conformance(
    TOPIC,
    "An address that is named several times is bound once",
    expect={"registered": SERVED, "extra": SERVED},
)
async def test_bound_once(stand: Stand) -> Observation:
    port, extra = free_ports(2)
    config = {
        "envoy_gateway_bind_tagged_addresses": True,
        "envoy_gateway_bind_addresses": {"again": at(port), "extra": at(extra), "other": at(extra)},
    }
    async with defined(stand, port, config, TaggedAddresses={"lan": at(port), "wan": at(extra)}) as own:
        return await served_at(own, registered=port, extra=extra)


@conformance(
    TOPIC,
    "Addresses that the definition names, or leaves out, while the gateway runs are bound and closed; live connections"
    " stay",
    expect={
        "named": {"registered": SERVED, "later": SERVED},
        "left out": {"registered": SERVED, "later": NOT},
        "live": SERVED,
    },
)
async def test_bound_later(stand: Stand) -> Observation:
    port, later = free_ports(2)
    async with defined(stand, port, {}) as own:
        await own.reached()
        await define(stand, port, {"envoy_gateway_bind_addresses": {"later": at(later)}})
        named = await comes_to(own, SERVED, later)
        async with await connected_at(own, later) as connection:
            assert await connection.exchange(b"ping") == b"ping"
            seen = {"registered": await outcome_at(own, port), "later": named}
            await define(stand, port, {})
            left_out = {"later": await comes_to(own, NOT, later), "registered": await outcome_at(own, port)}
            live = SERVED if await connection.exchange(b"ping") == b"ping" else NOT
    return {"named": seen, "left out": left_out, "live": live}


@conformance(
    TOPIC,
    "An address that is taken is reported; the others that came with it are bound, and it is once it is free",
    envoy={"taken": NOT, "other": SERVED, "reported": False, "once free": SERVED},
    ours={"taken": NOT, "other": SERVED, "reported": True, "once free": SERVED},
    decision="017",
)
async def test_taken_later(stand: Stand) -> Observation:
    port, taken, other = free_ports(3)
    async with defined(stand, port, {}) as own:
        await own.reached()
        config = {"envoy_gateway_bind_addresses": {"a": at(taken), "b": at(other)}}
        with socket.create_server(("127.0.0.1", taken)):
            await define(stand, port, config)
            seen = {"other": await comes_to(own, SERVED, other)}
            seen["taken"] = await outcome_at(own, taken)
            reported_it = f"cannot listen on 127.0.0.1:{taken}: another process" in await reported(own)
        # Any change of the definition makes both look at it again.
        await define(stand, port, config | {"connect_timeout_ms": 1234})
        await own.settled()
        return seen | {"reported": reported_it, "once free": await outcome_at(own, taken)}


@conformance(
    TOPIC,
    "The keepalive keys of the definition reach the socket to the external service",
    expect={"first probe": "within 77 s"},
)
async def test_keepalive_of_the_socket(stand: Stand) -> Observation:
    (port,) = free_ports(1)
    prefix = "envoy_gateway_remote_tcp_"
    keys = {"enable_keepalive": True, "keepalive_time": 77, "keepalive_interval": "11", "keepalive_probes": 4}
    async with defined(stand, port, {f"{prefix}{key}": value for key, value in keys.items()}) as own:
        await own.reached()
        backend = await own.offer("later")
        await eventually(lambda: backend.connections == 0, what="the connections of before have ended")
        async with own.dial("web", "later") as connection:
            assert await connection.exchange(b"ping") == b"ping"
            (local,) = remote_ports(backend.port)
            first_s = await eventually(lambda: keepalive_s(local, backend.port), what="the socket has keepalive")
    return {"first probe": "within 77 s" if 60 < first_s <= 77 else f"after {first_s} s"}


async def connected_at(stand: Stand, port: int) -> MeshConnection:
    return await (await stand.client("web")).connect("127.0.0.1", port, await stand.server_name("db"))


async def comes_to(stand: Stand, wanted: str, port: int) -> str:
    async def does() -> bool:
        return await outcome_at(stand, port) == wanted

    await eventually(does, 60.0, what=f"port {port} comes to {wanted}")
    return wanted


@conformance(
    TOPIC,
    "connect_timeout_ms and the keepalive of the definition apply, and follow it while running",
    expect={
        "at the start": {"connect timeout": 0.25, "keepalive": {}},
        "later": {"connect timeout": 1.5, "keepalive": {"time": 30, "interval": 5, "probes": 3}},
    },
)
async def test_upstream_settings(stand: Stand) -> Observation:
    (port,) = free_ports(1)
    first = {"connect timeout": 0.25, "keepalive": {}}
    second = {"connect timeout": 1.5, "keepalive": {"time": 30, "interval": 5, "probes": 3}}
    prefix = "envoy_gateway_remote_tcp_"
    async with defined(stand, port, {"connect_timeout_ms": "250"}) as own:
        await own.reached()
        seen = await upstream_settings(own)
        config = {
            "connect_timeout_ms": 1500,
            f"{prefix}enable_keepalive": True,
            f"{prefix}keepalive_time": 30,
            f"{prefix}keepalive_interval": "5",
            f"{prefix}keepalive_probes": 3,
        }
        await define(stand, port, config)

        async def follows() -> bool:
            return await upstream_settings(own) == second

        assert seen == first, seen
        await eventually(follows, 60.0, what="the settings follow the definition")
        return {"at the start": seen, "later": await upstream_settings(own)}


async def reported(stand: Stand) -> str:
    if isinstance(stand.gateway, EnvoyTerminatingGateway):
        return ""
    return str((await stand.gateway.status())["registration"]["problem"])


async def upstream_settings(stand: Stand) -> dict[str, Any]:
    """How the gateway reaches the service of the case, as its own admin pages say."""
    if isinstance(stand.gateway, EnvoyTerminatingGateway):
        dump = json.loads(await stand.gateway.admin("/config_dump?resource=dynamic_active_clusters"))
        clusters = [one["cluster"] for one in dump["configs"]]
        (cluster,) = (one for one in clusters if one["name"].startswith(stand.named("db")))
        keepalive = cluster.get("upstream_connection_options", {}).get("tcp_keepalive", {})
        keys = {"time": "keepalive_time", "interval": "keepalive_interval", "probes": "keepalive_probes"}
        found = {name: keepalive[key] for name, key in keys.items() if key in keepalive}
        return {"connect timeout": float(cluster["connect_timeout"].removesuffix("s")), "keepalive": found}
    (service,) = (await stand.gateway.snapshot())["upserts"]
    keepalive = service["keepalive"] or {}
    keys = {"time": "time_s", "interval": "interval_s", "probes": "probes"}
    found = {name: keepalive[key] for name, key in keys.items() if key in keepalive}
    return {"connect timeout": service["connect_timeout_s"], "keepalive": found}
