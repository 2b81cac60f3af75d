"""The machine fails under a whole gateway: disks, pipes, descriptors, clocks and processes; connections go on."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import signal
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.external import ExternalService, echo
from plugin.dev.gateway import Gateway
from tests.support.eventually import SCALE, eventually
from tests.support.linking import Links, dial, let_in, sample, serves
from tests.support.mesh_client import MeshClient, MeshConnection, Refused
from tests.support.process_limits import cpu_s, no_new_descriptors

pytestmark = pytest.mark.asyncio(loop_scope="session")

SOURCE, SERVICE, GATEWAY = "machine-client", "machine-db", "machine-gateway"
BACK_WITHIN_S = 5.0
"""On an idle machine it is 0.3 s: the start of a Python process."""
HOUR_S = 3600


class Pump:
    """Sends random blocks through an echo service until it is stopped, and compares what comes back."""

    def __init__(self, connection: MeshConnection) -> None:
        self.connection = connection
        self.carried = 0
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._stop = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while not self._stop.is_set():
            block = os.urandom(16_384)
            self._sent.update(block)
            self._received.update(await self.connection.exchange(block))
            self.carried += len(block)
            await asyncio.sleep(0.005)

    async def more(self) -> None:
        """:raises Refused: when the connection has ended."""
        wanted = self.carried + 10 * 16_384
        await eventually(lambda: self._task.done() or self.carried >= wanted, what="bytes are carried")
        if self._task.done():
            await self._task

    async def intact(self) -> bool:
        self._stop.set()
        await self._task
        return self.carried > 0 and self._sent.digest() == self._received.digest()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def backend() -> AsyncIterator[ExternalService]:
    async with ExternalService(echo) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def linked(consul_agent: ConsulAgent, backend: ExternalService) -> ConsulAgent:
    await Links(consul_agent, GATEWAY).add(SERVICE, backend.port)
    await consul_agent.write_intention(SOURCE, SERVICE)
    return consul_agent


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(linked: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """Each test leaves it as it was: two workers, ready."""
    async with Gateway(linked, tmp_path_factory.mktemp("gateway"), GATEWAY, workers=2) as running:
        await serves(running, SERVICE)
        yield running


async def carry(client: MeshClient, gateway: Gateway, connections: int) -> None:
    for number in range(connections):
        async with await dial(client, gateway, SERVICE) as connection:
            message = b"%d" % number * 500
            assert await connection.exchange(message) == message


async def pumps_by_worker(client: MeshClient, gateway: Gateway) -> dict[int, list[Pump]]:
    """Two at least on each worker."""
    pumps: dict[str, Pump] = {}
    found: dict[int, list[Pump]] = {}

    async def enough() -> bool:
        connection = await dial(client, gateway, SERVICE)
        await connection.exchange(b"here")
        host, port = connection.writer.get_extra_info("sockname")
        pumps[f"{host}:{port}"] = Pump(connection)
        found.clear()
        for one in (await gateway.connections())["connections"]:
            if (pump := pumps.get(one["connection"]["client"])) is not None:
                found.setdefault(one["pid"], []).append(pump)
        return len(found) == 2 and all(len(some) >= 2 for some in found.values())

    await eventually(enough, what="every worker carries some connections")
    return found


async def test_a_killed_worker_under_load_is_back_at_once_and_nothing_else_is_lost(
    gateway: Gateway, linked: ConsulAgent
) -> None:
    client = await MeshClient.of(linked, SOURCE)
    pumps = await pumps_by_worker(client, gateway)
    victim, survivor = sorted(pumps)
    os.kill(victim, signal.SIGKILL)
    refused = 0

    async def back() -> bool:
        nonlocal refused
        try:
            _, writer = await asyncio.open_connection(gateway.address, gateway.port)
            writer.close()
        except ConnectionRefusedError:
            refused += 1
        workers = (await gateway.status())["workers"]
        return len(workers) == 2 and victim not in {one["pid"] for one in workers} and await gateway.is_ready()

    await eventually(back, BACK_WITHIN_S, what="another worker has the full state")
    assert refused == 0
    for pump in pumps[victim]:
        with pytest.raises(Refused):
            await pump.more()
    for pump in pumps[survivor]:
        await pump.more()
        assert await pump.intact()
        pump.connection.close()
    await carry(client, gateway, 20)


async def test_a_control_process_that_was_stopped_goes_on(gateway: Gateway, linked: ConsulAgent) -> None:
    """For longer than the check's TTL may bear; policy that changed meanwhile holds soon after."""
    client = await MeshClient.of(linked, SOURCE)
    other = await MeshClient.of(linked, "machine-other")
    await linked.write_intention("machine-other", SERVICE)
    await let_in(other, gateway, SERVICE)
    pumps = await pumps_by_worker(client, gateway)
    assert gateway.child is not None
    async with await dial(other, gateway, SERVICE) as live:
        await live.exchange(b"before")
        gateway.child.pause()
        await linked.write_intention("machine-other", SERVICE, "deny")
        began_s = time.monotonic()
        while time.monotonic() - began_s < 8:
            await carry(client, gateway, 1)
        assert await live.exchange(b"nobody has told") == b"nobody has told"
        gateway.child.resume()
        await live.ended()
    await eventually(gateway.is_ready, 60.0, what="it is ready again")
    for some in pumps.values():
        for pump in some:
            await pump.more()
            assert await pump.intact()
            pump.connection.close()


async def test_a_control_process_without_descriptors_recovers_and_replaces_what_died_meanwhile(
    gateway: Gateway, linked: ConsulAgent
) -> None:
    client = await MeshClient.of(linked, SOURCE)
    assert gateway.child is not None
    victim = sorted(gateway.worker_pids())[0]
    with no_new_descriptors(gateway.child.pid):
        before_s = gateway.child.cpu_s()
        await carry(client, gateway, 10)
        os.kill(victim, signal.SIGKILL)
        await eventually(
            lambda: "worker.start_failed" in gateway.log_path.read_text(), what="it says why there is no other"
        )
        assert gateway.child.cpu_s() - before_s < 5 * SCALE

    async def two() -> bool:
        with contextlib.suppress(Exception):
            workers = (await gateway.status())["workers"]
            return len(workers) == 2 and victim not in {one["pid"] for one in workers} and await gateway.is_ready()
        return False

    await eventually(two, 60.0, what="both workers serve, and the admin pages answer")
    await carry(client, gateway, 10)


async def test_an_access_log_that_was_deleted_is_begun_anew(gateway: Gateway, linked: ConsulAgent) -> None:
    client = await MeshClient.of(linked, SOURCE)
    await carry(client, gateway, 1)
    await eventually(gateway.access_records)
    gateway.access_log_path.unlink()

    async def lines() -> bool:
        await carry(client, gateway, 1)
        return bool(gateway.access_records())

    await eventually(lines, 60.0, what="lines come in a new file, without SIGHUP")


async def test_full_disks_under_both_logs(linked: ConsulAgent, work_dir: Path) -> None:
    arguments = ["--access-log=/dev/full", "--log-level=debug"]
    gateway = Gateway(linked, work_dir, GATEWAY, workers=2, choose_access_log=False, arguments=arguments)
    gateway.log_path.symlink_to("/dev/full")
    async with gateway:
        await serves(gateway, SERVICE)
        client = await MeshClient.of(linked, SOURCE)
        await carry(client, gateway, 20)

        async def counted() -> bool:
            metrics = await gateway.metrics()
            lost = sample(metrics, "consul_tgw_access_log_lines_dropped_total")
            return lost >= 20 and sample(metrics, "consul_tgw_log_lines_dropped_total") > 0

        await eventually(counted, what="what is lost is counted")


def fill(pipe: int) -> None:
    """Leave no room for a byte in the pipe, whatever stands in it; it must not block."""
    for length in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, b"-" * length)


async def test_a_pipe_that_nobody_reads_under_both_logs(linked: ConsulAgent, work_dir: Path) -> None:
    arguments = ["--access-log=-", "--log-level=debug"]
    gateway = Gateway(linked, work_dir, GATEWAY, workers=2, choose_access_log=False, arguments=arguments)
    os.mkfifo(gateway.log_path)
    pipe = os.open(gateway.log_path, os.O_RDWR)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(pipe, False)
    fill(pipe)
    try:
        async with gateway:
            await serves(gateway, SERVICE)
            client = await MeshClient.of(linked, SOURCE)
            await carry(client, gateway, 20)
            for pid in gateway.worker_pids()[:1]:
                os.kill(pid, signal.SIGKILL)
            await eventually(gateway.is_ready, 60.0, what="a worker that died is replaced")
            await carry(client, gateway, 20)
            received = bytearray()

            def flows() -> bool:
                with contextlib.suppress(BlockingIOError):
                    received.extend(os.read(pipe, 65_536))
                return b"gateway.ready" in received and received.count(b'"reason":"client_eof"') >= 20

            # Those of the first twenty that the dead worker still had went with it.
            await eventually(flows, what="what waited comes once somebody reads")
            fill(pipe)
    finally:
        os.close(pipe)
    assert gateway.child is None


def faked_clock(moved: Path) -> dict[str, str]:
    """The control process's wall clock differs by what ``moved`` says. Workers, which read no file, keep theirs."""
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(moved),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


async def test_clocks_jump_by_an_hour_and_beyond_every_certificate(linked: ConsulAgent, work_dir: Path) -> None:
    moved = work_dir / "clock"
    jump_to(moved, 0)
    await linked.write_config(
        {
            "Kind": "service-defaults",
            "Name": SERVICE,
            "Protocol": "tcp",
            "Meta": {"tgw-idle-timeout": "5m", "tgw-max-lifetime": "30m"},
        }
    )
    client = await MeshClient.of(linked, SOURCE)
    async with Gateway(linked, work_dir, GATEWAY, workers=2, environment=faked_clock(moved)) as gateway:
        await serves(gateway, SERVICE)
        assert gateway.child is not None
        processes = [gateway.child.pid, *gateway.worker_pids()]
        before_s, began_s = sum(map(cpu_s, processes)), time.monotonic()
        async with await dial(client, gateway, SERVICE) as live:
            pump = Pump(live)
            for number, shift_s in enumerate((HOUR_S, -HOUR_S, 0, 30 * 24 * HOUR_S, 0), 1):
                jump_to(moved, shift_s)
                await eventually(partial(noticed, gateway, number), what="the jump is noticed")
                await carry(client, gateway, 3)
                await pump.more()
            assert await pump.intact()
        await eventually(gateway.is_ready, what="it is ready")
        await serves(gateway, SERVICE)
        used = (sum(map(cpu_s, processes)) - before_s) / (time.monotonic() - began_s)
        assert used < 1.6, "a timer that spins takes a core of its own"
        assert gateway.worker_pids() == processes[1:]


def jump_to(moved: Path, shift_s: int) -> None:
    new = moved.with_suffix(".new")
    new.write_text(f"{shift_s:+d}s\n")
    new.replace(moved)


def noticed(gateway: Gateway, jumps: int) -> bool:
    return gateway.log_path.read_text().count("clock.jumped") >= jumps
