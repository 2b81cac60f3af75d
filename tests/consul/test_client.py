"""The client against a real agent: what python-consul2 does for us, what it lacks, and what ACLs say."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from plugin.consul import endpoints
from plugin.consul.api import Roots
from plugin.consul.client import ConsulClient
from plugin.dev.consul_agent import AgentTLS, ConsulAgent
from plugin.dev.pki import Authority
from plugin.errors import ConsulForbidden, ConsulRejected, ConsulUnavailable
from plugin.settings import ConsulSettings
from tests.conftest import AgentFactory


def settings(agent: ConsulAgent, token: str = "") -> ConsulSettings:
    return ConsulSettings(address=agent.http_address, token=token)


async def test_blocking_read_wakes_when_its_key_changes(consul_agent: ConsulAgent) -> None:
    path = endpoints.config("service-defaults", "client-wakes")
    async with ConsulClient(settings(consul_agent)) as client:
        before = await client.blocking_get(path)
        assert before.status == 404
        assert before.index is not None
        waiting = asyncio.get_running_loop().create_task(client.blocking_get(path, index=before.index, wait_s=30))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await consul_agent.write_config({"Kind": "service-defaults", "Name": "client-wakes", "Protocol": "tcp"})
        after = await asyncio.wait_for(waiting, 10)
        assert after.status == 200
        assert (after.index or 0) > before.index


async def test_blocking_read_ends_with_the_same_index_when_nothing_changes(consul_agent: ConsulAgent) -> None:
    async with ConsulClient(settings(consul_agent)) as client:
        before = await client.blocking_get(endpoints.ROOTS)
        began_s = time.monotonic()
        after = await client.blocking_get(endpoints.ROOTS, index=before.index or 0, wait_s=1)
        assert time.monotonic() - began_s >= 1
        assert after.index == before.index


async def test_service_is_registered_checked_and_deregistered(consul_agent: ConsulAgent) -> None:
    check = {"CheckID": "client-alive", "TTL": "30s"}
    definition = {"Kind": "terminating-gateway", "ID": "client-gw", "Name": "client-gw", "Port": 8443, "Check": check}
    async with ConsulClient(settings(consul_agent)) as client:
        await client.register_service(definition)
        await client.pass_check("client-alive", "2 workers, all well")
        checks = await client.get("/v1/agent/checks", type=dict[str, dict[str, object]])
        assert (checks["client-alive"]["Status"], checks["client-alive"]["Output"]) == (
            "passing",
            "2 workers, all well",
        )
        await client.fail_check("client-alive", "no worker")
        checks = await client.get("/v1/agent/checks", type=dict[str, dict[str, object]])
        assert checks["client-alive"]["Status"] == "critical"
        await client.deregister_service("client-gw")
        with pytest.raises(ConsulRejected) as caught:
            await client.pass_check("client-alive")
        assert caught.value.status == 404
        with pytest.raises(ConsulRejected):
            await client.deregister_service("client-gw")


async def test_refusal_names_the_rule_that_allows_it(acl_agent: ConsulAgent) -> None:
    token = await acl_agent.create_token('service "client-other" { policy = "write" }')
    questions = [
        (endpoints.leaf("client-db"), (), 'service "client-db" { policy = "write" }'),
        (endpoints.gateway_services("client-gw"), (), 'service "client-gw" { policy = "read" }'),
        (endpoints.config("terminating-gateway", "client-gw"), (), 'service "client-gw" { policy = "read" }'),
        (
            endpoints.INTENTIONS_MATCH,
            (("by", "destination"), ("name", "client-db")),
            'service "client-db" { policy = "read", intentions = "read" }',
        ),
        (endpoints.AGENT_SELF, (), 'agent "agent" { policy = "read" }'),
    ]
    async with ConsulClient(settings(acl_agent, token)) as client:
        for path, params, rule in questions:
            with pytest.raises(ConsulForbidden) as caught:
                await client.blocking_get(path, params)
            assert caught.value.rule == rule, path
            allowed = await acl_agent.create_token(rule)
            async with ConsulClient(settings(acl_agent, allowed)) as other:
                assert (await other.blocking_get(path, params)).status in (200, 404)


async def test_token_that_consul_does_not_know_is_told_apart(acl_agent: ConsulAgent) -> None:
    async with ConsulClient(settings(acl_agent, "00000000-1111-2222-3333-444444444444")) as client:
        with pytest.raises(ConsulForbidden, match="does not know the ACL token") as caught:
            await client.blocking_get(endpoints.leaf("db"))
        assert caught.value.rule == ""
        assert "00000000" not in str(caught.value)


async def test_https_agent_with_a_private_ca_and_client_certificates(start_agent: AgentFactory, tmp_path: Path) -> None:
    authority = Authority("Agent CA")
    certificate, key = authority.server("server.dc1.consul", "127.0.0.1").write(tmp_path, "agent")
    ca_file = authority.write(tmp_path, "ca")
    client_certificate, client_key = authority.client("gateway").write(tmp_path, "client")
    tls = AgentTLS(ca_file=ca_file, certificate_file=certificate, key_file=key, verify_incoming=True)
    agent = await start_agent(tls=tls)
    with_certificate = ConsulSettings(
        address=agent.https_address,
        ca_file=ca_file,
        client_cert=client_certificate,
        client_key=client_key,
        tls_server_name="server.dc1.consul",
    )
    async with ConsulClient(with_certificate) as client:
        assert (await client.get(endpoints.ROOTS, type=Roots)).trust_domain
    without = ConsulSettings(address=agent.https_address, ca_file=ca_file, tls_server_name="server.dc1.consul")
    async with ConsulClient(without) as client:
        with pytest.raises(ConsulUnavailable):
            await client.get(endpoints.ROOTS, type=Roots)


async def test_stopped_agent_is_unavailable_and_usable_again_on_the_same_client(start_agent: AgentFactory) -> None:
    agent = await start_agent(persistent=True)
    async with ConsulClient(settings(agent)) as client:
        assert (await client.blocking_get(endpoints.ROOTS)).status == 200
        await agent.stop()
        with pytest.raises(ConsulUnavailable, match="cannot be used"):
            await client.blocking_get(endpoints.ROOTS)
        await agent.start()
        assert (await client.blocking_get(endpoints.ROOTS)).status == 200
