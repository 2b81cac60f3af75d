"""Workers, the control process and Consul fail, one at a time; connections and policy go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from plugin.dev.processes import Child, wait_until
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, kept_out, let_in, sample, serves
from tests.support.mesh_client import MeshClient, MeshConnection, Refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCE, OTHER = "faults-client", "faults-other"
GATEWAY, SERVICES = "faults-gateway", ("faults-one", "faults-two")
WORKERS = 2
OUTAGE_S = 20.0


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    async with ExternalService(echo) as service:
        yield service


@pytest_asyncio.fixture(loop_scope="session")
async def gateway(acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path) -> AsyncIterator[Gateway]:
    """Two workers, default deny, both services allowed to both sources."""
    await link(acl_agent, backend)
    async with Gateway(acl_agent, work_dir, GATEWAY, workers=WORKERS) as running:
        await serves(running, *SERVICES)
        yield running


async def link(agent: ConsulAgent, backend: ExternalService) -> None:
    links = Links(agent, GATEWAY)
    for service in SERVICES:
        await links.add(service, backend.port)
        for source in (SOURCE, OTHER):
            await agent.write_intention(source, service)


@asynccontextmanager
async def connections_of_every_worker(
    client: MeshClient, gateway: Gateway, service: str = SERVICES[0]
) -> AsyncIterator[dict[int, list[MeshConnection]]]:
    """Live connections by process id of the worker that carries them, several of each."""
    by_address: dict[str, MeshConnection] = {}
    carried: dict[int, list[MeshConnection]] = {}
    async with AsyncExitStack() as stack:

        async def enough() -> bool:
            connection = await stack.enter_async_context(await dial(client, gateway, service))
            await carries(connection, 1)
            host, port = connection.writer.get_extra_info("sockname")
            by_address[f"{host}:{port}"] = connection
            carried.clear()
            for one in await live_connections(gateway):
                if (mine := by_address.get(one["connection"]["client"])) is not None:
                    carried.setdefault(one["pid"], []).append(mine)
            return len(carried) == WORKERS and all(len(some) >= 2 for some in carried.values())

        await eventually(enough, what="every worker carries some connections")
        yield carried


async def live_connections(gateway: Gateway) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await gateway.connections())["connections"]
    return found


async def carries(connection: MeshConnection, exchanges: int) -> None:
    for number in range(exchanges):
        message = b"exchange %d" % number
        assert await connection.exchange(message) == message


async def all_carry(connections: dict[int, list[MeshConnection]], exchanges: int) -> None:
    for some in connections.values():
        for connection in some:
            await carries(connection, exchanges)


class Traffic:
    """New connections, one after another, until the block ends; notes every failure."""

    def __init__(self, client: MeshClient, gateway: Gateway, service: str = SERVICES[0]) -> None:
        self._client, self._gateway, self._service = client, gateway, service
        self._finished = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.carried = 0
        self.broken: list[str] = []
        """Connections that ended in a handshake or later, by how."""
        self.refused_connects = 0
        """TCP connections that nobody accepted."""

    async def _run(self) -> None:
        while not self._finished.is_set():
            try:
                async with await dial(self._client, self._gateway, self._service) as connection:
                    await carries(connection, 1)
                self.carried += 1
            except Refused as refused:
                if isinstance(refused.__cause__, ConnectionRefusedError):
                    self.refused_connects += 1
                self.broken.append(refused.alert)

    async def more(self, number: int) -> None:
        """Wait for so many carried connections from now on."""
        wanted = self.carried + number
        await eventually(lambda: self.carried >= wanted, 60.0, what=f"{number} more connections are carried")

    async def __aenter__(self) -> Traffic:
        self._task = asyncio.get_running_loop().create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._finished.set()
        assert self._task is not None
        async with asyncio.timeout(60 * SCALE):
            await self._task


async def up_to_date(gateway: Gateway) -> bool:
    status = await gateway.status()
    generations = [worker["generation"] for worker in status["workers"]]
    return generations == [status["generation"]] * WORKERS and bool(status["ready"])


async def test_a_killed_worker_takes_only_its_own_connections(gateway: Gateway, acl_agent: ConsulAgent) -> None:
    client = await MeshClient.of(acl_agent, SOURCE)
    async with connections_of_every_worker(client, gateway) as carried, Traffic(client, gateway) as traffic:
        await traffic.more(5)
        victim, survivor = sorted(carried)
        os.kill(victim, signal.SIGKILL)
        for connection in carried[victim]:
            await connection.ended()
        for connection in carried[survivor]:
            await carries(connection, 10)

        async def back() -> bool:
            return await up_to_date(gateway) and victim not in gateway.worker_pids()

        await eventually(back, what="another worker has the full state")
        before = len(traffic.broken)
        await traffic.more(20)
        # What the victim had accepted is lost with it; after that, nothing is.
        assert len(traffic.broken) == before
    assert traffic.refused_connects == 0
    assert sample(await gateway.metrics(), "consul_tgw_worker_restarts_total") == 1
    for service in SERVICES:
        async with connections_of_every_worker(client, gateway, service) as carried:
            assert sorted(carried) == sorted(gateway.worker_pids())


async def test_workers_serve_without_a_control_process_and_obey_the_next(
    gateway: Gateway, acl_agent: ConsulAgent
) -> None:
    client, other = await MeshClient.of(acl_agent, SOURCE), await MeshClient.of(acl_agent, OTHER)
    pids = sorted(gateway.worker_pids())
    async with (
        connections_of_every_worker(client, gateway) as carried,
        connections_of_every_worker(other, gateway) as others,
        Traffic(client, gateway) as traffic,
    ):
        await gateway.kill_control()
        await all_carry(carried, 5)
        await traffic.more(20)
        # Said while nobody listens: the successor must notice.
        await acl_agent.write_intention(OTHER, SERVICES[0], "deny")
        await gateway.start()
        await eventually(lambda: up_to_date(gateway))
        assert sorted(gateway.worker_pids() or adopted(await gateway.status())) == pids
        for some in others.values():
            for connection in some:
                await connection.ended()
        await all_carry(carried, 5)
        await acl_agent.write_intention(OTHER, SERVICES[0])
        await let_in(other, gateway, SERVICES[0])
        await acl_agent.write_intention(SOURCE, SERVICES[1], "deny")
        await kept_out(client, gateway, SERVICES[1])
        await all_carry(carried, 5)
        assert traffic.broken == []
        await acl_agent.write_intention(SOURCE, SERVICES[0], "deny")
        for some in carried.values():
            for connection in some:
                await connection.ended()
        traffic.broken.clear()


def adopted(status: dict[str, Any]) -> list[int]:
    return [worker["pid"] for worker in status["workers"]]


async def test_it_is_registered_again_by_itself(gateway: Gateway, acl_agent: ConsulAgent) -> None:
    await acl_agent.deregister_service(GATEWAY)

    async def registered() -> bool:
        found = await acl_agent.api("GET", f"/v1/health/service/{GATEWAY}")
        checks = [check for one in found for check in one["Checks"] if check["ServiceID"] == GATEWAY]
        return len(checks) == 2 and all(check["Status"] == "passing" for check in checks)

    await eventually(registered, what="the gateway is registered and passing")


async def test_an_agent_that_is_away_is_not_felt(backend: ExternalService, work_dir: Path) -> None:
    async with ConsulAgent(work_dir / "consul", persistent=True, default_intention_policy="deny") as agent:
        await link(agent, backend)
        async with Gateway(agent, work_dir, GATEWAY, workers=WORKERS) as gateway:
            await serves(gateway, *SERVICES)
            client = await MeshClient.of(agent, SOURCE)
            async with connections_of_every_worker(client, gateway) as carried, Traffic(client, gateway) as traffic:
                await agent.stop()
                await asyncio.sleep(OUTAGE_S)
                await all_carry(carried, 5)
                await traffic.more(20)
                await agent.start()
                await agent.write_intention(SOURCE, SERVICES[1], "deny")
                await kept_out(client, gateway, SERVICES[1])
                await all_carry(carried, 5)
                await traffic.more(5)
                assert traffic.broken == []
            await passing(agent)


async def test_an_agent_that_forgot_everything_gets_it_back(backend: ExternalService, work_dir: Path) -> None:
    """A dev agent starts empty: another mesh, without the gateway. Services go on until Consul says otherwise."""
    async with ConsulAgent(work_dir / "consul") as agent:
        await link(agent, backend)
        async with Gateway(agent, work_dir, GATEWAY, workers=WORKERS) as gateway:
            await serves(gateway, *SERVICES)
            before = await MeshClient.of(agent, SOURCE)
            await agent.restart()
            await passing(agent)
            await link(agent, backend)
            client = await MeshClient.of(agent, SOURCE)
            assert client.trust_domain != before.trust_domain
            await let_in(client, gateway, SERVICES[0], 60.0)


async def passing(agent: ConsulAgent) -> None:
    async def registered() -> bool:
        found = await agent.api("GET", f"/v1/health/service/{GATEWAY}", params={"passing": "true"})
        return len(found) == 1

    await eventually(registered, 60.0, what="the gateway is registered and passing")


async def test_sigterm_lets_connections_end_leaves_consul_and_nothing_behind(
    acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    await link(acl_agent, backend)
    gateway = Gateway(acl_agent, work_dir, GATEWAY, workers=WORKERS, drain_timeout_s=60.0)
    await gateway.start()
    child = gateway.child
    assert child is not None
    try:
        await serves(gateway, *SERVICES)
        pids = [child.pid, *gateway.worker_pids()]
        client = await MeshClient.of(acl_agent, SOURCE)
        async with connections_of_every_worker(client, gateway) as carried:
            child.send_signal(signal.SIGTERM)
            await eventually(lambda: _refuses_connections(gateway), what="its port is closed")
            found = await acl_agent.api("GET", f"/v1/health/service/{GATEWAY}", params={"passing": "true"})
            assert found == []
            assert _runs(child.pid)
            await all_carry(carried, 10)
        assert await exit_code(child) == 0
        assert await acl_agent.api("GET", f"/v1/health/service/{GATEWAY}") == []
        assert [pid for pid in pids if _runs(pid)] == []
        assert list((work_dir / "run").rglob("*.sock")) == []
        assert list((work_dir / "run").rglob("admin")) == []
    finally:
        await gateway.stop()


async def test_what_does_not_end_is_ended_after_the_drain_timeout(
    acl_agent: ConsulAgent, backend: ExternalService, work_dir: Path
) -> None:
    await link(acl_agent, backend)
    async with Gateway(acl_agent, work_dir, GATEWAY, workers=WORKERS, drain_timeout_s=2.0) as gateway:
        await serves(gateway, *SERVICES)
        client = await MeshClient.of(acl_agent, SOURCE)
        async with await dial(client, gateway, SERVICES[0]) as connection:
            await carries(connection, 1)
            child = gateway.child
            assert child is not None
            child.send_signal(signal.SIGTERM)
            await connection.ended()
            assert await exit_code(child) == 0
    reasons = [one["reason"] for one in gateway.access_records() if one["reason"] == "drain"]
    assert reasons == ["drain"]


async def exit_code(child: Child) -> int | None:
    await wait_until(lambda: child.exit_code is not None, 30 * SCALE, what="it has ended")
    return child.exit_code


async def _refuses_connections(gateway: Gateway) -> bool:
    try:
        _, writer = await asyncio.open_connection(gateway.address, gateway.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


def _runs(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
