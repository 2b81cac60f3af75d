"""Mutual TLS at the gateway's port, without a sidecar: who is served with which certificate, and who is refused how.

The agent's CA has a key of the test's own, so that certificates of any identity can be issued under the mesh root.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority, KeyPair
from tests.conftest import AgentFactory
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, sample, serves
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, SERVICES, CLIENT = "direct-gateway", ("direct-one", "direct-two"), "direct-client"
TLS_VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
REFUSED = "consul_tgw_handshakes_refused_total"


@dataclass(frozen=True, kw_only=True)
class Stage:
    agent: ConsulAgent
    gateway: Gateway
    mesh_ca: Authority
    client: MeshClient
    backend: ExternalService

    def showing(self, leaf: KeyPair | None) -> MeshClient:
        return dataclasses.replace(self.client, leaf=leaf)

    def server_name(self) -> str:
        return self.client.server_name(SERVICES[0])

    async def refused(self, reason: str) -> float:
        return sample(await self.gateway.metrics(), REFUSED, reason=reason)

    async def assert_refused(
        self, client: MeshClient, reason: str, *alerts: str, server_name: str | None, version: ssl.TLSVersion
    ) -> None:
        """With one of ``alerts``, counted once by ``reason``, and without touching the external service."""
        before, accepted = await self.refused(reason), self.backend.accepted
        alert = await client.refusal(
            self.gateway.address, self.gateway.port, server_name, minimum=version, maximum=version
        )
        assert any(wanted in alert for wanted in alerts), alert

        async def counted() -> bool:
            return await self.refused(reason) == before + 1

        await eventually(counted, what=f"the refusal is counted as {reason}")
        assert self.backend.accepted == accepted


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("direct")
    async with ConsulAgent(folder / "consul") as agent, ExternalService(echo) as backend:
        mesh_ca = await use_own_ca(agent, folder)
        links = Links(agent, GATEWAY)
        for service in SERVICES:
            await links.add(service, backend.port)
        async with Gateway(agent, folder, GATEWAY) as gateway:
            await serves(gateway, *SERVICES)
            client = await MeshClient.of(agent, CLIENT)
            yield Stage(agent=agent, gateway=gateway, mesh_ca=mesh_ca, client=client, backend=backend)


async def use_own_ca(agent: ConsulAgent, folder: Path) -> Authority:
    """Rotate the agent's built-in CA to a root whose key we hold."""
    roots = await agent.api("GET", "/v1/agent/connect/ca/roots")
    authority = Authority("Mesh root of the test", trust_domain=roots["TrustDomain"])
    config = {"PrivateKey": authority.private_key_pem, "RootCert": authority.certificate_pem}
    path = folder / "ca.json"
    path.write_text(json.dumps({"Provider": "consul", "Config": config}))
    await agent.cli("connect", "ca", "set-config", f"-config-file={path}")
    return authority


@TLS_VERSIONS
async def test_each_service_is_served_with_its_own_leaf(stage: Stage, version: ssl.TLSVersion) -> None:
    for service in SERVICES:
        name = stage.client.server_name(service)
        gateway = stage.gateway
        async with await stage.client.connect(
            gateway.address, gateway.port, name, minimum=version, maximum=version
        ) as connection:
            assert await connection.exchange(b"hello") == b"hello"
            wanted = f"spiffe://{stage.client.trust_domain}/ns/default/dc/dc1/svc/{service}"
            assert connection.served_spiffe_id == wanted


@TLS_VERSIONS
async def test_without_a_certificate(stage: Stage, version: ssl.TLSVersion) -> None:
    alerts = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE")
    await stage.assert_refused(
        stage.showing(None), "no_certificate", *alerts, server_name=stage.server_name(), version=version
    )


@TLS_VERSIONS
async def test_with_a_certificate_of_a_foreign_ca(stage: Stage, version: ssl.TLSVersion) -> None:
    forged = Authority("Foreign CA").leaf(stage.client.trust_domain, CLIENT)
    await stage.assert_refused(
        stage.showing(forged), "untrusted_certificate", "UNKNOWN_CA", server_name=stage.server_name(), version=version
    )


async def test_with_a_real_leaf_of_another_mesh(stage: Stage, start_agent: AgentFactory) -> None:
    other = await MeshClient.of(await start_agent(), CLIENT)
    await stage.assert_refused(
        stage.showing(other.leaf),
        "untrusted_certificate",
        "UNKNOWN_CA",
        server_name=stage.server_name(),
        version=ssl.TLSVersion.TLSv1_3,
    )


@TLS_VERSIONS
@pytest.mark.parametrize(
    "path",
    [
        "{mesh}/agent/client/dc/dc1/id/agent-id",
        "{mesh}/gateway/mesh/dc/dc1",
        "{mesh}/ns/default/dc/dc1/svc/",
        "{mesh}/ns/default/dc/dc1/svc/direct-client/more",
        "spiffe://99999999-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/direct-client",
        "{mesh} https://not-a-spiffe-id/",
        "https://example.org/ns/default/dc/dc1/svc/direct-client",
    ],
)
async def test_with_a_certificate_of_the_mesh_that_is_no_service(
    stage: Stage, path: str, version: ssl.TLSVersion
) -> None:
    uris = path.format(mesh=f"spiffe://{stage.client.trust_domain}").split(" ")
    pair = stage.mesh_ca.identity(*uris)
    await stage.assert_refused(
        stage.showing(pair), "bad_identity", "HANDSHAKE_FAILURE", server_name=stage.server_name(), version=version
    )


@TLS_VERSIONS
async def test_with_a_certificate_of_two_services(stage: Stage, version: ssl.TLSVersion) -> None:
    mesh = f"spiffe://{stage.client.trust_domain}/ns/default/dc/dc1/svc"
    pair = stage.mesh_ca.identity(f"{mesh}/{CLIENT}", f"{mesh}/another")
    await stage.assert_refused(
        stage.showing(pair), "bad_identity", "HANDSHAKE_FAILURE", server_name=stage.server_name(), version=version
    )


async def test_a_service_that_the_test_signed_itself_is_let_in(stage: Stage) -> None:
    """Else the refusals above would prove nothing: it is their names that are refused."""
    signed = stage.showing(stage.mesh_ca.leaf(stage.client.trust_domain, CLIENT))
    async with await dial(signed, stage.gateway, SERVICES[0]) as connection:
        assert await connection.exchange(b"hello") == b"hello"


@TLS_VERSIONS
@pytest.mark.parametrize("name", ["direct-unlinked", "direct-one.extra", ""])
async def test_a_server_name_that_is_not_linked(stage: Stage, name: str, version: ssl.TLSVersion) -> None:
    server_name = stage.client.server_name(name) if name else "example.org"
    await stage.assert_refused(
        stage.client, "unknown_server_name", "UNRECOGNIZED_NAME", server_name=server_name, version=version
    )


@TLS_VERSIONS
async def test_without_a_server_name(stage: Stage, version: ssl.TLSVersion) -> None:
    alerts = ("UNRECOGNIZED_NAME", "MISSING_EXTENSION", "HANDSHAKE_FAILURE")
    await stage.assert_refused(stage.client, "no_server_name", *alerts, server_name=None, version=version)


async def test_plain_text_is_refused_and_counted(stage: Stage) -> None:

    before = await stage.refused("not_tls")
    reader, writer = await asyncio.open_connection(stage.gateway.address, stage.gateway.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n")
    async with asyncio.timeout(20):
        try:
            answer = await reader.read()
        except ConnectionResetError:
            answer = b""
    writer.close()
    assert not answer.startswith(b"HTTP")

    async def counted() -> bool:
        return await stage.refused("not_tls") == before + 1

    await eventually(counted)


async def test_without_any_link_it_listens_and_its_checks_pass(acl_agent: ConsulAgent, work_dir: Path) -> None:
    """With a token that may not read the agent's settings."""
    name = "direct-idle-gateway"
    token = await acl_agent.create_token(
        f'service "{name}" {{ policy = "write" }}\nnode_prefix "" {{ policy = "read" }}'
    )
    async with Gateway(acl_agent, work_dir, name, token=token) as gateway:

        async def passing() -> bool:
            found = await acl_agent.api("GET", f"/v1/health/service/{name}")
            statuses = {check["CheckID"]: check["Status"] for one in found for check in one["Checks"]}
            mine = {key: status for key, status in statuses.items() if key.startswith("service:")}
            return len(mine) == 2 and set(mine.values()) == {"passing"}

        await eventually(passing, what="both checks are passing")
        status = await gateway.status()
        assert (status["services"], status["default_action"], status["datacenter"]) == ([], "deny", "dc1")
        client = await MeshClient.of(acl_agent, "direct-idle-client")
        assert "UNRECOGNIZED_NAME" in await client.refusal(
            gateway.address, gateway.port, client.server_name("direct-nothing")
        )
    assert await acl_agent.api("GET", f"/v1/health/service/{name}") == []
