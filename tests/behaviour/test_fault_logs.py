"""Disks fill and pipes block under both logs of a worker; its traffic takes no notice."""

from __future__ import annotations

import fcntl
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plugin.dev.external import ExternalService, echo
from proxy.model import Leaf, ServerName, Service, ServiceName
from proxy.rules import Action
from tests.support.eventually import eventually
from tests.support.full_disk import small_disk
from tests.support.mesh import HandMadeMesh, connected, sni
from tests.support.worker import WorkerProcess, running_worker

BROKEN = Leaf("no certificate", "no key", "spiffe://x", "01", 0.0, 1.0)


async def serve(mesh: HandMadeMesh, worker: WorkerProcess, service: ExternalService) -> None:
    await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))


async def carry(mesh: HandMadeMesh, worker: WorkerProcess, connections: int) -> None:
    context = mesh.client_context(mesh.leaf("web"))
    for number in range(connections):
        async with connected(worker.port, context, sni("db")) as client:
            message = b"%d" % number * 100
            assert await client.exchange(message) == message


def dropped(worker: WorkerProcess) -> int:
    return worker.counters.access_log_lines_dropped if worker.counters else 0


@pytest.fixture
def blocked_pipe() -> Iterator[tuple[int, int]]:
    """Full to the last byte; nobody reads it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"-" * 4095 + b"\n")
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def test_a_full_disk_costs_lines_which_are_counted_and_told(mesh: HandMadeMesh, tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        async with (
            running_worker(access_log_fd=disk.descriptor) as worker,
            ExternalService(echo) as service,
        ):
            await serve(mesh, worker, service)
            await carry(mesh, worker, 1)
            await eventually(lambda: disk.lines())
            disk.fill()
            await carry(mesh, worker, 20)
            # The file's last page may still have room for some.
            await eventually(lambda: dropped(worker) > 0, what="lost lines are counted")
            disk.clear()
            await carry(mesh, worker, 1)

            def told() -> list[Any]:
                lines = [line for line in disk.lines() if line.endswith(b"}")]
                found = [json.loads(line) for line in lines if b"lines_dropped" in line]
                return [line["count"] for line in found]

            await eventually(lambda: sum(told()) == dropped(worker), what="the loss is told where the lines are")
            *_, last = [line for line in disk.lines() if b"lines_dropped" not in line]
            assert json.loads(last)["reason"] == "client_eof"


async def test_a_closed_pipe_costs_lines_and_nothing_else(mesh: HandMadeMesh) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with running_worker(access_log_fd=writing) as worker, ExternalService(echo) as service:
        os.close(writing)
        await serve(mesh, worker, service)
        await carry(mesh, worker, 5)
        await eventually(lambda: dropped(worker) == 5, what="lost lines are counted")


async def test_pipes_that_nobody_reads_hold_up_neither_traffic_nor_updates_nor_the_end(
    mesh: HandMadeMesh, blocked_pipe: tuple[int, int]
) -> None:
    reading, writing = blocked_pipe
    names = [f"broken-{number}" for number in range(11_000)]
    broken = tuple(Service(ServiceName(name), BROKEN, (ServerName(sni(name), ()),), ()) for name in names)
    async with (
        running_worker(log=writing, access_log_fd=writing) as worker,
        ExternalService(echo) as service,
    ):
        await serve(mesh, worker, service)
        # Each of them is worth a line of the worker's own log.
        assert len((await worker.update(upserts=broken)).problems) == len(broken)
        await carry(mesh, worker, 20)
        await eventually(
            lambda: worker.counters is not None and worker.counters.log_lines_dropped > 0, what="lost lines are counted"
        )
        received = bytearray()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.set_blocking(reading, False)

        def everything() -> bool:
            try:
                received.extend(os.read(reading, 1 << 20))
            except BlockingIOError:
                return received.count(b'"reason":"client_eof"') == 20 and b"log lines were dropped" in received
            return False

        await eventually(everything, 60.0, what="lines that waited come, and how many did not")
        os.set_blocking(reading, True)
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writing, b"-" * 4096)
        assert worker.process is not None
        worker.process.terminate()
        assert await eventually(lambda: worker.process and worker.process.returncode == 0, what="it has ended")


async def test_a_file_size_limit_is_a_full_disk(mesh: HandMadeMesh, tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with running_worker(access_log_fd=descriptor) as worker, ExternalService(echo) as service:
        os.close(descriptor)
        assert worker.process is not None
        resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (100, 100))
        await serve(mesh, worker, service)
        await carry(mesh, worker, 5)
        await eventually(lambda: dropped(worker) == 5, what="lost lines are counted")
        assert (tmp_path / "log").stat().st_size == 100
