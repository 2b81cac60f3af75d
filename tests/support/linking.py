"""What an operator writes into Consul for one gateway, and waiting until the gateway has taken it over."""

from __future__ import annotations

import time
from typing import Any

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.errors import StartError
from tests.support.eventually import eventually
from tests.support.mesh_client import MeshClient, MeshConnection, Refused


class Links:
    """The terminating-gateway entry of one gateway, written anew with each link."""

    def __init__(self, agent: ConsulAgent, gateway_name: str) -> None:
        self.agent = agent
        self.gateway_name = gateway_name
        self._links: dict[str, dict[str, Any]] = {}

    async def add(self, service: str, port: int, **fields: Any) -> None:
        """Register an instance at loopback ``port`` and link it; ``fields`` are of the link (``CAFile``, ``SNI``)."""
        await self.agent.register_external(f"node-{service}", "127.0.0.1", service, port)
        await self.set(service, **fields)

    async def set(self, service: str, **fields: Any) -> None:
        """Link ``service``, which may be registered or not."""
        self._links[service] = {"Name": service, **fields}
        await self.write()

    async def remove(self, service: str) -> None:
        del self._links[service]
        await self.write()

    async def write(self) -> None:
        """Write the entry as it is; without any link it has no services."""
        services = list(self._links.values())
        await self.agent.write_config({"Kind": "terminating-gateway", "Name": self.gateway_name, "Services": services})


async def service_status(gateway: Gateway, service: str) -> dict[str, Any]:
    """What ``/api/status`` says of a linked service; empty when it says nothing."""
    try:
        services = (await gateway.status())["services"]
    except StartError:
        return {}
    return next((one for one in services if one["name"] == service), {})


async def serves(gateway: Gateway, *services: str) -> None:
    """Wait until every worker has the newest state, with all ``services`` in it."""

    async def all_in_force() -> bool:
        status = await gateway.status()
        by_name = {one["name"]: one for one in status["services"]}
        known = all(
            by_name[name]["served"] and not by_name[name]["reasons"] if name in by_name else False for name in services
        )
        return known and all(worker["generation"] == status["generation"] for worker in status["workers"])

    await eventually(all_in_force, 60.0, what=f"{gateway.name} serves {', '.join(services)}")


async def let_in(client: MeshClient, gateway: Gateway, service: str, timeout_s: float = 30.0) -> float:
    """Wait until a new connection of ``client`` to an echo ``service`` is carried; seconds that took."""
    began_s = time.monotonic()

    async def carried() -> bool:
        try:
            async with await dial(client, gateway, service) as connection:
                return await connection.exchange(b"ping") == b"ping"
        except Refused:
            return False

    await eventually(carried, timeout_s, what=f"{service} is reached through {gateway.name}")
    return time.monotonic() - began_s


async def kept_out(client: MeshClient, gateway: Gateway, service: str, timeout_s: float = 30.0) -> float:
    """Wait until a new connection of ``client`` to ``service`` is refused; seconds that took."""
    began_s = time.monotonic()

    async def refused() -> bool:
        try:
            async with await dial(client, gateway, service) as connection:
                await connection.exchange(b"ping")
        except Refused:
            return True
        return False

    await eventually(refused, timeout_s, what=f"{service} is refused by {gateway.name}")
    return time.monotonic() - began_s


async def dial(client: MeshClient, gateway: Gateway, service: str) -> MeshConnection:
    """A connection as a sidecar opens it. :raises Refused: when its handshake is refused."""
    name = client.server_name(service, datacenter=gateway.agent.datacenter)
    return await client.connect(gateway.address, gateway.port, name)


def sample(metrics: str, name: str, **labels: str) -> float:
    """The value of one sample of a Prometheus text, 0 when it is not there."""
    for line in metrics.splitlines():
        shown, _, value = line.rpartition(" ")
        base, _, rest = shown.partition("{")
        if base == name and all(f'{key}="{wanted}"' in rest for key, wanted in labels.items()):
            return float(value)
    return 0.0
