"""``consul-tgw link`` and ``unlink`` as an operator types them, against a real agent."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plugin.cli.link_output import Showing, WaitFor, perform
from plugin.consul.client import ConsulClient
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.processes import free_ports
from plugin.errors import ConsulForbidden, ConsulRejected
from plugin.linking.edit import Refused
from plugin.linking.plan import Plan, plan_link
from plugin.linking.request import LinkRequest
from plugin.linking.writer import carry_out, find
from plugin.settings import ConsulSettings
from tests.support.command import Said, consul_tgw
from tests.support.linking import dial, kept_out, let_in
from tests.support.mesh_client import MeshClient
from tests.support.mesh_client import Refused as RefusedByGateway

pytestmark = pytest.mark.asyncio(loop_scope="session")

NODES = 'node_prefix "" { policy = "read" }'
SERVICES = 'service_prefix "" { policy = "read" }'


async def tgw(agent: ConsulAgent, *arguments: str, token: str | None = None) -> Said:
    return await consul_tgw(*arguments, environment=agent.cli_environment(token))


async def links_of(agent: ConsulAgent, gateway: str) -> list[dict[str, Any]]:
    entry = await agent.api("GET", f"/v1/config/terminating-gateway/{gateway}")
    links: list[dict[str, Any]] = entry["Services"]
    return links


async def sources_of(agent: ConsulAgent, service: str) -> dict[str, str]:
    """Source to ``allow`` or ``deny``, or ``permissions``; empty when there is no entry."""
    entries = await agent.api("GET", "/v1/config/service-intentions")
    rows = [row for one in entries if one["Name"] == service for row in one["Sources"]]
    return {row["Name"]: row.get("Action", "permissions") for row in rows}


async def exists(agent: ConsulAgent, kind: str, name: str) -> bool:
    return any(one["Name"] == name for one in await agent.api("GET", f"/v1/config/{kind}"))


async def instances_of(agent: ConsulAgent, service: str) -> list[tuple[str, str, int]]:
    rows = await agent.api("GET", f"/v1/catalog/service/{service}")
    return sorted((row["Node"], row["ServiceAddress"], row["ServicePort"]) for row in rows)


def client_of(agent: ConsulAgent, token: str | None = None) -> ConsulClient:
    secret = agent.management_token if token is None else token
    return ConsulClient(ConsulSettings(address=agent.http_address, token=secret))


async def planned(client: ConsulClient, wanted: LinkRequest) -> Plan:
    return plan_link(wanted, await find(client, wanted.service, wanted.gateway, wanted.node_name))


def request(service: str, gateway: str, **fields: Any) -> LinkRequest:
    return LinkRequest(service=service, gateway=gateway, **{"host": "10.0.0.9", "port": 5432, **fields})


async def test_from_link_to_traffic_to_unlink(acl_agent: ConsulAgent, work_dir: Path) -> None:
    gateway, service = "link-way-gateway", "link-way"
    rules = "\n".join(f'service "{name}" {{ policy = "write" }}' for name in (gateway, service))
    token = await acl_agent.create_token(f"{rules}\n{NODES}")
    web, batch = await MeshClient.of(acl_agent, "link-way-web"), await MeshClient.of(acl_agent, "link-way-batch")
    async with ExternalService(echo) as backend, Gateway(acl_agent, work_dir, gateway, token=token) as running:
        there = (f"--gateway={gateway}", f"--admin-address=127.0.0.1:{running.admin_port}")
        target = f"127.0.0.1:{backend.port}"
        said = await tgw(acl_agent, "link", service, target, "--allow=link-way-web", "--create", *there)
        assert said.code == 0, said.errors
        assert f"serves {service}" in said.output
        async with await dial(web, running, service) as connection:
            assert await connection.exchange(b"hello") == b"hello"
        await let_in(web, running, service)
        with pytest.raises(RefusedByGateway):
            async with await dial(batch, running, service) as connection:
                await connection.exchange(b"hello")
        said = await tgw(acl_agent, "unlink", service, "--purge", *there)
        assert said.code == 0, said.errors
        assert f"does not serve {service}" in said.output
        await kept_out(web, running, service)
    assert await instances_of(acl_agent, service) == []
    assert await sources_of(acl_agent, service) == {}
    assert not await exists(acl_agent, "terminating-gateway", gateway)
    assert "external-127-0-0-1" not in {one["Node"] for one in await acl_agent.api("GET", "/v1/catalog/nodes")}


async def test_a_second_time_changes_nothing(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-twice-gateway", "link-twice"
    arguments = ("link", service, "[fd00::2]:5432", "--allow=web", f"--gateway={gateway}", "--json")
    first = await tgw(consul_agent, *arguments, "--create")
    assert (first.code, first.json["result"], len(first.json["done"])) == (0, "changed", 3)
    before = await indexes(consul_agent, gateway, service)
    second = await tgw(consul_agent, *arguments)
    assert (second.code, second.json["result"], len(second.json["kept"])) == (0, "unchanged", 3)
    assert await indexes(consul_agent, gateway, service) == before
    assert await instances_of(consul_agent, service) == [("external-fd00-2", "fd00::2", 5432)]


async def indexes(agent: ConsulAgent, gateway: str, service: str) -> list[int]:
    found = [
        await agent.api("GET", f"/v1/config/terminating-gateway/{gateway}"),
        await agent.api("GET", f"/v1/config/service-intentions/{service}"),
        *await agent.api("GET", f"/v1/catalog/service/{service}"),
    ]
    return [int(one["ModifyIndex"]) for one in found]


async def test_a_dry_run_writes_nothing(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-dry-gateway", "link-dry"
    said = await tgw(
        consul_agent, "link", service, "db.example:1", "--allow=web", f"--gateway={gateway}", "--create", "--dry-run"
    )
    assert said.code == 0
    assert [line.partition(":")[0] for line in said.output.splitlines()[:3]] == ["would"] * 3
    assert not await exists(consul_agent, "terminating-gateway", gateway)
    assert await instances_of(consul_agent, service) == []
    assert await sources_of(consul_agent, service) == {}


async def test_an_entry_that_an_operator_keeps_survives(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-kept-gateway", "link-kept"
    await consul_agent.write_config(
        f"""
        Kind = "terminating-gateway"
        Name = "{gateway}"
        Meta = {{ owner = "team-a" }}
        Services = [
          {{ Name = "link-kept-ldap", CAFile = "/ldap.pem", SNI = "ldap.example", DisableAutoHostRewrite = true }},
        ]
        """
    )
    before = await consul_agent.api("GET", f"/v1/config/terminating-gateway/{gateway}")
    assert (await tgw(consul_agent, "link", service, "10.0.0.9:1", f"--gateway={gateway}")).code == 0
    between = await consul_agent.api("GET", f"/v1/config/terminating-gateway/{gateway}")
    assert between["Services"] == [*before["Services"], {"Name": service}]
    assert between["Meta"] == {"owner": "team-a"}
    assert (await tgw(consul_agent, "unlink", service, "--purge", f"--gateway={gateway}")).code == 0
    after = await consul_agent.api("GET", f"/v1/config/terminating-gateway/{gateway}")
    assert {**after, "ModifyIndex": 0} == {**before, "ModifyIndex": 0}


async def test_an_edit_that_came_first_is_not_lost(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-cas-gateway", "link-cas"
    await consul_agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": []})
    await consul_agent.write_intention("link-cas-first", service, "deny")
    async with client_of(consul_agent) as client:
        plan = await planned(client, request(service, gateway, allow=("web",)))
        other = {"Name": "link-cas-other", "CAFile": "/other.pem"}
        await consul_agent.write_config(
            {"Kind": "terminating-gateway", "Name": gateway, "Services": [other], "Meta": {"by": "somebody"}}
        )
        await consul_agent.write_intention("link-cas-second", service, "deny")
        outcome = await carry_out(client, plan)
    assert (outcome.problem, outcome.left) == (None, ())
    entry = await consul_agent.api("GET", f"/v1/config/terminating-gateway/{gateway}")
    assert (entry["Services"], entry["Meta"]) == ([other, {"Name": service}], {"by": "somebody"})
    wanted = {"link-cas-first": "deny", "link-cas-second": "deny", "web": "allow"}
    assert await sources_of(consul_agent, service) == wanted


async def test_many_at_once_lose_nothing(consul_agent: ConsulAgent) -> None:
    gateway = "link-many-gateway"
    await consul_agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": []})
    services = [f"link-many-{number}" for number in range(8)]
    async with client_of(consul_agent) as client:
        plans = [await planned(client, request(service, gateway)) for service in services]
        outcomes = await asyncio.gather(*(carry_out(client, plan) for plan in plans))
    assert [outcome.problem for outcome in outcomes] == [None] * len(services)
    assert {link["Name"] for link in await links_of(consul_agent, gateway)} == set(services)


async def test_a_deny_that_came_first_stays_and_the_rest_is_said(
    consul_agent: ConsulAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, service = "link-late-gateway", "link-late"
    for name, value in consul_agent.cli_environment().items():
        monkeypatch.setenv(name, value)

    async def planner(client: ConsulClient) -> Plan:
        plan = await planned(client, request(service, gateway, allow=("web",), create=True))
        await consul_agent.write_intention("web", service, "deny")
        return plan

    code, said = await performed(planner, service, gateway)
    assert (code, said["result"], len(said["done"]), said["todo"]) == (3, "partly", 2, [f"allow web to call {service}"])
    assert "--replace" in said["problem"]
    assert await sources_of(consul_agent, service) == {"web": "deny"}


async def performed(planner: Any, service: str, gateway: str) -> tuple[int, dict[str, Any]]:
    said: list[str] = []
    waiting = WaitFor(service=service, gateway=gateway, served=True, wait_s=0.0, admin_address="", runtime_dir=None)
    showing = Showing(dry_run=False, as_hcl=False, as_json=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plugin.cli.link_output.click.echo", lambda text, **_: said.append(text))
        code = await asyncio.to_thread(perform, planner, showing, waiting)
    return code, json.loads(said[-1])


async def test_a_deny_is_opened_only_when_told(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-deny-gateway", "link-deny"
    await consul_agent.write_intention("web", service, "deny")
    arguments = ("link", service, "10.0.0.9:1", "--allow=web", f"--gateway={gateway}", "--create")
    refused = await tgw(consul_agent, *arguments)
    assert refused.code == 1
    assert "--replace" in refused.errors
    assert not await exists(consul_agent, "terminating-gateway", gateway)
    assert await instances_of(consul_agent, service) == []
    assert (await tgw(consul_agent, *arguments, "--replace")).code == 0
    assert await sources_of(consul_agent, service) == {"web": "allow"}


async def test_permissions_of_others_keep_their_place(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-l7-gateway", "link-l7"
    await consul_agent.write_config({"Kind": "service-defaults", "Name": service, "Protocol": "http"})
    permissions = [{"Action": "allow", "HTTP": {"PathPrefix": "/x", "Methods": ["GET"]}}, *deny_rest()]
    rows = [{"Name": "a", "Permissions": permissions}, {"Name": "*", "Action": "deny", "Description": "closed"}]
    await consul_agent.write_config(
        {"Kind": "service-intentions", "Name": service, "Sources": rows, "Meta": {"owner": "x"}}
    )
    before = await consul_agent.api("GET", f"/v1/config/service-intentions/{service}")
    arguments = (service, f"--gateway={gateway}")
    assert (await tgw(consul_agent, "link", service, "10.0.0.9:1", "--allow=web", "--create", arguments[1])).code == 0
    after = await consul_agent.api("GET", f"/v1/config/service-intentions/{service}")
    assert [row["Name"] for row in after["Sources"]] == ["a", "web", "*"]
    assert [row for row in after["Sources"] if row["Name"] != "web"] == before["Sources"]
    assert after["Meta"] == {"owner": "x"}
    assert (await tgw(consul_agent, "unlink", *arguments, "--purge")).code == 0
    last = await consul_agent.api("GET", f"/v1/config/service-intentions/{service}")
    assert {**last, "ModifyIndex": 0} == {**before, "ModifyIndex": 0}


def deny_rest() -> list[dict[str, Any]]:
    return [{"Action": "deny", "HTTP": {"PathPrefix": "/"}}]


async def test_the_files_say_what_the_command_does(consul_agent: ConsulAgent, work_dir: Path) -> None:
    gateway, service = "link-hcl-gateway", "link-hcl"
    await consul_agent.write_config(
        {"Kind": "terminating-gateway", "Name": gateway, "Services": [{"Name": "x"}], "Meta": {"a b": 'q"ü\n${x}'}}
    )
    arguments = ("link", service, "db.example:5432", "--ca=/ca.pem", "--sni=db.example", "--allow=web")
    said = await tgw(consul_agent, *arguments, f"--gateway={gateway}", "--hcl")
    assert said.code == 0, said.errors
    assert await links_of(consul_agent, gateway) == [{"Name": "x"}]
    entry, intention, registration = re.split(r"^# .*\n", said.output, flags=re.MULTILINE)[1:]
    await consul_agent.write_config(entry)
    await consul_agent.write_config(intention)
    await consul_agent.api("PUT", "/v1/catalog/register", json.loads(registration))
    there = await tgw(consul_agent, *arguments, f"--gateway={gateway}", "--json")
    assert (there.code, there.json["result"]) == (0, "unchanged")
    written = await consul_agent.api("GET", f"/v1/config/terminating-gateway/{gateway}")
    assert written["Meta"] == {"a b": 'q"ü\n${x}'}


REFUSED_BY_CONSUL: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [
    (("--ca=/a", "--cert=/c"), {"Services": [{"Name": "s", "CAFile": "/a", "CertFile": "/c"}]}),
    (("--ca=/a", "--key=/k"), {"Services": [{"Name": "s", "CAFile": "/a", "KeyFile": "/k"}]}),
    (("--cert=/c", "--key=/k"), {"Services": [{"Name": "s", "CertFile": "/c", "KeyFile": "/k"}]}),
    (("--gateway=link-ingress",), {"Name": "link-ingress", "Services": [{"Name": "s"}]}),
    (("--gateway=",), {"Name": "", "Services": [{"Name": "s"}]}),
]


@pytest.mark.parametrize(("flags", "entry"), REFUSED_BY_CONSUL)
async def test_what_consul_refuses_is_refused_before(
    consul_agent: ConsulAgent, flags: tuple[str, ...], entry: Mapping[str, Any]
) -> None:
    await consul_agent.write_config({"Kind": "ingress-gateway", "Name": "link-ingress"})
    with pytest.raises(ConsulRejected):
        await consul_agent.write_config({"Kind": "terminating-gateway", "Name": "link-refused", **entry})
    arguments = ("link", "link-refused", "10.0.0.9:1", "--create", "--gateway=link-refused-gateway", *flags)
    said = await tgw(consul_agent, *arguments)
    assert said.code == 1, said.output
    assert "nothing was changed" in said.errors
    assert await instances_of(consul_agent, "link-refused") == []


async def test_what_the_mesh_or_an_agent_owns_is_left_alone(consul_agent: ConsulAgent) -> None:
    sidecar = {"Name": "link-mesh", "Port": 1, "Connect": {"SidecarService": {"Port": 2}}}
    await consul_agent.register_service(sidecar)
    try:
        flags = ("--gateway=link-mesh-gateway", "--create")
        said = await tgw(consul_agent, "link", "link-mesh", "10.0.0.9:1", *flags)
        assert said.code == 1
        assert "is in the mesh" in said.errors
        said = await tgw(consul_agent, "link", "link-out", "10.0.0.9:1", *flags, f"--node={consul_agent.node_name}")
        assert said.code == 1
        assert "runs a Consul agent" in said.errors
    finally:
        await consul_agent.deregister_service("link-mesh")
    assert not await exists(consul_agent, "terminating-gateway", "link-mesh-gateway")


async def test_what_was_registered_by_others_stays(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-theirs-gateway", "link-theirs"
    await consul_agent.register_external("link-theirs-node", "10.0.0.8", service, 5432, tags=["kept"])
    there = f"--gateway={gateway}"
    said = await tgw(consul_agent, "link", service, "10.0.0.8:5432", "--create", there, "--json")
    assert (said.code, len(said.json["done"])) == (0, 1)
    assert (await tgw(consul_agent, "link", service, "10.0.0.9:5432", there)).code == 0
    said = await tgw(consul_agent, "unlink", service, "--purge", there)
    assert said.code == 0
    assert "which consul-tgw did not register" in said.output
    assert await instances_of(consul_agent, service) == [("link-theirs-node", "", 5432)]
    (row,) = await consul_agent.api("GET", f"/v1/catalog/service/{service}")
    assert row["ServiceTags"] == ["kept"]


async def test_all_missing_rules_are_named_before_anything_is_written(acl_agent: ConsulAgent) -> None:
    gateway, service = "link-rules-gateway", "link-rules"
    rules = [f'service "{gateway}" {{ policy = "read" }}', f'service "{service}" {{ policy = "read" }}', NODES]
    token = await acl_agent.create_token("\n".join(rules))
    arguments = ("link", service, "10.0.0.9:1", "--allow=web", "--create", f"--gateway={gateway}", "--json")
    said = await tgw(acl_agent, *arguments, token=token)
    assert (said.code, said.json["result"], said.json["done"]) == (1, "refused", [])
    missing = said.json["rules"]
    assert len(missing) == 4
    assert not await exists(acl_agent, "terminating-gateway", gateway)
    assert await instances_of(acl_agent, service) == []
    # What was named is enough.
    intentions = next(rule for rule in missing if "intentions" in rule)
    wide = [rule for rule in missing if service not in rule]
    wide.append(f'service "{service}" {{ policy = "write", intentions = "write" }}')
    assert intentions == f'service "{service}" {{ policy = "read", intentions = "write" }}'
    enough = await acl_agent.create_token("\n".join([rules[0], NODES, *wide]))
    said = await tgw(acl_agent, *arguments, token=enough)
    assert (said.code, len(said.json["done"])) == (0, 3), said.output
    await acl_agent.write_config({"Kind": "terminating-gateway", "Name": "link-rules-unseen", "Services": []})
    purge = ("unlink", service, "--purge", f"--gateway={gateway}")
    said = await tgw(acl_agent, *purge, token=enough)
    assert said.code == 1
    assert SERVICES in said.errors
    assert len(await instances_of(acl_agent, service)) == 1
    sees_all = await acl_agent.create_token("\n".join([SERVICES, NODES, *wide]))
    said = await tgw(acl_agent, *purge, token=sees_all)
    assert said.code == 0, said.output + said.errors


async def test_a_write_that_fails_names_its_rule_and_what_was_done(acl_agent: ConsulAgent) -> None:
    gateway, service = "link-part-gateway", "link-part"
    rules = [
        f'service "{gateway}" {{ policy = "read" }}',
        'mesh = "write"',
        NODES,
        'node_prefix "ext" { policy = "write" }',
    ]
    token = await acl_agent.create_token(
        "\n".join([*rules, f'service "{service}" {{ policy = "write", intentions = "read" }}'])
    )
    async with client_of(acl_agent, token) as client:
        plan = await planned(client, request(service, gateway, allow=("web",), create=True))
        outcome = await carry_out(client, plan)
    assert isinstance(outcome.problem, ConsulForbidden)
    assert outcome.problem.rule == f'service "{service}" {{ policy = "read", intentions = "write" }}'
    assert (len(outcome.done), outcome.left) == (2, (f"allow web to call {service}",))
    said = await tgw(acl_agent, "link", service, "10.0.0.9:5432", "--allow=web", f"--gateway={gateway}", "--json")
    assert (said.code, said.json["done"]) == (0, [f"allow web to call {service}"])


async def test_what_is_hidden_is_not_guessed(acl_agent: ConsulAgent) -> None:
    gateway, service = "link-hidden-gateway", "link-hidden"
    await acl_agent.register_external("link-hidden-node", "10.0.0.8", service, 5432)
    rules = [f'service "{name}" {{ policy = "write" }}' for name in (gateway, service)]
    token = await acl_agent.create_token("\n".join(rules))
    said = await tgw(acl_agent, "unlink", service, "--purge", f"--gateway={gateway}", token=token)
    assert said.code == 2
    assert NODES in said.errors


async def test_a_node_with_services_that_are_hidden_stays(acl_agent: ConsulAgent) -> None:
    gateway, service, hidden = "link-shared-gateway", "link-shared", "link-shared-other"
    flags = ("--node=link-shared-node", "--create", f"--gateway={gateway}")
    assert (await tgw(acl_agent, "link", service, "10.0.0.9:1", *flags)).code == 0
    assert (await tgw(acl_agent, "link", hidden, "10.0.0.9:2", *flags)).code == 0
    rules = [f'service "{name}" {{ policy = "write" }}' for name in (gateway, service)]
    rules += ['mesh = "write"', 'node_prefix "" { policy = "write" }', SERVICES]
    rules.append(f'service "{hidden}" {{ policy = "deny" }}')
    token = await acl_agent.create_token("\n".join(rules))
    said = await tgw(acl_agent, "unlink", service, "--purge", f"--gateway={gateway}", token=token)
    assert said.code == 0, said.errors
    assert await instances_of(acl_agent, service) == []
    assert await instances_of(acl_agent, hidden) == [("link-shared-node", "10.0.0.9", 2)]


async def test_a_gateway_that_does_not_follow_is_told_with_its_reason(
    consul_agent: ConsulAgent, authority: Authority, work_dir: Path
) -> None:
    gateway, service = "link-stuck-gateway", "link-stuck"
    absent = work_dir / "absent.pem"
    async with (
        ExternalService(echo, tls=authority.server("stuck.example")) as backend,
        Gateway(consul_agent, work_dir, gateway) as running,
    ):
        there = (f"--gateway={gateway}", f"--admin-address=127.0.0.1:{running.admin_port}")
        arguments = ("link", service, f"127.0.0.1:{backend.port}", f"--ca={absent}", "--sni=stuck.example", *there)
        said = await tgw(consul_agent, *arguments, "--create", "--wait=1")
        assert said.code == 4
        assert re.search(rf"has not followed within 1 s: .*{absent}", said.output)
        authority.write(work_dir, "absent")
        said = await tgw(consul_agent, *arguments)
        assert said.code == 0, said.output
        client = await MeshClient.of(consul_agent, "link-stuck-web")
        await let_in(client, running, service)


async def test_consul_cannot_be_asked(consul_agent: ConsulAgent) -> None:
    environment = consul_agent.cli_environment()
    environment["CONSUL_HTTP_ADDR"] = f"http://127.0.0.1:{free_ports(1)[0]}"
    for arguments in (("link", "db", "10.0.0.9:1"), ("unlink", "db")):
        said = await consul_tgw(*arguments, environment=environment)
        assert said.code == 2
        assert environment["CONSUL_HTTP_ADDR"] in said.errors
        assert "Traceback" not in said.errors


async def test_a_plan_is_refused_when_the_link_was_changed_meanwhile(consul_agent: ConsulAgent) -> None:
    gateway, service = "link-meanwhile-gateway", "link-meanwhile"
    await consul_agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": []})
    theirs = [{"Name": service, "CAFile": "/theirs.pem"}]
    async with client_of(consul_agent) as client:
        plan = await planned(client, request(service, gateway, allow=("web",)))
        await consul_agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": theirs})
        outcome = await carry_out(client, plan)
    assert isinstance(outcome.problem, Refused)
    assert (outcome.done, len(outcome.left)) == ((), 3)
    assert await links_of(consul_agent, gateway) == theirs
    assert await instances_of(consul_agent, service) == []
