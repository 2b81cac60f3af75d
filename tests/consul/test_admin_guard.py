"""The admin API of a running gateway against those who should not use it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from plugin.errors import StartError
from tests.support.command import consul_tgw
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

SLOW = 300
TOKEN = "an-admin-token-for-this-test-alone"


class OnUnixSocket(Gateway):
    """Its admin pages are at ``path``."""

    def __init__(self, agent: ConsulAgent, work_dir: Path, name: str, path: Path) -> None:
        super().__init__(agent, work_dir, name, arguments=[f"--admin-address=unix://{path}"])
        self._path = path

    async def _get(self, path: str) -> tuple[int, str]:
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._path))) as session,
                session.get(f"http://localhost{path}") as answer,
            ):
                return answer.status, await answer.text()
        except aiohttp.ClientError as error:
            raise StartError(str(error)) from error


def descriptors(gateway: Gateway) -> int:
    assert gateway.child is not None
    return len(os.listdir(f"/proc/{gateway.child.pid}/fd"))


async def ask(gateway: Gateway, method: str, path: str, **headers: str) -> tuple[int, str]:
    """``Sec_Fetch_Site="x"`` is the header ``Sec-Fetch-Site: x``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"http://127.0.0.1:{gateway.admin_port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, json={}, headers=named) as answer:
        return answer.status, await answer.text()


def logged(gateway: Gateway, event: str) -> int:
    return gateway.log_path.read_text().count(event)


async def test_strangers_change_nothing_and_its_own_user_does(consul_agent: ConsulAgent, work_dir: Path) -> None:
    async with Gateway(consul_agent, work_dir, "admin-strangers") as gateway:
        assert (await ask(gateway, "POST", "/api/refresh"))[0] == 401
        assert (await ask(gateway, "POST", "/api/refresh", Authorization="Bearer wrong"))[0] == 401
        assert (await ask(gateway, "GET", "/api/status", Host="rebound.example"))[0] == 403
        assert (await ask(gateway, "GET", "/api/status", Sec_Fetch_Site="cross-site"))[0] == 403
        assert (await ask(gateway, "GET", "/api/status", Origin="http://evil.example"))[0] == 403
        assert logged(gateway, "gateway.reload") == 0
        environment = consul_agent.cli_environment()
        run = f"--runtime-dir={work_dir / 'run'}"
        wrong = await consul_tgw("refresh", run, environment={**environment, "CONSUL_TGW_ADMIN_TOKEN": TOKEN})
        assert (wrong.code, "answered 401" in wrong.errors) == (2, True)
        done = await consul_tgw("refresh", run, environment=environment)
        assert (done.code, done.output, done.errors) == (0, "", "")
        await eventually(lambda: logged(gateway, "gateway.reload") == 1)
        (token_file,) = (work_dir / "run").glob("*/admin-token")
        assert token_file.stat().st_mode & 0o777 == 0o600


async def test_slow_requests_harm_nobody(consul_agent: ConsulAgent, work_dir: Path) -> None:
    async with Gateway(consul_agent, work_dir, "admin-slow") as gateway:
        await ask(gateway, "GET", "/health")
        before = descriptors(gateway)
        writers = []
        for _ in range(SLOW):
            _, writer = await asyncio.open_connection("127.0.0.1", gateway.admin_port)
            writer.write(b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nX: ")
            writers.append(writer)
        for _ in range(20):
            async with asyncio.timeout(10):
                assert await ask(gateway, "GET", "/health") == (200, "alive\n")
        assert descriptors(gateway) < before + SLOW
        await eventually(lambda: descriptors(gateway) <= before)
        for writer in writers:
            writer.close()


async def test_a_unix_socket_is_asked_by_the_commands(consul_agent: ConsulAgent, work_dir: Path) -> None:
    path = work_dir / "admin.sock"
    async with OnUnixSocket(consul_agent, work_dir, "admin-unix", path) as gateway:
        assert path.stat().st_mode & 0o777 == 0o600
        environment = consul_agent.cli_environment()
        found = await consul_tgw("status", "--json", f"--runtime-dir={work_dir / 'run'}", environment=environment)
        assert found.json["service"] == "admin-unix"
        named = await consul_tgw("status", "--json", f"--admin-address=unix://{path}", environment=environment)
        assert named.json["pid"] == found.json["pid"]
        run = f"--runtime-dir={work_dir / 'run'}"
        done = await consul_tgw("refresh", run, f"--admin-address=unix://{path}", environment=environment)
        assert (done.code, done.errors) == (0, "")
        await eventually(lambda: logged(gateway, "gateway.reload") == 1)


async def test_an_address_for_other_hosts_wants_a_token(consul_agent: ConsulAgent, work_dir: Path) -> None:
    port = free_ports(1)[0]
    arguments = [f"--admin-address=0.0.0.0:{port}"]
    with pytest.raises(StartError, match=r"--admin-address 0\.0\.0\.0 can be reached from other hosts"):
        await Gateway(consul_agent, work_dir, "admin-open", admin_port=port, arguments=arguments).start()
    token_file = work_dir / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    arguments.append(f"--admin-token-file={token_file}")
    async with Gateway(consul_agent, work_dir, "admin-open", admin_port=port, arguments=arguments) as gateway:
        assert (await ask(gateway, "GET", "/metrics"))[0] == 200
        assert (await ask(gateway, "GET", "/api/snapshot"))[0] == 401
        status, text = await ask(gateway, "GET", "/api/status", Authorization=f"Bearer {TOKEN}")
        decoded: dict[str, Any] = json.loads(text)
        assert (status, decoded["service"]) == (200, "admin-open")
        assert not list((work_dir / "run").glob("*/admin-token"))
