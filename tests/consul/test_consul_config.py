"""Every file in ``consul-config`` is accepted by a real Consul, and the ACL policy is enough for the gateway."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from plugin.assemble.intentions import read_intentions
from plugin.assemble.links import linked_services
from plugin.assemble.mesh_http import mesh_http
from plugin.assemble.resolver import balance, request_timeout
from plugin.consul.api import IntentionMatch, ServiceResolver, TerminatingGatewayEntry
from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConsulRejected
from plugin.jwks.provider import RemoteKeys, read_provider
from proxy.rules import EscapedSlashes, Normalization, Underscores

on_session_loop = pytest.mark.asyncio(loop_scope="session")

FOLDER = Path(__file__).parents[2] / "consul-config"
POLICY = FOLDER / "acl-policy.hcl"
ENTRIES = sorted(path for path in FOLDER.glob("*.hcl") if path != POLICY)
HTTP_ENTRIES = sorted((FOLDER / "http").glob("*.hcl"))
SERVICES = ("billing-db", "partner-api", "legacy-http")


def text(path: Path) -> str:
    return string.Template(path.read_text()).substitute(TLS_DIR="/etc/consul-tgw/tls")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def agent(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ConsulAgent]:
    """An agent with every entry of the folder: some of them are settings of the whole mesh."""
    async with ConsulAgent(tmp_path_factory.mktemp("consul-config"), acl=True) as agent:
        for path in ENTRIES:
            await agent.write_config(text(path))
        yield agent


async def gateway_entry(agent: ConsulAgent) -> TerminatingGatewayEntry:
    answer = await agent.api("GET", "/v1/config/terminating-gateway/terminating-gateway")
    return msgspec.convert(answer, TerminatingGatewayEntry)


@on_session_loop
async def test_every_entry_is_accepted_and_the_links_are_the_three_services(agent: ConsulAgent) -> None:
    links = linked_services(await gateway_entry(agent), ())
    assert [name.name for name in links] == list(SERVICES)
    partner = next(link.link for name, link in links.items() if name.name == "partner-api")
    assert (partner.ca_file, partner.sni) == ("/etc/consul-tgw/tls/partner-ca.pem", "api.partner.example")


@on_session_loop
async def test_web_is_allowed_and_batch_is_denied_everywhere(agent: ConsulAgent) -> None:
    # Consul's check answers for whole connections, and denies where it depends on the request.
    for service in SERVICES:
        by_request = service == "legacy-http"
        for source, allowed in (("web", not by_request), ("batch", False)):
            params = {"source": source, "destination": service}
            answer = await agent.api("GET", "/v1/connect/intentions/check", params=params)
            assert answer == {"Allowed": allowed}, (source, service)


@on_session_loop
async def test_the_policy_allows_what_the_gateway_does_and_no_more(agent: ConsulAgent) -> None:
    token = await agent.create_token(POLICY.read_text())

    async def get(path: str, **params: str) -> object:
        return await agent.api("GET", path, params=params, token=token)

    registration = {"Kind": "terminating-gateway", "Name": "terminating-gateway", "ID": "policy-test", "Port": 1}
    await agent.api("PUT", "/v1/agent/service/register", registration, token=token)
    await agent.api("PUT", "/v1/agent/service/deregister/policy-test", token=token)
    assert await get("/v1/config/terminating-gateway/terminating-gateway")
    rows = await get("/v1/catalog/gateway-services/terminating-gateway")
    assert isinstance(rows, list)
    assert {row["Service"]["Name"] for row in rows} == set(SERVICES)
    for service in SERVICES:
        leaf = await get(f"/v1/agent/connect/ca/leaf/{service}")
        assert isinstance(leaf, dict)
        assert leaf["ServiceURI"].endswith(f"/svc/{service}")
        match = await get("/v1/connect/intentions/match", by="destination", name=service)
        assert isinstance(match, dict)
        assert match[service]
    with pytest.raises(ConsulRejected, match="Permission denied"):
        await get("/v1/agent/connect/ca/leaf/another-service")


@on_session_loop
async def test_the_entries_for_http_are_accepted_and_understood(tmp_path_factory: pytest.TempPathFactory) -> None:
    """In the order of their names, which is the order in which Consul takes them. The mesh entry is for everybody."""
    async with ConsulAgent(tmp_path_factory.mktemp("consul-config-http")) as agent:
        for path in HTTP_ENTRIES:
            await agent.write_config(text(path))
        orders = read_intentions(await matches_of(agent, "orders-api"))
        reports = read_intentions(await matches_of(agent, "reports-api"))
        assert (orders.warnings, reports.warnings) == ((), ())
        assert [len(one.permissions) for one in (*orders.intentions, *reports.intentions)] == [4, 0, 2, 0]
        assert all(one.tokens for one in reports.intentions)
        (row,) = await agent.api("GET", "/v1/config/jwt-provider")
        settings = read_provider(row)
        assert settings.provider.forward_header == "x-token-payload"
        assert isinstance(settings.source, RemoteKeys)
        assert settings.source.ca_file == "/etc/consul-tgw/tls/login-ca.pem"
        entry = await agent.api("GET", "/v1/config/service-resolver/orders-api")
        resolver = msgspec.convert(entry, ServiceResolver)
        assert request_timeout(resolver).value == 30.0
        assert [one.cookie_lifetime_s for one in balance(resolver).value.hash_policies] == [3600.0]
        mesh = mesh_http((await agent.api("GET", "/v1/config/mesh/mesh"))["HTTP"])
        assert mesh.warnings == ()
        assert mesh.normalization == Normalization(
            escaped_slashes=EscapedSlashes.REJECT, underscores=Underscores.REJECT
        )


async def matches_of(agent: ConsulAgent, service: str) -> tuple[IntentionMatch, ...]:
    params = {"by": "destination", "name": service}
    answer = await agent.api("GET", "/v1/connect/intentions/match", params=params)
    return msgspec.convert(answer[service], tuple[IntentionMatch, ...])


def test_every_file_is_explained() -> None:
    readme = (FOLDER / "README.md").read_text()
    for path in HTTP_ENTRIES:
        kind = f"http/{path.name}" if path.name in readme else f"http/{'-'.join(path.stem.split('-')[:2])}-*.hcl"
        assert kind in readme, path.name
    for path in (*ENTRIES, POLICY):
        kind = path.stem if path.name in readme else f"{'-'.join(path.stem.split('-')[:2])}-*"
        assert f"{kind}.hcl" in readme, path.name
