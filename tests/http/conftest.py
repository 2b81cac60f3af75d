"""A real Consul, a real sidecar and the gateway, with services of each protocol of layer 7 behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import Sidecar
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from tests.support.calls import Calls
from tests.support.eventually import eventually
from tests.support.linking import Links, serves
from tests.support.mesh_client import MeshClient
from tests.support.pages import Pages

GATEWAY, CLIENT = "http-gateway", "http-client"
PAGES, CALLS = "http-pages", "http-calls"
_PROTOCOLS = {PAGES: "http", CALLS: "grpc"}


@dataclass(frozen=True, kw_only=True)
class HTTPStage:
    agent: ConsulAgent
    gateway: Gateway
    ports: dict[str, int]
    """The sidecar's, by destination."""
    pages: Pages
    calls: Calls
    client: MeshClient = field(repr=False)
    """The sidecar's service, without its sidecar."""

    async def decide(self, service: str, action: str) -> None:
        """Write the only intention of ``service``, and wait until the workers have it."""
        sources = [{"Name": CLIENT, "Action": action}]
        await self.agent.write_config({"Kind": "service-intentions", "Name": service, "Sources": sources})
        await eventually(lambda: self._decided(service, action), what=f"{service} is under {action}")

    async def _decided(self, service: str, action: str) -> bool:
        snapshot = await self.gateway.snapshot()
        of_it = [one for one in snapshot["upserts"] if one["name"]["name"] == service]
        actions = [intention["action"] for one in of_it for intention in one["intentions"] or ()]
        if actions != [action]:
            return False
        await serves(self.gateway, service)
        return True


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HTTPStage]:
    folder: Path = tmp_path_factory.mktemp("http")
    ports = dict(zip((PAGES, CALLS), free_ports(2), strict=True))
    async with (
        Pages() as pages,
        Calls() as calls,
        ConsulAgent(folder / "consul", default_intention_policy="deny") as agent,
        Gateway(agent, folder, GATEWAY) as gateway,
    ):
        links = Links(agent, GATEWAY)
        for service, port in ((PAGES, pages.port), (CALLS, calls.port)):
            await agent.write_config({"Kind": "service-defaults", "Name": service, "Protocol": _PROTOCOLS[service]})
            await links.add(service, port)
        await serves(gateway, PAGES, CALLS)
        async with Sidecar(agent, CLIENT, list(ports.items())):
            stage = HTTPStage(
                agent=agent,
                gateway=gateway,
                ports=ports,
                pages=pages,
                calls=calls,
                client=await MeshClient.of(agent, CLIENT),
            )
            for service in (PAGES, CALLS):
                await stage.decide(service, "allow")
            yield stage
