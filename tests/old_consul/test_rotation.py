"""Leaves and roots of Consul 1.8 are replaced under live connections.

Its agent renews a leaf for blocking reads alone, so a client of a service that was never asked for is the only one with
a leaf of the newest root at once.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin.dev.external import ExternalService
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, let_in, serves
from tests.support.mesh_client import MeshClient, MeshConnection
from tests.support.old_consul_agent import OldConsulAgent

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, SERVICE, SOURCES = "old-rotating-gateway", "old-rotating", ("old-rotating-one", "old-rotating-two")
ROTATION_S = 60.0
"""An agent spreads the renewal of its leaves over 30 s after the signing key changed."""


@asynccontextmanager
async def serving(
    work_dir: Path, backend: ExternalService, *, extra_hcl: str = "", arguments: Sequence[str] = ()
) -> AsyncIterator[tuple[OldConsulAgent, Gateway]]:
    """Default allow."""
    async with OldConsulAgent(work_dir / "consul", extra_hcl=extra_hcl) as agent:
        await Links(agent, GATEWAY).add(SERVICE, backend.port)
        async with Gateway(agent, work_dir, GATEWAY, workers=2, arguments=arguments) as gateway:
            await serves(gateway, SERVICE)
            yield agent, gateway


async def roots_of(agent: OldConsulAgent) -> dict[str, Any]:
    found: dict[str, Any] = await agent.api("GET", "/v1/agent/connect/ca/roots")
    return found


async def new_root(agent: OldConsulAgent, folder: Path) -> str:
    """The certificate of a new active root; the one before stays listed."""
    before = await roots_of(agent)
    authority = Authority("Next mesh root", trust_domain=before["TrustDomain"])
    config = {"PrivateKey": authority.private_key_pem, "RootCert": authority.certificate_pem}
    path = folder / "ca.json"
    path.write_text(json.dumps({"Provider": "consul", "Config": config}))
    await agent.cli("connect", "ca", "set-config", f"-config-file={path}")
    after = await roots_of(agent)
    assert after["ActiveRootID"] != before["ActiveRootID"]
    assert before["ActiveRootID"] in [root["ID"] for root in after["Roots"]]
    return "".join(root["RootCert"] for root in after["Roots"] if root["Active"])


async def served_serial(client: MeshClient, gateway: Gateway) -> int:
    async with await dial(client, gateway, SERVICE) as connection:
        await carries(connection, 1)
        return connection.served_certificate.serial_number


async def carries(connection: MeshConnection, exchanges: int) -> None:
    for number in range(exchanges):
        message = b"exchange %d" % number
        assert await connection.exchange(message) == message


@pytest.mark.parametrize("arguments", [(), ("--no-register",)], ids=["registered", "unregistered"])
async def test_a_new_root_is_not_felt(
    arguments: tuple[str, ...],
    backend: ExternalService,
    work_dir: Path,
    record_testsuite_property: Callable[[str, object], None],
) -> None:
    """For a gateway that is registered the agent renews leaves by itself; else only because it is asked and held."""
    async with serving(work_dir, backend, arguments=arguments) as (agent, gateway), AsyncExitStack() as stack:
        old = [await MeshClient.of(agent, source) for source in SOURCES]
        before = await served_serial(old[0], gateway)
        live = [
            await stack.enter_async_context(await dial(client, gateway, SERVICE)) for client in old for _ in range(3)
        ]
        for connection in live:
            await carries(connection, 1)
        newest_root = await new_root(agent, work_dir)
        new = await MeshClient.of(agent, "old-rotating-new")
        began = datetime.datetime.now()

        async def rotated() -> bool:
            return await served_serial(new, gateway) != before

        await eventually(rotated, ROTATION_S, what="new handshakes get the new leaf")
        record_testsuite_property("old_consul_rotation_s", round((datetime.datetime.now() - began).total_seconds(), 1))
        only_new = MeshClient(roots_pem=newest_root, trust_domain=new.trust_domain, leaf=new.leaf)
        assert await served_serial(only_new, gateway) != before
        # The old root is still listed: leaves of it get in, from clients that know both roots by now.
        for client in old:
            behind = MeshClient(roots_pem=new.roots_pem, trust_domain=client.trust_domain, leaf=client.leaf)
            await let_in(behind, gateway, SERVICE)
        for connection in live:
            await carries(connection, 10)


async def test_leaves_are_renewed_by_age_under_live_connections(backend: ExternalService, work_dir: Path) -> None:
    """Leaves that live for a minute, after the minute that Consul dates them back. Its least is an hour, unless it is
    told not to look."""
    short = 'connect { ca_config { leaf_cert_ttl = "120s" SkipValidate = true } }'
    async with serving(work_dir, backend, extra_hcl=short) as (agent, gateway):
        client = await MeshClient.of(agent, SOURCES[0])
        async with await dial(client, gateway, SERVICE) as live:
            first = live.served_certificate
            await carries(live, 1)
            numbers = iter(range(1000))

            async def renewed() -> bool:
                # Another name each time: the agent would go on giving out the leaf that a plain read found before.
                newcomer = await MeshClient.of(agent, f"old-rotating-{next(numbers)}")
                async with await dial(newcomer, gateway, SERVICE) as connection:
                    await carries(connection, 1)
                    served = connection.served_certificate
                return served.not_valid_after_utc > first.not_valid_after_utc

            await eventually(renewed, 90.0, what="the next leaf is served")
            assert datetime.datetime.now(datetime.UTC) < first.not_valid_after_utc
            await carries(live, 10)
