"""Every way in which operators let a gateway reach its agent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import AgentTLS, ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.errors import StartError
from plugin.process.tasks import spawn
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves, service_status
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

NODES = 'node_prefix "" { policy = "read" }'


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    async with ExternalService(echo) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured_agent(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConsulAgent]:
    """Asks whoever comes by https for a certificate."""
    folder = tmp_path_factory.mktemp("secured")
    certificate, key = authority.server("server.dc1.consul", "127.0.0.1").write(folder, "agent")
    tls = AgentTLS(
        ca_file=authority.write(folder, "ca"), certificate_file=certificate, key_file=key, verify_incoming=True
    )
    async with ConsulAgent(folder / "consul", tls=tls) as agent:
        yield agent


def policy(gateway: str, *services: str) -> str:
    rules = [f'service "{name}" {{ policy = "write" }}' for name in (gateway, *services)]
    return "\n".join([*rules, NODES])


async def works(gateway: Gateway, backend: ExternalService, service: str) -> None:
    """Reads, writes, and hears of changes by blocking queries."""
    agent = gateway.agent
    await Links(agent, gateway.name).add(service, backend.port)
    await serves(gateway, service)
    client = await MeshClient.of(agent, "to-consul-client")
    await agent.write_intention("to-consul-client", service)
    await let_in(client, gateway, service)
    async with await dial(client, gateway, service) as connection:
        await connection.exchange(b"hello")
        await agent.write_intention("to-consul-client", service, "deny")
        await connection.ended()
    found = await agent.api("GET", f"/v1/health/service/{gateway.name}", params={"passing": "true"})
    assert len(found) == 1


async def test_a_token_from_a_file(acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path) -> None:
    name, service = "to-consul-file", "to-consul-file-echo"
    token_file = work_dir / "token"
    token_file.write_text(await acl_agent.create_token(policy(name, service)) + "\n")
    # The file wins over the variable, as for Consul's own command line.
    async with Gateway(
        acl_agent, work_dir, name, token="not-a-token", environment={"CONSUL_HTTP_TOKEN_FILE": str(token_file)}
    ) as gateway:
        await works(gateway, backend, service)


async def test_a_token_file_that_changes_is_read_again(
    acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    """The old token is deleted and its successor may do more; nothing is restarted."""
    name, first, second = "to-consul-renewed", "to-consul-renewed-one", "to-consul-renewed-two"
    token_file = work_dir / "token"
    old = await acl_agent.create_token(policy(name, first))
    token_file.write_text(old)
    async with Gateway(
        acl_agent, work_dir, name, token="", environment={"CONSUL_HTTP_TOKEN_FILE": str(token_file)}
    ) as gateway:
        links = Links(acl_agent, name)
        await links.add(first, backend.port)
        await links.add(second, backend.port)
        await serves(gateway, first)

        async def told() -> bool:
            reasons = (await service_status(gateway, second)).get("reasons", ())
            return any(f'service "{second}" {{ policy = "write" }}' in reason for reason in reasons)

        await eventually(told, what="the missing right is named")
        token_file.write_text(await acl_agent.create_token(policy(name, first, second)))
        known = await acl_agent.api("GET", "/v1/acl/token/self", token=old)
        await acl_agent.api("DELETE", f"/v1/acl/token/{known['AccessorID']}")
        await serves(gateway, first, second)
        client = await MeshClient.of(acl_agent, "to-consul-client")
        for service in (first, second):
            await acl_agent.write_intention("to-consul-client", service)
            await let_in(client, gateway, service)


async def test_https_with_a_private_ca_and_a_client_certificate(
    secured_agent: ConsulAgent, backend: ExternalService, authority: Authority, work_dir: Path
) -> None:
    async with Gateway(
        secured_agent, work_dir, "to-consul-https", environment=https(secured_agent, authority, work_dir)
    ) as gateway:
        await works(gateway, backend, "to-consul-https-echo")


async def test_https_of_an_unknown_ca_is_not_trusted(
    secured_agent: ConsulAgent, authority: Authority, work_dir: Path
) -> None:
    environment = https(secured_agent, authority, work_dir) | {
        "CONSUL_CACERT": str(Authority("Another CA").write(work_dir, "another"))
    }
    await never_registers(secured_agent, work_dir, "to-consul-untrusted", environment, "certificate")


async def test_https_without_the_client_certificate_that_is_asked_for(
    secured_agent: ConsulAgent, authority: Authority, work_dir: Path
) -> None:
    environment = dict(https(secured_agent, authority, work_dir))
    del environment["CONSUL_CLIENT_CERT"], environment["CONSUL_CLIENT_KEY"]
    await never_registers(secured_agent, work_dir, "to-consul-anonymous", environment, "certificate")


async def test_certificates_of_the_agent_that_turn_bad_count_as_an_agent_that_is_away(
    backend: ExternalService, authority: Authority, work_dir: Path
) -> None:
    name, service = "to-consul-turned", "to-consul-turned-echo"
    ended, other = authority.expired("127.0.0.1"), Authority("Another CA").server("127.0.0.1")
    good = authority.server("127.0.0.1")
    certificate, key = good.write(work_dir, "agent")
    tls = AgentTLS(ca_file=authority.write(work_dir, "ca"), certificate_file=certificate, key_file=key)
    async with ConsulAgent(work_dir / "consul", tls=tls, persistent=True) as agent:
        environment = https(agent, authority, work_dir)
        async with Gateway(agent, work_dir, name, environment=environment) as gateway:
            await Links(agent, name).add(service, backend.port)
            await serves(gateway, service)
            client = await MeshClient.of(agent, "to-consul-client")
            for bad in (ended, other):
                bad.write(work_dir, "agent")
                await agent.restart()

                async def distrusted() -> bool:
                    return "certificate" in (await gateway.status())["consul_away"].lower()

                await eventually(distrusted, what="the agent is not trusted")
                await let_in(client, gateway, service)
            good.write(work_dir, "agent")
            await agent.restart()
            await agent.write_intention("to-consul-client", service, "deny")
            await kept_out(client, gateway, service)


def https(agent: ConsulAgent, authority: Authority, folder: Path) -> dict[str, str]:
    certificate, key = authority.client("gateway").write(folder, "gateway")
    return {
        "CONSUL_HTTP_ADDR": agent.https_address,
        "CONSUL_CACERT": str(authority.write(folder, "consul-ca")),
        "CONSUL_CLIENT_CERT": str(certificate),
        "CONSUL_CLIENT_KEY": str(key),
    }


async def never_registers(
    agent: ConsulAgent, work_dir: Path, name: str, environment: Mapping[str, str], word: str
) -> None:
    """It runs and says why it cannot ask Consul; it does not give up and does not ask unprotected."""
    gateway = Gateway(agent, work_dir, name, environment=environment)
    starting = spawn(gateway.start(), name="gateway")
    try:

        async def complains() -> bool:
            try:
                watches = (await gateway.status())["watches"]
            except StartError:
                return False
            return any(word in watch["problem"].lower() for watch in watches)

        await eventually(complains, what="the watches say what is wrong")
        assert await agent.api("GET", f"/v1/health/service/{name}") == []
        assert gateway.child is not None
        assert gateway.child.exit_code is None
    finally:
        starting.cancel()
        await gateway.stop()


async def test_a_unix_socket(backend: ExternalService, work_dir: Path) -> None:
    socket = work_dir / "consul.sock"
    async with ConsulAgent(
        work_dir / "consul", extra_hcl=f'addresses {{ http = "127.0.0.1 unix://{socket}" }}'
    ) as agent:
        environment = {"CONSUL_HTTP_ADDR": f"unix://{socket}"}
        async with Gateway(agent, work_dir, "to-consul-unix", environment=environment) as gateway:
            await works(gateway, backend, "to-consul-unix-echo")


async def test_a_gateway_starts_before_its_agent(backend: ExternalService, work_dir: Path) -> None:
    agent = ConsulAgent(work_dir / "consul")
    agent.work_dir.mkdir(parents=True)
    gateway = Gateway(agent, work_dir, "to-consul-early")
    starting = spawn(gateway.start(), name="gateway")
    try:

        async def complains() -> bool:
            try:
                return any(watch["problem"] for watch in (await gateway.status())["watches"])
            except StartError:
                return False

        await eventually(complains, what="Consul is missed")
        async with agent:
            await starting
            await works(gateway, backend, "to-consul-early-echo")
            await gateway.stop()
    finally:
        starting.cancel()
        await gateway.stop()
