"""Stopping one of two gateways under real traffic: who moves when, and what live connections notice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import Sidecar
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.processes import free_ports
from plugin.errors import StartError
from plugin.process.tasks import spawn
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, let_in, sample, serves
from tests.support.mesh_client import MeshClient

pytestmark = pytest.mark.asyncio(loop_scope="session")

DELAY_S = 6.0 * SCALE


class Knocker:
    """Opens one connection after the other, and keeps what went wrong."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.done = 0
        self.failures: list[str] = []

    async def knock(self) -> None:
        try:
            async with asyncio.timeout(20 * SCALE):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(b"knock")
                answer = await reader.readexactly(5)
                writer.close()
            if answer != b"knock":
                self.failures.append(repr(answer))
        except (OSError, EOFError, TimeoutError) as error:
            self.failures.append(repr(error))
        self.done += 1

    async def run(self) -> None:
        while True:
            await self.knock()

    @asynccontextmanager
    async def knocking(self) -> AsyncIterator[None]:
        task = spawn(self.run(), name="knocking")
        try:
            yield
        finally:
            task.cancel()


def carried(gateway: Gateway) -> int:
    return sum(record["verdict"] == "allowed" for record in gateway.access_records())


async def phase(gateway: Gateway) -> str:
    try:
        return str((await gateway.status())["phase"])
    except StartError:
        return "gone"


def terminate(gateway: Gateway) -> None:
    assert gateway.child is not None
    os.kill(gateway.child.pid, signal.SIGTERM)


async def test_sidecars_have_moved_before_the_sockets_close(consul_agent: ConsulAgent, tmp_path: Path) -> None:
    """Two gateways of one service; not one connection fails while one of them goes."""
    name, service = "drain-pair", "drain-pair-db"
    links = Links(consul_agent, name)
    (port,) = free_ports(1)
    async with (
        ExternalService(echo) as backend,
        Gateway(consul_agent, tmp_path / "one", name, drain_delay_s=DELAY_S) as leaving,
        Gateway(consul_agent, tmp_path / "two", name, arguments=[f"--service-id={name}-2"]) as staying,
    ):
        await links.add(service, backend.port)
        await serves(leaving, service)
        await serves(staying, service)
        async with Sidecar(consul_agent, "drain-web", [(service, port)]) as sidecar:
            await eventually(lambda: _both_in(sidecar), what="the sidecar knows both gateways")
            knocker = Knocker(port)
            await eventually(lambda: _used(knocker, leaving, staying), what="both gateways get connections")
            knocker.failures.clear()
            async with knocker.knocking():
                terminate(leaving)
                await eventually(lambda: _is(leaving, "leaving"), what="it leaves")
                await eventually(lambda: _spared(knocker, leaving), what="no new connection comes to it any more")
                assert await phase(leaving) == "leaving"
                await eventually(lambda: _is(leaving, "gone"), what="it has gone")
                done = knocker.done
                await eventually(lambda: knocker.done > done + 10, what="connections go on")
            assert knocker.failures == []


async def _both_in(sidecar: Sidecar) -> bool:
    return (await sidecar.admin("/clusters")).count("::health_flags::healthy") >= 2


async def _used(knocker: Knocker, *gateways: Gateway) -> bool:
    await knocker.knock()
    return all(carried(gateway) > 1 for gateway in gateways)


async def _is(gateway: Gateway, wanted: str) -> bool:
    return await phase(gateway) == wanted


async def _spared(knocker: Knocker, gateway: Gateway) -> bool:
    """Many connections came and went, and this gateway carried none of them."""
    done, before = knocker.done, carried(gateway)
    await eventually(lambda: knocker.done >= done + 20, what="connections go on")
    return carried(gateway) == before


async def test_policy_reaches_what_is_being_drained(acl_agent: ConsulAgent, tmp_path: Path) -> None:
    name, service, source = "drain-policy", "drain-policy-db", "drain-policy-web"
    links = Links(acl_agent, name)
    await acl_agent.write_intention(source, service)
    async with (
        ExternalService(echo) as backend,
        Gateway(acl_agent, tmp_path, name, drain_timeout_s=300) as gateway,
    ):
        await links.add(service, backend.port)
        client = await MeshClient.of(acl_agent, source)
        await let_in(client, gateway, service)
        async with await dial(client, gateway, service) as connection:
            assert await connection.exchange(b"1") == b"1"
            terminate(gateway)
            await eventually(lambda: _is(gateway, "draining"), what="it drains")
            assert sample(await gateway.metrics(), "consul_tgw_phase", phase="draining") == 1
            assert await connection.exchange(b"2") == b"2"
            await acl_agent.delete_intention(source, service)
            assert await connection.ended() in ("eof", "reset")
        await eventually(lambda: _is(gateway, "gone"), what="nothing is left to wait for")

        def logged() -> list[dict[str, Any]]:
            return [one for one in gateway.access_records() if one["reason"] == "revoked"]

        (record,) = await eventually(logged, what="its end is in the access log")
        assert record["service"] == service
