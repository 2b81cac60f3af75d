"""A gateway that starts while Consul is away, with the state that it saved: real agent, real processes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.processes import can_connect, free_ports
from plugin.saved_state import form
from tests.support.command import consul_tgw
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, sample, serves
from tests.support.mesh_client import MeshClient, Refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCE, STRANGER, GATEWAY = "saved-client", "saved-stranger", "saved-gateway"
KEPT, UNLINKED = "saved-db", "saved-old"
START_S = 6.0
"""On a machine with two idle cores 0.7 s, of which nearly all is Python importing modules, in two processes."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    async with ExternalService(echo) as service:
        yield service


async def reaches(client: MeshClient, gateway: Gateway, service: str) -> bool:
    try:
        async with await dial(client, gateway, service) as connection:
            return await connection.exchange(b"ping") == b"ping"
    except Refused:
        return False


async def is_saved(folder: Path, *services: str) -> None:
    """Wait until everything about ``services`` is in the file."""

    def complete() -> bool:
        for found in folder.glob("*.state"):
            saved = {one.name.name: one for one in form.decode(found.read_bytes()).services}
            if all(name in saved and saved[name].leaf and saved[name].intentions for name in services):
                return True
        return False

    await eventually(complete, what="the state is saved")


async def test_it_starts_and_serves_while_consul_is_away(backend: ExternalService, work_dir: Path) -> None:
    folder = work_dir / "state"
    async with ConsulAgent(work_dir / "consul", persistent=True, default_intention_policy="deny") as agent:
        links = Links(agent, GATEWAY)
        for service in (KEPT, UNLINKED):
            await links.add(service, backend.port)
            await agent.write_intention(SOURCE, service)
        client, stranger = await MeshClient.of(agent, SOURCE), await MeshClient.of(agent, STRANGER)
        gateway = Gateway(agent, work_dir, GATEWAY, arguments=[f"--state-dir={folder}"])
        async with gateway:
            await serves(gateway, KEPT, UNLINKED)
            await is_saved(folder, KEPT, UNLINKED)
        await links.remove(UNLINKED)
        await agent.kill()
        began_s = time.monotonic()
        async with gateway:
            await let_in(client, gateway, KEPT)
            took_s = time.monotonic() - began_s
            assert took_s < START_S * SCALE, f"it took {took_s:.2f} s"
            run = f"--runtime-dir={work_dir / 'run'}"
            said = await consul_tgw("events", "--json", run, environment=agent.cli_environment())
            names = [one["event"] for one in said.json["events"]]
            assert [one for one in names if one in ("gateway.started", "gateway.stopping")] == [
                *("gateway.started", "gateway.stopping", "gateway.started"),
            ]
            assert [one["number"] for one in said.json["events"]] == list(range(1, len(names) + 1))
            status = await gateway.status()
            assert status["ready"]
            assert status["restored_from_s"] > 0
            assert status["consul_away"]
            assert sample(await gateway.metrics(), "consul_tgw_saved_state_in_force") == 1
            assert not await reaches(stranger, gateway, KEPT)
            # Consul has not said yet that it is gone.
            assert await reaches(client, gateway, UNLINKED)
            async with await dial(client, gateway, KEPT) as live:
                assert await live.exchange(b"before") == b"before"
                await agent.start()
                await kept_out(client, gateway, UNLINKED)

                async def confirmed() -> bool:
                    now = await gateway.status()
                    return not now["restored_from_s"] and now["registration"]["registered"]

                await eventually(confirmed, what="Consul has confirmed everything")
                assert await live.exchange(b"after") == b"after"


async def test_another_consul_does_not_get_the_state_of_the_former(backend: ExternalService, work_dir: Path) -> None:
    """An agent that lost its data, while the gateway was down: nobody is let in who was denied."""
    folder = work_dir / "state"
    async with ConsulAgent(work_dir / "consul") as agent:
        links = Links(agent, GATEWAY)
        await links.add(KEPT, backend.port)
        await agent.write_intention(STRANGER, KEPT, "deny")
        client, stranger = await MeshClient.of(agent, SOURCE), await MeshClient.of(agent, STRANGER)
        gateway = Gateway(agent, work_dir, GATEWAY, arguments=[f"--state-dir={folder}"])
        async with gateway:
            await serves(gateway, KEPT)
            await let_in(client, gateway, KEPT)
            await is_saved(folder, KEPT)
        await agent.restart()
        async with gateway:

            async def noticed() -> bool:
                return "trust domain" in (await gateway.status())["consul_away"]

            await eventually(noticed, what="the gateway knows that this is another Consul")
            assert await reaches(client, gateway, KEPT)
            assert not await reaches(stranger, gateway, KEPT)
            # With the entry, everything is the new one's.
            await links.add(KEPT, backend.port)
            await let_in(await MeshClient.of(agent, SOURCE), gateway, KEPT)
            assert not await reaches(client, gateway, KEPT)


async def test_where_it_listened_is_known_without_the_agent(backend: ExternalService, work_dir: Path) -> None:
    """``--no-register``: the definition that says so is with an agent that is away, or does not answer."""
    name, folder = "saved-elsewhere", work_dir / "elsewhere"
    flagged, bound = free_ports(2)
    definition = {
        "Kind": "terminating-gateway",
        "Name": name,
        "Address": "127.0.0.1",
        "Port": flagged,
        "Proxy": {
            "Config": {
                "envoy_gateway_no_default_bind": True,
                "envoy_gateway_bind_addresses": {"own": {"Address": "127.0.0.1", "Port": bound}},
            }
        },
    }
    async with ConsulAgent(work_dir / "consul", persistent=True, default_intention_policy="deny") as agent:
        await Links(agent, name).add(KEPT, backend.port)
        await agent.write_intention(SOURCE, KEPT)
        await agent.api("PUT", "/v1/agent/service/register", definition)
        client = await MeshClient.of(agent, SOURCE)
        arguments = ["--no-register", f"--state-dir={folder}"]
        gateway = Gateway(agent, work_dir, name, port=flagged, bound_port=bound, arguments=arguments)
        async with gateway:
            await serves(gateway, KEPT)
            await is_saved(folder, KEPT)
        await agent.kill()
        for _ in range(2):
            gateway.port, began_s = flagged, time.monotonic()
            async with gateway:
                gateway.port = bound
                await let_in(client, gateway, KEPT)
                took_s = time.monotonic() - began_s
                assert took_s < START_S * SCALE, f"it took {took_s:.2f} s"
                assert not can_connect("127.0.0.1", flagged)
