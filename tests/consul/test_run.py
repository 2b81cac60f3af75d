"""``consul-tgw run`` as operators run it: a real agent, real workers, real signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.gateway import Gateway
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

Start = Callable[..., Awaitable[Gateway]]


@pytest_asyncio.fixture(loop_scope="session")
async def start(consul_agent: ConsulAgent, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Gateway] = []

    async def start_one(name: str, **options: Any) -> Gateway:
        gateway = Gateway(consul_agent, tmp_path / name, name, **options)
        started.append(gateway)
        await gateway.start()
        return gateway

    yield start_one
    for gateway in started:
        await gateway.stop()


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def command(agent: ConsulAgent, *arguments: str) -> tuple[int | None, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "plugin", *arguments),
        env=agent.cli_environment(),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        output, _ = await child.communicate()
    return child.returncode, output.decode()


async def link(agent: ConsulAgent, gateway: str, *services: str) -> None:
    links = [{"Name": service} for service in services]
    await agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": links})


async def passing(agent: ConsulAgent, name: str) -> bool:
    rows = await agent.api("GET", f"/v1/health/service/{name}?passing=1")
    return bool(rows)


async def test_a_gateway_without_links_is_ready_and_passing(consul_agent: ConsulAgent, start: Start) -> None:
    gateway = await start("run-empty")
    await eventually(lambda: passing(consul_agent, "run-empty"))
    status = await gateway.status()
    assert (status["ready"], status["services"]) == (True, [])


async def test_services_come_and_go_with_the_links(consul_agent: ConsulAgent, start: Start) -> None:
    gateway = await start("run-links")
    await link(consul_agent, "run-links", "run-links-db")

    async def served() -> list[str]:
        return [service["name"] for service in (await gateway.status())["services"] if service["served"]]

    await eventually(lambda: _equals(served, ["run-links-db"]))
    await link(consul_agent, "run-links")
    await eventually(lambda: _equals(served, []))


async def test_status_snapshot_and_check_find_the_gateway(consul_agent: ConsulAgent, start: Start) -> None:
    await link(consul_agent, "run-ask", "run-ask-db")
    gateway = await start("run-ask")
    place = ("--runtime-dir", str(gateway.log_path.parent / "run"))
    await eventually(lambda: passing(consul_agent, "run-ask"))
    code, text = await command(consul_agent, "status", *place)
    assert code == 0, text
    assert "run-ask-db" in text
    code, text = await command(consul_agent, "snapshot", *place)
    assert code == 0, text
    assert "<redacted>" in text
    assert "PRIVATE KEY" not in text
    code, text = await command(consul_agent, "check", "--service", "run-ask")
    assert code == 1
    assert "run-ask-db has no instance that can be reached" in text


async def test_a_second_one_is_refused_by_the_pid_of_the_first(consul_agent: ConsulAgent, start: Start) -> None:
    gateway = await start("run-twice")
    assert gateway.child is not None
    code, text = await command(
        consul_agent,
        *("run", "--service", "run-twice", "--address", f"{gateway.address}:{gateway.port}"),
        *("--runtime-dir", str(gateway.log_path.parent / "run")),
    )
    assert code == 2
    assert f"process {gateway.child.pid} already runs this gateway" in text
    assert "Traceback" not in text


async def test_a_killed_worker_is_replaced(start: Start) -> None:
    gateway = await start("run-worker", workers=2)
    before = set(gateway.worker_pids())
    os.kill(min(before), signal.SIGKILL)
    await eventually(lambda: len(set(gateway.worker_pids()) - {min(before)}) == 2)
    await eventually(gateway.is_ready)
    assert (await gateway.status())["worker_restarts"] == 1


async def test_workers_outlive_a_killed_control_process_and_are_taken_over(start: Start) -> None:
    gateway = await start("run-killed", workers=2)
    before = set(gateway.worker_pids())
    await gateway.kill_control()
    await gateway.start()
    workers = (await gateway.status())["workers"]
    assert {worker["pid"] for worker in workers} == before
    assert all(worker["adopted"] for worker in workers)


async def test_sigterm_leaves_consul_and_ends_every_process(consul_agent: ConsulAgent, start: Start) -> None:
    gateway = await start("run-term")
    workers = gateway.worker_pids()
    await gateway.stop()
    assert "run-term" not in await consul_agent.api("GET", "/v1/agent/services")
    assert not any(map(exists, workers))


async def _equals(ask: Callable[[], Awaitable[object]], wanted: object) -> bool:
    return await ask() == wanted
