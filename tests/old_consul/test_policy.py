"""Intentions as Consul 1.8 keeps them, one by one and without config entries, on new and on live connections."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.external import ExternalService
from plugin.dev.gateway import Gateway
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves
from tests.support.mesh_client import MeshClient, MeshConnection, Refused
from tests.support.old_consul_agent import OldConsulAgent

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY = "old-policy-gateway"
WITHIN_S = 1.0
"""From the write of an intention to its effect; milliseconds on a quiet machine."""


class Stage:
    def __init__(self, agent: OldConsulAgent, gateway: Gateway, backend: ExternalService) -> None:
        self.agent = agent
        self.gateway = gateway
        self._links = Links(agent, gateway.name)
        self._backend = backend

    async def link(self, *services: str) -> None:
        for service in services:
            await self._links.add(service, self._backend.port)
        await serves(self.gateway, *services)

    async def client(self, name: str) -> MeshClient:
        return await MeshClient.of(self.agent, name)

    async def let_in(self, source: str, service: str) -> None:
        await let_in(await self.client(source), self.gateway, service)

    async def allowed(self, source: str, service: str) -> bool:
        """Of a new connection, at this moment."""
        try:
            async with await dial(await self.client(source), self.gateway, service) as connection:
                return await connection.exchange(b"ping") == b"ping"
        except Refused:
            return False


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(
    old_agent: OldConsulAgent, backend: ExternalService, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """Default deny; two workers."""
    async with Gateway(old_agent, tmp_path_factory.mktemp(GATEWAY), GATEWAY, workers=2) as gateway:
        yield Stage(old_agent, gateway, backend)


async def carries(connection: MeshConnection, exchanges: int) -> None:
    for number in range(exchanges):
        message = b"exchange %d" % number
        assert await connection.exchange(message) == message


async def test_a_linked_service_is_reached_with_an_intention_and_not_without(stage: Stage) -> None:
    service, source = "old-policy-db", "old-policy-web"
    await stage.link(service)
    assert (await stage.gateway.status())["default_action"] == "deny"
    assert not await stage.allowed(source, service)
    await stage.agent.write_intention(source, service)
    await stage.let_in(source, service)
    async with await dial(await stage.client(source), stage.gateway, service) as connection:
        await carries(connection, 10)
        assert connection.served_spiffe_id.endswith(f"/ns/default/dc/dc1/svc/{service}")
    assert not await stage.allowed("old-policy-stranger", service)


async def test_a_deny_ends_the_live_connections_of_its_source_alone(stage: Stage) -> None:
    service, kept, lost = "old-policy-live", "old-policy-kept", "old-policy-lost"
    await stage.link(service)
    for source in (kept, lost):
        await stage.agent.write_intention(source, service)
        await stage.let_in(source, service)
    # Several of each, so that both workers carry some.
    kept_open = [await dial(await stage.client(kept), stage.gateway, service) for _ in range(6)]
    lost_open = [await dial(await stage.client(lost), stage.gateway, service) for _ in range(6)]
    for connection in kept_open + lost_open:
        await carries(connection, 1)
    began_s = time.monotonic()
    await stage.agent.write_intention(lost, service, "deny")
    for connection in lost_open:
        await connection.ended()
    assert time.monotonic() - began_s < WITHIN_S * SCALE
    assert not await stage.allowed(lost, service)
    for connection in kept_open:
        await carries(connection, 10)
        connection.close()
    await stage.agent.write_intention(lost, service)
    await stage.let_in(lost, service)


async def test_deleting_the_last_intention_ends_it(stage: Stage) -> None:
    service, source = "old-policy-deleted", "old-policy-deleted-client"
    await stage.link(service)
    await stage.agent.write_intention(source, service)
    await stage.let_in(source, service)
    async with await dial(await stage.client(source), stage.gateway, service) as connection:
        await carries(connection, 1)
        await stage.agent.delete_intention(source, service)
        await connection.ended()
    assert not await stage.allowed(source, service)


async def test_any_source_and_an_exact_one(stage: Stage) -> None:
    service = "old-policy-any"
    await stage.link(service)
    await stage.agent.write_intention("*", service)
    await stage.agent.write_intention("old-policy-any-out", service, "deny")
    await stage.let_in("old-policy-any-in", service)
    await kept_out(await stage.client("old-policy-any-out"), stage.gateway, service)


async def test_the_destination_counts_before_the_source(stage: Stage) -> None:
    """``* -> closed`` has precedence 8, ``web -> *`` 6: the deny decides; an exact allow (9) decides over it."""
    service, other, source = "old-policy-closed", "old-policy-other", "old-policy-any-web"
    await stage.link(service, other)
    try:
        await stage.agent.write_intention(source, "*")
        await stage.let_in(source, service)
        async with await dial(await stage.client(source), stage.gateway, service) as connection:
            await carries(connection, 1)
            await stage.agent.write_intention("*", service, "deny")
            await connection.ended()
        assert not await stage.allowed(source, service)
        assert await stage.allowed(source, other)
        await stage.agent.write_intention(source, service)
        await stage.let_in(source, service)
        assert not await stage.allowed("old-policy-closed-stranger", service)
    finally:
        await stage.agent.delete_intention(source, "*")


async def test_the_access_log_names_the_intention_that_decided(stage: Stage) -> None:
    service, source = "old-policy-logged", "old-policy-logged-client"
    await stage.link(service)
    await stage.agent.write_intention(source, service)
    await stage.let_in(source, service)

    def logged() -> list[dict[str, object]]:
        return [one for one in stage.gateway.access_records() if one.get("service") == service and one["source"]]

    (first, *_) = await eventually(lambda: [one for one in logged() if one["verdict"] == "allowed"])
    assert first["precedence"] == 9


async def test_without_acls_what_no_intention_matches_is_allowed(backend: ExternalService, work_dir: Path) -> None:
    service, source = "old-open", "old-open-client"
    async with (
        OldConsulAgent(work_dir / "consul") as agent,
        Gateway(agent, work_dir, "old-open-gateway") as gateway,
    ):
        open_stage = Stage(agent, gateway, backend)
        await open_stage.link(service)
        await open_stage.let_in(source, service)
        assert (await gateway.status())["default_action"] == "allow"
        async with await dial(await open_stage.client(source), gateway, service) as connection:
            await carries(connection, 1)
            await agent.write_intention(source, service, "deny")
            await connection.ended()
        assert await open_stage.allowed("old-open-other", service)
        await agent.delete_intention(source, service)
        await open_stage.let_in(source, service)
