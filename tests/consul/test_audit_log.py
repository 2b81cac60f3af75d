"""The audit log of a running gateway: who was denied and let in, what policy changed and ended, who asked for what."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from plugin.admin.audited import fingerprint
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from tests.support.eventually import eventually
from tests.support.linking import Links, dial, kept_out, let_in, serves
from tests.support.mesh_client import MeshClient, Refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

GATEWAY, SERVICE, FRIEND, STRANGER = "audited-gateway", "audited-db", "audited-friend", "audited-stranger"
TOKEN = "a-secret-of-enough-length-for-this"


@dataclass(frozen=True, kw_only=True)
class Stage:
    agent: ConsulAgent
    gateway: Gateway
    path: Path
    friend: MeshClient
    stranger: MeshClient
    links: Links
    backend: ExternalService

    def lines(self, event: str = "", path: Path | None = None) -> list[dict[str, Any]]:
        text = (path or self.path).read_text()
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in found if not event or line["event"] == event]

    async def line(self, event: str, **fields: object) -> dict[str, Any]:
        """Wait for it."""
        found: list[dict[str, Any]] = []

        async def written() -> bool:
            found[:] = [one for one in self.lines(event) if all(one.get(key) == fields[key] for key in fields)]
            return bool(found)

        await eventually(written, what=f"{event} {fields} is in the audit log")
        return found[-1]

    async def post(self, path: str, token: str) -> int:
        address = f"http://127.0.0.1:{self.gateway.admin_port}{path}"
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as session, session.post(address, json={}, headers=headers) as answer:
            return answer.status


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(consul_agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("audit")
    path = folder / "audit.log"
    async with ExternalService(echo) as backend:
        links = Links(consul_agent, GATEWAY)
        await links.add(SERVICE, backend.port)
        await consul_agent.write_intention(FRIEND, SERVICE)
        await consul_agent.write_intention(STRANGER, SERVICE, "deny")
        arguments, environment = [f"--audit-log={path}"], {"CONSUL_TGW_ADMIN_TOKEN": TOKEN}
        async with Gateway(consul_agent, folder, GATEWAY, arguments=arguments, environment=environment) as gateway:
            await serves(gateway, SERVICE)
            friend, stranger = [await MeshClient.of(consul_agent, name) for name in (FRIEND, STRANGER)]
            yield Stage(
                agent=consul_agent,
                gateway=gateway,
                path=path,
                friend=friend,
                stranger=stranger,
                links=links,
                backend=backend,
            )


async def test_it_is_private_and_begins_with_what_is_in_force(stage: Stage) -> None:
    assert stat.S_IMODE(os.stat(stage.path).st_mode) == 0o600
    assert (await stage.line("gateway.started"))["gateway"] == GATEWAY
    line = await stage.line("policy.in_force", service=SERVICE)
    assert line["index"] > 0
    assert any(text.startswith(f"allow {FRIEND} => {SERVICE} ") for text in line["added"])
    assert any(text.startswith(f"deny {STRANGER} => {SERVICE} ") for text in line["added"])


async def test_a_denial_names_caller_intention_and_state(stage: Stage) -> None:
    await kept_out(stage.stranger, stage.gateway, SERVICE)
    line = await stage.line("connection.denied", service=SERVICE)
    assert line["source"].endswith(f"/svc/{STRANGER}")
    assert (line["reason"], line["gateway"], line["worker"]) == ("denied", GATEWAY, 0)
    assert line["intention"].startswith(f"{STRANGER} => {SERVICE} (precedence")
    assert line["generation"] > 0
    assert line["client"].startswith("127.0.0.1:")
    assert line["detail"]


async def test_who_is_let_in_is_told_once(stage: Stage) -> None:
    for _ in range(3):
        await let_in(stage.friend, stage.gateway, SERVICE)
    line = await stage.line("connection.allowed", service=SERVICE)
    assert line["source"].endswith(f"/svc/{FRIEND}")
    before = len(stage.lines("connection.denied"))
    await kept_out(stage.stranger, stage.gateway, SERVICE)
    await eventually(lambda: _soon(len(stage.lines("connection.denied")) > before), what="a later line is written")
    assert len(stage.lines("connection.allowed")) == 1


async def test_requests_are_decisions_too(stage: Stage) -> None:
    name = "audited-api"
    await stage.agent.write_config({"Kind": "service-defaults", "Name": name, "Protocol": "http"})
    await stage.agent.write_intention(FRIEND, name)
    await stage.agent.write_intention(STRANGER, name, "deny")
    await stage.links.add(name, stage.backend.port)
    await serves(stage.gateway, name)
    for client in (stage.friend, stage.stranger):
        async with await dial(client, stage.gateway, name) as connection:
            await connection.send(b"GET /orders?secret=1 HTTP/1.1\r\nHost: api.example\r\n\r\n")
            assert (await connection.receive()).startswith(b"HTTP/1.1 ")
    allowed = await stage.line("request.allowed", service=name)
    denied = await stage.line("request.denied", service=name)
    for line, caller in ((allowed, FRIEND), (denied, STRANGER)):
        assert line["source"].endswith(f"/svc/{caller}")
        assert (line["method"], line["path"], line["authority"]) == ("GET", "/orders", "api.example")
    assert denied["reason"] == "denied"
    assert "secret" not in stage.path.read_text()


async def _soon(holds: bool) -> bool:
    return holds


async def test_a_change_of_policy_and_whom_it_ends(stage: Stage) -> None:
    async with await dial(stage.friend, stage.gateway, SERVICE) as connection:
        assert await connection.exchange(b"ping") == b"ping"
        await stage.agent.write_intention(FRIEND, SERVICE, "deny")
        changed = await stage.line("policy.changed", service=SERVICE)
        assert changed["removed"][0].startswith(f"allow {FRIEND} => {SERVICE}")
        assert changed["added"][0].startswith(f"deny {FRIEND} => {SERVICE}")
        revoked = await stage.line("connection.revoked", service=SERVICE)
    assert (revoked["reason"], revoked["generation"]) == ("revoked", changed["generation"])
    assert revoked["source"].endswith(f"/svc/{FRIEND}")
    await stage.agent.write_intention(FRIEND, SERVICE)
    await let_in(stage.friend, stage.gateway, SERVICE)


async def test_admin_calls_tell_who_asked(stage: Stage) -> None:
    assert await stage.post("/api/refresh", TOKEN) == 202
    line = await stage.line("admin.call", status=202)
    assert (line["method"], line["path"], line["client"]) == ("POST", "/api/refresh", "127.0.0.1")
    assert line["token"] == fingerprint(TOKEN)
    assert await stage.post("/api/refresh", "another-secret-of-enough-length") == 401
    assert (await stage.line("admin.call", status=401))["token"] == ""
    await stage.line("gateway.refreshed")
    assert TOKEN not in stage.path.read_text()


@pytest.mark.parametrize("told", [True, False], ids=["SIGHUP", "untold"])
async def test_rotation_loses_nothing(stage: Stage, told: bool) -> None:
    former = stage.path.with_suffix(f".{told}")
    stage.path.rename(former)
    if told:
        assert stage.gateway.child is not None
        os.kill(stage.gateway.child.pid, signal.SIGHUP)
    await eventually(lambda: _soon(stage.path.exists()), 30.0, what="a new file is begun")

    async def workers_write_there() -> bool:
        with pytest.raises(Refused):
            async with await dial(stage.stranger, stage.gateway, SERVICE) as connection:
                await connection.exchange(b"ping")
        return bool(stage.lines("connection.denied"))

    await eventually(workers_write_there, what="workers write to the new file")
    assert stat.S_IMODE(os.stat(stage.path).st_mode) == 0o600
    assert stage.lines(path=former)


async def test_a_full_disk_loses_lines_and_stops_nothing(
    consul_agent: ConsulAgent, stage: Stage, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    await asyncio.to_thread(full.symlink_to, "/dev/full")
    name = "audited-full"
    links = Links(consul_agent, name)
    await links.set(SERVICE)
    async with Gateway(consul_agent, tmp_path, name, arguments=[f"--audit-log={full}"]) as gateway:
        await serves(gateway, SERVICE)
        await let_in(stage.friend, gateway, SERVICE)
        await kept_out(stage.stranger, gateway, SERVICE)

        async def counted() -> bool:
            metrics = await gateway.metrics()
            [line] = [
                one for one in metrics.splitlines() if one.startswith("consul_tgw_audit_log_lines_dropped_total ")
            ]
            return float(line.split()[1]) >= 3

        await eventually(counted, what="lost lines of worker and control process are counted")
        assert "audit_log.problem" in gateway.log_path.read_text()
