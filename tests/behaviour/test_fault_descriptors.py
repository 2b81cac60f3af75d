"""A worker that may open no more files: it waits without spinning, and live connections take no notice."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from plugin.dev.external import ExternalService, echo
from proxy.frames import ControlFrames
from proxy.messages import AccessLogTarget, Hello
from proxy.rules import Action
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, MeshClient, connected, sni
from tests.support.process_limits import descriptors_left, runnable_s
from tests.support.worker import WorkerProcess, running_worker

WATCHED_S = 2.0
MOST = 0.7
"""A loop that spins is runnable all the time."""


async def pid_of(worker: WorkerProcess) -> int:
    assert worker.process is not None
    return worker.process.pid


async def runnable_while(pid: int, client: MeshClient) -> float:
    """The part of the time that ``pid`` wanted to run, while ``client`` exchanged something now and then."""
    began_s, runnable_before_s = time.monotonic(), runnable_s(pid)
    for number in range(10):
        message = b"exchange %d" % number
        assert await client.exchange(message) == message
        await asyncio.sleep(WATCHED_S / 10)
    return (runnable_s(pid) - runnable_before_s) / (time.monotonic() - began_s)


async def test_accepting_pauses_and_resumes_and_nobody_is_turned_away(mesh: HandMadeMesh, work_dir: Path) -> None:
    log = work_dir / "worker.log"
    context = mesh.client_context(mesh.leaf("web"))
    with log.open("wb") as stream:
        async with running_worker(log=stream) as worker, ExternalService(echo) as service:
            await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
            pid = await pid_of(worker)

            async def newcomer() -> bytes:
                async with connected(worker.port, context, sni("db")) as client:
                    return await client.exchange(b"patience")

            async with connected(worker.port, context, sni("db")) as client:
                await client.exchange(b"first")
                async with asyncio.TaskGroup() as group:
                    with descriptors_left(pid, 0):
                        waiting = [group.create_task(newcomer()) for _ in range(5)]
                        await eventually(lambda: "accept.paused" in log.read_text(), what="accepting pauses")
                        assert await runnable_while(pid, client) < MOST
                        assert not any(task.done() for task in waiting)
                assert [task.result() for task in waiting] == [b"patience"] * 5
                assert await client.exchange(b"last") == b"last"
            await worker.record(reason="client_eof")
    said = log.read_text()
    assert said.count("accept.paused") == 1
    assert said.count("accept.resumed") == 1


async def test_a_successor_waits_for_a_descriptor_and_nothing_spins(mesh: HandMadeMesh, tmp_path: Path) -> None:
    door = tmp_path / "worker.sock"
    context = mesh.client_context(mesh.leaf("web"))
    async with running_worker(handover_path=door) as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        pid = await pid_of(worker)
        async with connected(worker.port, context, sni("db")) as client:
            await client.exchange(b"first")
            asyncio.get_running_loop().remove_reader(worker.control.fileno())
            worker.control.shutdown(socket.SHUT_RDWR)
            await asyncio.sleep(0.2)
            with socket.socket(socket.AF_UNIX) as visitor:
                visitor.settimeout(60)
                with descriptors_left(pid, 0):
                    visitor.connect(str(door))
                    assert await runnable_while(pid, client) < MOST
                data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, visitor, 65_536, 8)
                (hello,) = ControlFrames().feed(data)
                assert isinstance(hello, Hello)
                for descriptor in descriptors:
                    socket.close(descriptor)
            assert await client.exchange(b"last") == b"last"


async def test_an_access_log_whose_descriptor_got_lost_changes_nothing(mesh: HandMadeMesh) -> None:
    """The kernel drops descriptors that the receiver has no number for; the frame arrives alone."""
    context = mesh.client_context(mesh.leaf("web"))
    async with running_worker() as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        await worker.send(AccessLogTarget(descriptor=True))
        await worker.update(mesh=mesh.settings(Action.ALLOW))
        async with connected(worker.port, context, sni("db")) as client:
            await client.exchange(b"still logged")
        await worker.record(reason="client_eof")
