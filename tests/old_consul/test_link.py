"""``consul-tgw link`` and ``unlink`` beside an agent of Consul 1.8, which has less to be careful with."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.command import Said, consul_tgw
from tests.support.old_consul_agent import OldConsulAgent

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def tgw(agent: OldConsulAgent, *arguments: str, token: str | None = None) -> Said:
    return await consul_tgw(*arguments, "--json", environment=agent.cli_environment(token))


async def entry_of(agent: OldConsulAgent, gateway: str) -> dict[str, Any]:
    entry: dict[str, Any] = await agent.api("GET", f"/v1/config/terminating-gateway/{gateway}")
    return entry


async def test_what_is_created_is_emptied_where_it_cannot_be_deleted_safely(old_agent: OldConsulAgent) -> None:
    gateway, service = "link-old-gateway", "link-old"
    arguments = ("link", service, "10.0.0.9:5432", f"--gateway={gateway}")
    said = await tgw(old_agent, *arguments, "--create")
    assert (said.code, len(said.json["done"])) == (0, 2), said.errors
    again = await tgw(old_agent, *arguments)
    assert (again.code, again.json["result"]) == (0, "unchanged")
    gone = await tgw(old_agent, "unlink", service, "--purge", f"--gateway={gateway}")
    assert (gone.code, len(gone.json["done"])) == (0, 2), gone.errors
    entry = await entry_of(old_agent, gateway)
    assert (entry["Services"], entry["Meta"]) == ([], {"managed-by": "consul-tgw"})
    assert await old_agent.api("GET", f"/v1/catalog/service/{service}") == []
    assert "external-10-0-0-9" in {one["Node"] for one in await old_agent.api("GET", "/v1/catalog/nodes")}


async def test_intentions_are_left_to_consuls_own_command(old_agent: OldConsulAgent) -> None:
    arguments = ("link", "link-old-allow", "10.0.0.9:1", "--allow=web", "--create", "--gateway=link-old-allow-gateway")
    said = await tgw(old_agent, *arguments)
    assert (said.code, said.json["result"]) == (1, "refused")
    assert "consul intention create -allow web link-old-allow" in said.json["problem"]
    assert await old_agent.api("GET", "/v1/catalog/service/link-old-allow") == []


async def test_all_missing_rules_are_named_before_anything_is_written(old_agent: OldConsulAgent) -> None:
    gateway, service = "link-old-rule-gateway", "link-old-rule"
    token = await old_agent.create_token(
        f'service "{gateway}" {{ policy = "write" }} service "{service}" {{ policy = "write" }}'
        ' node_prefix "" { policy = "read" }'
    )
    arguments = ("link", service, "10.0.0.10:1", "--create", f"--gateway={gateway}")
    said = await tgw(old_agent, *arguments, token=token)
    assert (said.code, said.json["done"]) == (1, [])
    assert set(said.json["rules"]) == {'operator = "write"', 'node "external-10-0-0-10" { policy = "write" }'}
    assert await old_agent.api("GET", f"/v1/catalog/service/{service}") == []
