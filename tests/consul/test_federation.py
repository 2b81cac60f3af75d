"""A gateway in the secondary datacenter of a WAN federation, with ACLs: callers of the primary one, and who may write.

The two servers meet on loopback. Callers are the sidecar's TLS, which mesh gateways pass through unchanged; the whole
way through real ones is in tests/lab.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from plugin.errors import ConsulError
from proxy.policy.identity import Identity, parse_spiffe_id
from tests.support.command import Said, consul_tgw
from tests.support.eventually import SCALE, eventually
from tests.support.linking import dial, kept_out, let_in, serves
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

PRIMARY, SECONDARY = "primary", "secondary"
GATEWAY, SERVICE, CALLER = "far-gateway", "far-db", "far-web"
WITHIN_S = 1.0
OPERATOR = """
mesh = "write"
agent_prefix "" { policy = "read" }
node_prefix "" { policy = "write" }
service_prefix "" { policy = "write" intentions = "write" }
"""
REPLICATION = """
acl = "write"
operator = "write"
agent_prefix "" { policy = "read" }
node_prefix "" { policy = "write" }
service_prefix "" { policy = "read" intentions = "read" }
"""


@dataclass(kw_only=True)
class Federation:
    primary: ConsulAgent
    secondary: ConsulAgent
    operator: str
    """A token of both datacenters."""
    port: int
    """Where the external service is, on loopback."""

    async def link(self, service: str, *arguments: str, token: str | None = None) -> Said:
        target = (service, f"127.0.0.1:{self.port}", f"--gateway={GATEWAY}", "--no-wait")
        return await consul_tgw(
            "link", *target, *arguments, environment=self.secondary.cli_environment(token or self.operator)
        )

    async def local_token(self, rules: str) -> str:
        """One that the secondary datacenter alone knows. Policies are the primary's."""
        policy = await self.primary.api("PUT", "/v1/acl/policy", {"Name": f"policy-{uuid.uuid4()}", "Rules": rules})
        body = {"Local": True, "Policies": [{"ID": policy["ID"]}]}

        async def created() -> str:
            try:
                return str((await self.secondary.api("PUT", "/v1/acl/token", body))["SecretID"])
            except ConsulError:
                return ""  # the policy has not come over yet

        return str(await eventually(created, what="a token of the secondary datacenter"))


def of_federation(wan_port: int, replication: str = "", joining: int | None = None) -> str:
    lines = [f'primary_datacenter = "{PRIMARY}"', f"ports {{ serf_wan = {wan_port} }}"]
    tokens = f'tokens {{ replication = "{replication}" }}' if replication else ""
    lines.append(f"acl {{ enable_token_replication = true {tokens} }}")
    if joining is not None:
        lines += [f'retry_join_wan = ["127.0.0.1:{joining}"]', 'retry_interval_wan = "200ms"']
    return "\n".join(lines)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def federation(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Federation]:
    folder = tmp_path_factory.mktemp("federation")
    first, second = free_ports(2)
    primary = ConsulAgent(
        folder / PRIMARY, acl=True, datacenter=PRIMARY, node_name="first", extra_hcl=of_federation(first)
    )
    async with primary, ExternalService(echo) as backend:
        replication = await primary.create_token(REPLICATION)
        operator = await primary.create_token(OPERATOR)
        secondary = ConsulAgent(
            folder / SECONDARY,
            acl=True,
            datacenter=SECONDARY,
            node_name="second",
            extra_hcl=of_federation(second, replication, first),
        )
        # Tokens are those of the primary datacenter in both.
        secondary.management_token = primary.management_token
        async with secondary:

            async def replicated() -> bool:
                try:
                    await secondary.api("GET", "/v1/acl/token/self", token=operator)
                    return len(await secondary.api("GET", "/v1/catalog/datacenters")) == 2
                except ConsulError:
                    return False

            await eventually(replicated, 60.0, what="the secondary datacenter has the tokens of the primary one")
            yield Federation(primary=primary, secondary=secondary, operator=operator, port=backend.port)


async def test_a_service_is_linked_from_the_secondary_datacenter(federation: Federation) -> None:
    """Entries are edited where they are kept: also one of them that is there already, by its own index."""
    assert (await federation.link(SERVICE, "--create")).code == 0
    said = await federation.link("far-other")
    assert said.code == 0, said.errors
    entry = await federation.primary.api("GET", f"/v1/config/terminating-gateway/{GATEWAY}")
    assert [one["Name"] for one in entry["Services"]] == [SERVICE, "far-other"]
    # The copy may be older still: what is there already is seen all the same.
    assert (await federation.link(SERVICE)).output.count("there already") == 2
    assert await federation.primary.api("GET", f"/v1/catalog/service/{SERVICE}") == []
    assert len(await federation.secondary.api("GET", f"/v1/catalog/service/{SERVICE}")) == 1


async def test_a_token_of_one_datacenter_is_told_to_be_one(federation: Federation) -> None:
    """Consul speaks of the anonymous token then, and the rule that it names would not help."""
    local = await federation.local_token(OPERATOR)
    said = await federation.link("far-local", token=local)
    assert said.code == 2
    assert "is one of its own datacenter alone" in said.errors
    assert "missing ACL rule" not in said.output + said.errors


async def test_which_datacenter_is_primary_must_be_told(federation: Federation) -> None:
    blind = await federation.primary.create_token(OPERATOR.replace('agent_prefix "" { policy = "read" }', ""))

    async def known() -> bool:
        try:
            return bool(await federation.secondary.api("GET", "/v1/acl/token/self", token=blind))
        except ConsulError:
            return False

    await eventually(known, what="the token has come over")
    said = await federation.link("far-blind", token=blind)
    assert said.code == 2
    assert "config entries are written in the primary datacenter" in said.errors
    assert 'agent "second" { policy = "read" }' in said.errors


async def test_a_caller_of_the_primary_datacenter(federation: Federation, work_dir: Path) -> None:
    """Refused before its intention, let in with its own identity, ended when denied; wherever that is written."""
    assert (await federation.link(SERVICE, "--create")).code == 0
    web = await MeshClient.of(federation.primary, CALLER)
    rules = await consul_tgw(
        "acl-policy", f"--service={GATEWAY}", environment=federation.secondary.cli_environment(federation.operator)
    )
    token = await federation.local_token(rules.output)
    async with Gateway(federation.secondary, work_dir, GATEWAY, token=token) as gateway:
        await serves(gateway, SERVICE)
        await kept_out(web, gateway, SERVICE)
        for written_in in (federation.primary, federation.secondary):
            await written_in.write_intention(CALLER, SERVICE)
            await let_in(web, gateway, SERVICE)
            async with await dial(web, gateway, SERVICE) as live:
                assert await live.exchange(b"ping") == b"ping"
                assert parse_spiffe_id(live.served_spiffe_id).datacenter == SECONDARY
                began_s = time.monotonic()
                await written_in.write_intention(CALLER, SERVICE, "deny")
                await live.ended()
                assert time.monotonic() - began_s < WITHIN_S * SCALE
            await kept_out(web, gateway, SERVICE)

        def revoked() -> list[Identity]:
            return [parse_spiffe_id(one["source"]) for one in gateway.access_records() if one["reason"] == "revoked"]

        await eventually(lambda: len(revoked()) == 2, what="both ends are in the log")
        assert {(one.datacenter, one.service) for one in revoked()} == {(PRIMARY, CALLER)}
