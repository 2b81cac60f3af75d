"""``Proxy.Config`` of the gateway's own definition: what is bound, and how external services are reached.

The same definition is registered for both; Envoy's gateway and ours (``--no-register``) then read it from the agent.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Links, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import Refused

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
    "An address that the definition names later: Envoy binds it, this gateway says that it needs a restart",
    envoy={"registered": SERVED, "later": SERVED, "reported": False},
    ours={"registered": SERVED, "later": NOT, "reported": True},
    decision="017",
)
async def test_bound_later(stand: Stand) -> Observation:
    port, later = free_ports(2)
    async with defined(stand, port, {}) as own:
        await own.reached()
        await define(stand, port, {"envoy_gateway_bind_addresses": {"later": at(later)}})

        async def noticed() -> bool:
            return await outcome_at(own, later) == SERVED or bool(await reported(own))

        await eventually(noticed, 60.0, what="the new address is bound or reported")
        problem = await reported(own)
        seen = {"registered": await outcome_at(own, port), "later": await outcome_at(own, later)}
        return seen | {"reported": f"now binds 127.0.0.1:{port}, 127.0.0.1:{later}; restart" in problem}


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
