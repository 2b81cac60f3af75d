"""``consul-tgw acl-policy`` against a real agent: Consul takes what it prints; it is enough; no line is too much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plugin.check import Finding, Report, check_gateway
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from plugin.settings import ConsulSettings
from tests.support.command import consul_tgw
from tests.support.linking import Links, let_in, serves
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def printed(agent: ConsulAgent, gateway: str, *arguments: str) -> str:
    said = await consul_tgw("acl-policy", f"--service={gateway}", *arguments, environment=agent.cli_environment())
    assert said.code == 0, said.errors
    return said.output


async def token_of(agent: ConsulAgent, name: str, policy: str) -> str:
    """As an operator makes it: the policy comes from standard input."""
    await agent.cli("acl", "policy", "create", f"-name={name}", "-rules=-", input_text=policy)
    made = json.loads(await agent.cli("acl", "token", "create", f"-policy-name={name}", "-format=json"))
    return str(made["SecretID"])


async def complaints(agent: ConsulAgent, gateway: str, token: str) -> list[Finding]:
    report = await checked(agent, gateway, token)
    findings = [*report.findings, *(one for service in report.services for one in service.findings)]
    return [one for one in findings if one.level != "ok"]


async def checked(agent: ConsulAgent, gateway: str, token: str) -> Report:
    return await check_gateway(ConsulSettings(address=agent.http_address, token=token), gateway, patience_s=5.0)


def without_each_rule(policy: str) -> dict[str, str]:
    """The policy without one of its lines, by that line."""
    lines = policy.splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    return {rule: "\n".join(line for line in lines if line != rule) for rule in rules}


async def is_smallest(agent: ConsulAgent, gateway: str, policy: str) -> None:
    for number, (rule, rest) in enumerate(without_each_rule(policy).items()):
        token = await token_of(agent, f"{gateway}-without-{number}", rest)
        assert await complaints(agent, gateway, token), f"{rule} can be left out"


async def carries(agent: ConsulAgent, work_dir: Path, gateway: str, service: str, token: str) -> None:
    """A gateway with ``token`` serves ``service``, lacks nothing, and ``check`` has no complaint."""
    async with Gateway(agent, work_dir, gateway, token=token) as running:
        await serves(running, service)
        client = await MeshClient.of(agent, "policy-client")
        await let_in(client, running, service)
        assert await complaints(agent, gateway, token) == []
        status = await running.status()
        assert [watch["name"] for watch in status["watches"] if watch["problem"]] == []
        assert "Consul refuses" not in running.log_path.read_text()


async def test_explicit_links(acl_agent: ConsulAgent, work_dir: Path) -> None:
    gateway, service = "policy-explicit", "policy-explicit-db"
    async with ExternalService(echo) as backend:
        links = Links(acl_agent, gateway)
        await links.add(service, backend.port)
        await links.add(f"{service}-2", backend.port)
        await acl_agent.write_intention("policy-client", service)
        policy = await printed(acl_agent, gateway)
        await carries(acl_agent, work_dir, gateway, service, await token_of(acl_agent, gateway, policy))
        assert len(without_each_rule(policy)) == 4
        await is_smallest(acl_agent, gateway, policy)
        as_json = await printed(acl_agent, gateway, "--json")
        token = await token_of(acl_agent, f"{gateway}-json", as_json)
        assert (await checked(acl_agent, gateway, token)).ok


async def test_every_service_and_intentions_that_hide_the_default(work_dir: Path) -> None:
    gateway, service = "policy-all", "policy-all-db"
    async with ConsulAgent(work_dir / "consul", acl=True) as agent, ExternalService(echo) as backend:
        await agent.register_external("node-all", "127.0.0.1", service, backend.port)
        await agent.write_config(
            {"Kind": "terminating-gateway", "Name": gateway, "Services": [{"Name": "*"}, {"Name": service}]}
        )
        await agent.write_intention("*", "*")
        policy = await printed(agent, gateway)
        assert list(without_each_rule(policy)) == [
            'service_prefix "" { policy = "write" }',
            'node_prefix "" { policy = "read" }',
            'agent_prefix "" { policy = "read" }',
        ]
        await carries(agent, work_dir, gateway, service, await token_of(agent, gateway, policy))
        await is_smallest(agent, gateway, policy)


async def test_who_may_not_read_the_links_is_told_what_it_takes(acl_agent: ConsulAgent) -> None:
    gateway = "policy-stranger"
    await Links(acl_agent, gateway).add("policy-stranger-db", free_ports(1)[0])
    token = await acl_agent.create_token('node_prefix "" { policy = "read" }')
    said = await consul_tgw("acl-policy", f"--service={gateway}", environment=acl_agent.cli_environment(token))
    assert (said.code, said.output) == (2, "")
    assert f'service "{gateway}" {{ policy = "read" }}' in said.errors
