"""``consul-tgw check``, ``status`` and ``snapshot`` as an operator types them, against a real agent."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority
from plugin.dev.processes import free_ports
from tests.support.command import Said, consul_tgw
from tests.support.linking import Links, dial, serves
from tests.support.mesh_client import MeshClient
from tests.support.rights import NODES, write

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def check(agent: ConsulAgent, gateway: str, token: str, *arguments: str) -> Said:
    environment = agent.cli_environment(token)
    return await consul_tgw("check", f"--service={gateway}", "--patience=5", *arguments, environment=environment)


async def test_nothing_is_missing(acl_agent: ConsulAgent, work_dir: Path) -> None:
    gateway, service = "check-good-gateway", "check-good"
    token = await acl_agent.create_token(f"{write(gateway, service)}\n{NODES}")
    async with (
        ExternalService(echo) as backend,
        Gateway(acl_agent, work_dir, gateway, token=token) as running,
    ):
        await Links(acl_agent, gateway).add(service, backend.port)
        await serves(running, service)
        said = await check(acl_agent, gateway, token, "--json")
        assert (said.code, said.findings) == (0, {})
        shown = await check(acl_agent, gateway, token)
        assert shown.code == 0
        assert "missing" not in shown.output
        assert service in shown.output


async def test_the_missing_write_right_on_one_service_is_named(acl_agent: ConsulAgent) -> None:
    gateway, good, bad = "check-rule-gateway", "check-rule-good", "check-rule-bad"
    await link(acl_agent, gateway, good, bad)
    token = await acl_agent.create_token(f'{write(gateway, good)}\nservice "{bad}" {{ policy = "read" }}\n{NODES}')
    said = await check(acl_agent, gateway, token, "--json")
    assert said.code == 1
    missing = missing_of(said)
    assert set(missing) == {bad}
    assert [one["rule"] for one in missing[bad]] == [f'service "{bad}" {{ policy = "write" }}']
    shown = await check(acl_agent, gateway, token)
    assert f'ACL rule: service "{bad}" {{ policy = "write" }}' in shown.output


async def test_the_missing_node_right_is_named(acl_agent: ConsulAgent) -> None:
    gateway, service = "check-node-gateway", "check-node"
    await link(acl_agent, gateway, service)
    token = await acl_agent.create_token(write(gateway, service))
    said = await check(acl_agent, gateway, token, "--json")
    assert said.code == 1
    assert {one["rule"] for one in missing_of(said)[service]} == {NODES}


async def test_a_missing_entry_is_told_from_one_that_may_not_be_read(acl_agent: ConsulAgent) -> None:
    gateway = "check-absent-gateway"
    token = await acl_agent.create_token(f"{write(gateway)}\n{NODES}")
    absent = await check(acl_agent, gateway, token, "--json")
    assert absent.code == 1
    (finding,) = missing_of(absent)[""]
    assert f"no terminating-gateway entry named {gateway}" in finding["text"]
    stranger = await acl_agent.create_token(NODES)
    hidden = await check(acl_agent, gateway, stranger, "--json")
    assert hidden.code == 1
    assert f'service "{gateway}" {{ policy = "read" }}' in {one["rule"] for one in missing_of(hidden)[""]}


async def test_missing_and_broken_files_and_a_missing_instance_are_named(
    consul_agent: ConsulAgent, authority: Authority, work_dir: Path
) -> None:
    gateway = "check-files-gateway"
    links = Links(consul_agent, gateway)
    pair = authority.client("gateway")
    certificate, key = pair.write(work_dir, "client")
    ca_file = authority.write(work_dir, "ca")
    absent, junk = work_dir / "absent.pem", work_dir / "junk.key"
    junk.write_text("this is no key\n")
    port = free_ports(1)[0]
    await links.add("check-files-good", port, CAFile=str(ca_file), CertFile=str(certificate), KeyFile=str(key))
    await links.add("check-files-absent", port, CAFile=str(absent))
    await links.add("check-files-junk", port, CAFile=str(ca_file), CertFile=str(certificate), KeyFile=str(junk))
    await links.set("check-files-unregistered")
    said = await check(consul_agent, gateway, "", "--json")
    assert said.code == 1
    missing = missing_of(said)
    assert set(missing) == {"check-files-absent", "check-files-junk", "check-files-unregistered"}
    assert str(absent) in missing["check-files-absent"][0]["text"]
    assert str(junk) in missing["check-files-junk"][0]["text"]
    assert "no instance" in missing["check-files-unregistered"][0]["text"]


async def test_consul_cannot_be_asked(consul_agent: ConsulAgent) -> None:
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    environment = consul_agent.cli_environment() | {"CONSUL_HTTP_ADDR": address}
    said = await consul_tgw("check", "--service=any", "--patience=1", environment=environment)
    assert said.code == 2
    assert address in said.errors
    assert "Traceback" not in said.errors


async def test_a_setting_that_cannot_be_used(consul_agent: ConsulAgent) -> None:
    environment = consul_agent.cli_environment() | {"CONSUL_HTTP_ADDR": "ftp://127.0.0.1"}
    said = await consul_tgw("check", "--service=any", environment=environment)
    assert said.code == 2
    assert "CONSUL_HTTP_ADDR" in said.errors


@pytest_asyncio.fixture(loop_scope="session")
async def token(acl_agent: ConsulAgent) -> str:
    return await acl_agent.create_token(f"{write('check-shown-gateway', 'check-shown', 'check-hidden')}\n{NODES}")


async def test_status_and_snapshot_of_a_running_gateway(
    acl_agent: ConsulAgent, authority: Authority, work_dir: Path, token: str
) -> None:
    name, service, broken = "check-shown-gateway", "check-shown", "check-hidden"
    pair = authority.client("gateway")
    certificate, key = pair.write(work_dir, "client")
    ca_file = str(authority.write(work_dir, "ca"))
    absent = str(work_dir / "absent.pem")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CONSUL_")}
    here = (f"--service={name}", f"--runtime-dir={work_dir / 'run'}")
    async with (
        ExternalService(echo, tls=authority.server("check.example")) as backend,
        Gateway(acl_agent, work_dir, name, token=token) as running,
    ):
        links = Links(acl_agent, name)
        await links.add(service, backend.port, CAFile=ca_file, CertFile=str(certificate), KeyFile=str(key))
        await links.add(broken, backend.port, CAFile=absent)
        await acl_agent.write_intention("check-client", service)
        await serves(running, service)
        client = await MeshClient.of(acl_agent, "check-client")
        async with await dial(client, running, service) as connection:
            assert await connection.exchange(b"hello") == b"hello"
            shown = await consul_tgw("status", *here, environment=environment)
            assert shown.code == 0, shown.errors
            assert re.search(rf"{service}\W+served", shown.output)
            assert re.search(rf"{broken}\W+not served", shown.output)
            assert absent in shown.output
            said = await consul_tgw("status", "--json", *here, environment=environment)
        status = json.loads(said.output)
        assert [one["name"] for one in status["services"] if one["served"]] == [service]
        said = await consul_tgw("snapshot", *here, environment=environment)
        assert said.code == 0, said.errors
        snapshot = json.loads(said.output)
        (upsert,) = snapshot["upserts"]
        assert upsert["name"]["name"] == service
        assert [(one["source"], one["action"]) for one in upsert["intentions"]] == [("check-client", "allow")]
        assert_without_secrets(shown.output + json.dumps(status) + said.output, pair.private_key_pem, token)
    gone = await consul_tgw("status", *here, environment=environment)
    assert gone.code == 2
    assert name in gone.errors


def assert_without_secrets(text: str, private_key_pem: str, token: str) -> None:
    assert "BEGIN CERTIFICATE" in text
    assert "PRIVATE KEY" not in text
    body = "".join(private_key_pem.splitlines()[1:-1])
    assert body[20:60] not in text.replace("\\n", "").replace("\n", "")
    assert token not in text


def missing_of(said: Said) -> dict[str, list[dict[str, Any]]]:
    kept = {name: [one for one in found if one["level"] == "missing"] for name, found in said.findings.items()}
    return {name: found for name, found in kept.items() if found}


async def link(agent: ConsulAgent, gateway: str, *services: str) -> None:
    links = Links(agent, gateway)
    for service in services:
        await links.add(service, free_ports(1)[0])
