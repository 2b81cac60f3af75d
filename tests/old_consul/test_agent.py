"""The gateway and its operator's commands beside an agent of Consul 1.8: registration, rights, restarts, reports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from plugin.dev import locate
from plugin.dev.external import ExternalService
from plugin.dev.gateway import Gateway
from tests.support.command import consul_tgw
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves, service_status
from tests.support.mesh_client import MeshClient
from tests.support.old_consul_agent import OldConsulAgent
from tests.support.rights import NODES, write

pytestmark = pytest.mark.asyncio(loop_scope="session")

AGENT = 'agent_prefix "" { policy = "read" }'
QUIET_S = 4.0
"""Enough for what is said again and again to be said twice."""


async def test_the_gateway_is_registered_watched_and_taken_back(old_agent: OldConsulAgent, work_dir: Path) -> None:
    name = "old-registered"
    token = await old_agent.create_token(f"{write(name)}\n{NODES}")
    async with Gateway(old_agent, work_dir, name, token=token, arguments=("--meta", "team=a")) as gateway:

        async def passing() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = await old_agent.api(
                "GET", f"/v1/health/service/{name}", params={"passing": ""}
            )
            return found

        (entry,) = await eventually(passing)
        service = entry["Service"]
        assert (service["Kind"], service["ID"], service["Address"]) == ("terminating-gateway", name, "127.0.0.1")
        assert (service["Port"], service["Meta"]) == (gateway.port, {"team": "a"})
        # The agent's own check that it listens, and the gateway's word that it is ready.
        assert len([check for check in entry["Checks"] if check["ServiceID"] == name]) == 2
        await old_agent.deregister_service(name)
        await eventually(passing, what="it is registered again by itself")
    assert await old_agent.api("GET", f"/v1/health/service/{name}") == []


async def test_status_and_check_name_the_version_and_what_it_is_too_old_for(
    old_agent: OldConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    name, service = "old-reported", "old-reported-db"
    token = await old_agent.create_token(f"{write(name, service)}\n{NODES}\n{AGENT}")
    await Links(old_agent, name).add(service, backend.port)
    environment = old_agent.cli_environment(token)
    async with Gateway(old_agent, work_dir, name, token=token) as gateway:
        await serves(gateway, service)
        here = (f"--service={name}", f"--runtime-dir={work_dir / 'run'}")
        shown = await consul_tgw("status", *here, environment=environment)
        assert shown.code == 0, shown.output
        assert locate.OLD_CONSUL_VERSION in shown.output
        assert "mesh: this Consul has no such kind of config entry" in shown.output
        said = await consul_tgw("check", f"--service={name}", "--json", environment=environment)
        assert said.code == 0, said.output
        report = said.json
        texts = {one["text"]: one["level"] for one in report["findings"]}
        assert texts[f"Consul {locate.OLD_CONSUL_VERSION}"] == "ok"
        assert any(text.startswith("mesh is taken for absent") for text in texts)
        assert set(texts.values()) == {"ok"}


async def test_the_version_is_left_open_when_the_token_may_not_ask(old_agent: OldConsulAgent) -> None:
    name = "old-unreported"
    token = await old_agent.create_token(f"{write(name)}\n{NODES}")
    await Links(old_agent, name).write()
    said = await consul_tgw("check", f"--service={name}", "--json", environment=old_agent.cli_environment(token))
    (unknown,) = (one for one in said.json["findings"] if "version of Consul" in one["text"])
    assert (unknown["level"], unknown["rule"]) == ("ok", AGENT)


async def test_what_this_consul_lacks_is_said_once(
    old_agent: OldConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    name, service = "old-quiet", "old-quiet-db"
    token = await old_agent.create_token(f"{write(name, service)}\n{NODES}")
    await Links(old_agent, name).add(service, backend.port)
    async with Gateway(old_agent, work_dir, name, token=token, arguments=("--log-level", "debug")) as gateway:
        await serves(gateway, service)
        await asyncio.sleep(QUIET_S)
        lines = gateway.log_path.read_text().splitlines()
        assert len([line for line in lines if "invalid config entry kind: mesh" in line]) == 1
        assert [line for line in lines if "invalid config entry kind" in line and " WARNING " in line] == []
        assert [watch["name"] for watch in (await gateway.status())["watches"] if watch["problem"]] == []


async def test_a_missing_rule_is_named_and_the_other_services_are_served(
    old_agent: OldConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    name, good, bad, source = "old-rules", "old-rules-good", "old-rules-bad", "old-rules-client"
    rule = f'service "{bad}" {{ policy = "write" }}'
    rights = f'{write(name, good)}\nservice "{bad}" {{ policy = "read" }}\n{NODES}'
    token = await old_agent.create_token(rights)
    links = Links(old_agent, name)
    for service in (good, bad):
        await links.add(service, backend.port)
        await old_agent.write_intention(source, service)
    client = await MeshClient.of(old_agent, source)
    async with Gateway(old_agent, work_dir, name, token=token) as gateway:
        await let_in(client, gateway, good)

        async def named() -> bool:
            shown = await service_status(gateway, bad)
            return bool(shown) and not shown["served"] and any(rule in reason for reason in shown["reasons"])

        await eventually(named)
        await kept_out(client, gateway, bad)
        said = await consul_tgw("check", f"--service={name}", "--json", environment=old_agent.cli_environment(token))
        assert said.code == 1
        services = {one["name"]: one["findings"] for one in said.json["services"]}
        assert [one["rule"] for one in services[bad] if one["level"] == "missing" and one["rule"]] == [rule]
        assert [one for one in services[good] if one["level"] == "missing"] == []


async def test_intentions_that_may_not_be_read_deny(
    old_agent: OldConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    """Its list leaves them out silently; asking about the destination is refused, and that is what counts."""
    name, service, source = "old-hidden", "old-hidden-db", "old-hidden-client"
    rights = f'{write(name)}\nservice "{service}" {{ policy = "write", intentions = "deny" }}\n{NODES}'
    token = await old_agent.create_token(rights)
    await Links(old_agent, name).add(service, backend.port)
    await old_agent.write_intention(source, service)
    client = await MeshClient.of(old_agent, source)
    async with Gateway(old_agent, work_dir, name, token=token) as gateway:

        async def named() -> bool:
            shown = await service_status(gateway, service)
            return bool(shown) and shown["intentions"] is None and any("intentions" in one for one in shown["reasons"])

        await eventually(named)
        await kept_out(client, gateway, service)


async def test_an_agent_that_restarts_is_not_felt(backend: ExternalService, work_dir: Path) -> None:
    name, service, source = "old-restarted", "old-restarted-db", "old-restarted-client"
    async with OldConsulAgent(work_dir / "consul", acl=True, persistent=True) as agent:
        await Links(agent, name).add(service, backend.port)
        await agent.write_intention(source, service)
        client = await MeshClient.of(agent, source)
        async with Gateway(agent, work_dir, name, token=agent.management_token) as gateway:
            await let_in(client, gateway, service)
            async with await dial(client, gateway, service) as live:
                assert await live.exchange(b"ping") == b"ping"
                await agent.stop()
                assert await live.exchange(b"ping") == b"ping"
                await let_in(client, gateway, service)
                await agent.start()
                assert await live.exchange(b"ping") == b"ping"
                # Written after the return: it is heard again.
                await agent.write_intention(source, service, "deny")
                await live.ended(60.0)
            await kept_out(client, gateway, service)
