"""Leaves and roots are replaced under live connections, by a real Consul CA."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, let_in, serves
from tests.support.mesh_client import MeshClient, MeshConnection, Refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, SERVICE, SOURCES = "rotating-gateway", "rotating-echo", ("rotating-one", "rotating-two")


@dataclass(frozen=True, kw_only=True)
class Stage:
    agent: ConsulAgent
    gateway: Gateway
    folder: Path

    async def roots(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.agent.api("GET", "/v1/agent/connect/ca/roots")
        return found

    async def configure_ca(self, **config: Any) -> None:
        path = self.folder / "ca.json"
        path.write_text(json.dumps({"Provider": "consul", "Config": config}))
        await self.agent.cli("connect", "ca", "set-config", f"-config-file={path}")

    async def new_root(self) -> None:
        before = await self.roots()
        authority = Authority("Next mesh root", trust_domain=before["TrustDomain"])
        await self.configure_ca(PrivateKey=authority.private_key_pem, RootCert=authority.certificate_pem)
        after = await self.roots()
        assert after["ActiveRootID"] != before["ActiveRootID"]
        # Consul lists the old one for as long as leaves of it live.
        assert before["ActiveRootID"] in [root["ID"] for root in after["Roots"]]

    async def served_serial(self, client: MeshClient) -> int:
        async with await dial(client, self.gateway, SERVICE) as connection:
            await carries(connection, 1)
            return connection.served_certificate.serial_number


@pytest_asyncio.fixture(loop_scope="session")
async def stage(work_dir: Path) -> AsyncIterator[Stage]:
    async with ConsulAgent(work_dir / "consul") as agent, ExternalService(echo) as backend:
        await Links(agent, GATEWAY).add(SERVICE, backend.port)
        async with Gateway(agent, work_dir, GATEWAY, workers=2) as gateway:
            await serves(gateway, SERVICE)
            yield Stage(agent=agent, gateway=gateway, folder=work_dir)


@pytest_asyncio.fixture(loop_scope="session")
async def short_leaves(work_dir: Path) -> AsyncIterator[Stage]:
    """Leaves that live for a minute, after the minute that Consul dates them back. Its least is an hour, unless it is
    told not to look."""
    short = 'connect { ca_config { leaf_cert_ttl = "120s" SkipValidate = true } }'
    async with ConsulAgent(work_dir / "consul", extra_hcl=short) as agent, ExternalService(echo) as backend:
        await Links(agent, GATEWAY).add(SERVICE, backend.port)
        async with Gateway(agent, work_dir, GATEWAY) as gateway:
            await serves(gateway, SERVICE)
            yield Stage(agent=agent, gateway=gateway, folder=work_dir)


async def carries(connection: MeshConnection, exchanges: int) -> None:
    for number in range(exchanges):
        message = b"exchange %d" % number
        assert await connection.exchange(message) == message


async def test_a_new_root_is_not_felt(stage: Stage) -> None:
    """New handshakes get a leaf of the new root; clients that have not rotated yet are let in; nobody is cut."""
    old = [await MeshClient.of(stage.agent, source) for source in SOURCES]
    before = await stage.served_serial(old[0])
    async with AsyncExitStack() as stack:
        live = [
            await stack.enter_async_context(await dial(client, stage.gateway, SERVICE))
            for client in old
            for _ in range(3)
        ]
        for connection in live:
            await carries(connection, 1)
        await stage.new_root()
        new = [await MeshClient.of(stage.agent, source) for source in SOURCES]
        assert all(one.leaf != other.leaf for one, other in zip(old, new, strict=True))

        async def rotated() -> bool:
            return await stage.served_serial(new[0]) != before

        await eventually(rotated, 60.0, what="new handshakes get the new leaf")
        newest_root = active_root(await stage.roots())
        only_new = MeshClient(roots_pem=newest_root, trust_domain=new[0].trust_domain, leaf=new[0].leaf)
        assert await stage.served_serial(only_new) != before
        for client in new:
            await let_in(client, stage.gateway, SERVICE)
        # The old root is still listed: leaves of it get in, from a client that knows both roots by now.
        for client, renewed in zip(old, new, strict=True):
            behind = MeshClient(roots_pem=renewed.roots_pem, trust_domain=client.trust_domain, leaf=client.leaf)
            await let_in(behind, stage.gateway, SERVICE)
        for connection in live:
            await carries(connection, 10)
    ended = {one["reason"] for one in stage.gateway.access_records() if one.get("service") == SERVICE}
    assert ended <= {"client_eof", "client_reset"}


def active_root(roots: dict[str, Any]) -> str:
    """The active root alone."""
    return "".join(root["RootCert"] for root in roots["Roots"] if root["Active"])


async def test_handshakes_succeed_at_every_moment_of_a_rotation(stage: Stage) -> None:
    """A client as a sidecar is: it has the newest leaf and all roots; it never meets a refusal."""
    client = await MeshClient.of(stage.agent, SOURCES[0])
    finished = asyncio.Event()
    refusals: list[str] = []
    handshakes = 0

    async def hammer() -> None:
        nonlocal client, handshakes
        while not finished.is_set():
            try:
                async with await dial(client, stage.gateway, SERVICE) as connection:
                    await carries(connection, 1)
                    handshakes += 1
            except Refused as refused:
                refusals.append(refused.alert)
            client = await MeshClient.of(stage.agent, SOURCES[0])

    before = await stage.served_serial(client)
    async with asyncio.TaskGroup() as group:
        group.create_task(hammer())
        await stage.new_root()

        async def rotated() -> bool:
            return await stage.served_serial(client) != before

        await eventually(rotated, 60.0, what="the gateway serves its new leaf")
        so_far = handshakes
        await eventually(lambda: handshakes > so_far + 5, what="some more handshakes")
        finished.set()
    assert refusals == []


async def test_leaves_are_renewed_by_age_under_live_connections(short_leaves: Stage) -> None:
    clients = [await MeshClient.of(short_leaves.agent, source) for source in SOURCES]
    async with AsyncExitStack() as stack:
        live = [
            await stack.enter_async_context(await dial(client, short_leaves.gateway, SERVICE)) for client in clients
        ]
        first = live[0].served_certificate
        for connection in live:
            await carries(connection, 1)

        async def renewed() -> bool:
            client = await MeshClient.of(short_leaves.agent, SOURCES[0])
            async with await dial(client, short_leaves.gateway, SERVICE) as connection:
                await carries(connection, 1)
                newest = connection.served_certificate
            return (
                newest.serial_number != first.serial_number and newest.not_valid_after_utc > first.not_valid_after_utc
            )

        await eventually(renewed, 90.0, what="the next leaf is served")
        # It came before the first one was of no use any more, and from the same root.
        assert datetime.datetime.now(datetime.UTC) < first.not_valid_after_utc
        for connection in live:
            await carries(connection, 10)
