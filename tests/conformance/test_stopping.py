"""What callers notice when a gateway is stopped the way service managers stop it (SIGTERM)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from plugin.dev.envoy import EnvoyTerminatingGateway
from plugin.dev.gateway import Gateway
from plugin.dev.processes import can_connect
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import Links, Stand
from tests.support.eventually import eventually
from tests.support.mesh_client import MeshConnection, Refused

TOPIC = "Stopping"


@asynccontextmanager
async def stoppable(stand: Stand) -> AsyncIterator[Stand]:
    """A gateway of the kind under test that this case may stop, with an echo service linked."""
    name = stand.named("gw")
    gateway: EnvoyTerminatingGateway | Gateway
    if stand.is_envoy:
        gateway = EnvoyTerminatingGateway(stand.agent, name)
    else:
        folder = stand.folder / "gateway"
        gateway = Gateway(stand.agent, folder, name, drain_delay_s=1.0, drain_timeout_s=60.0)
    own = Stand(stand.agent, gateway, Links(stand.agent, name), stand.folder / "own", stand.dns)
    async with own, gateway:
        await own.offer()
        yield own


def terminate(stand: Stand) -> None:
    assert stand.gateway.child is not None
    os.kill(stand.gateway.child.pid, signal.SIGTERM)


async def listens(stand: Stand) -> bool:
    return await asyncio.to_thread(can_connect, stand.gateway.address, stand.gateway.port)


async def offered(stand: Stand) -> bool:
    """Whether Consul offers it to sidecars."""
    rows = await stand.agent.api("GET", f"/v1/health/service/{stand.gateway.name}?passing=1")
    return bool(rows)


async def lives(connection: MeshConnection) -> bool:
    try:
        return await connection.exchange(b"ping") == b"ping"
    except (Refused, OSError):
        return False


@conformance(
    TOPIC,
    "SIGTERM: Envoy cuts live connections, and Consul goes on offering it; this gateway leaves Consul first, and lets"
    " live connections end",
    envoy={"offered when it refuses": True, "live connection": False},
    ours={"offered when it refuses": False, "live connection": True},
    decision="023",
)
async def test_terminated(stand: Stand) -> Observation:
    async with stoppable(stand) as own, own.dial("web", "db") as connection:
        assert await lives(connection)
        # Envoy's is offered when the agent has probed it, and will be probed again 10 s later.
        await eventually(lambda: offered(own), 60.0, what="Consul offers it")
        terminate(own)
        await eventually(lambda: _refuses(own), 60.0, what="new connections are refused")
        return {"offered when it refuses": await offered(own), "live connection": await lives(connection)}


async def _refuses(stand: Stand) -> bool:
    return not await listens(stand)
