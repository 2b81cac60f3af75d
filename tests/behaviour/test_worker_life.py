"""A worker loses its control process, meets the next one, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from pathlib import Path

import pytest

from plugin.dev.external import ExternalService, echo
from proxy.frames import ControlFrames, encode
from proxy.model import PROTOCOL_VERSION, Action, Drain, Hello, ServiceName, Update
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, connected, sni
from tests.support.worker import WorkerProcess, running_worker


async def knock(path: Path) -> tuple[socket.socket, Hello, list[int]]:
    """What a new control process does."""
    visitor = socket.socket(socket.AF_UNIX)
    visitor.settimeout(20)
    visitor.connect(str(path))
    data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, visitor, 65_536, 8)
    (hello,) = ControlFrames().feed(data)
    assert isinstance(hello, Hello)
    return visitor, hello, descriptors


def lose_control(worker: WorkerProcess) -> None:
    asyncio.get_running_loop().remove_reader(worker.control.fileno())
    worker.control.shutdown(socket.SHUT_RDWR)


async def test_it_serves_on_without_control_and_obeys_the_successor(mesh: HandMadeMesh, tmp_path: Path) -> None:
    door = tmp_path / "worker.sock"
    async with running_worker(handover_path=door) as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        async with connected(worker.port, context, sni("db")) as client:
            lose_control(worker)
            assert await client.exchange(b"old") == b"old"
            async with connected(worker.port, context, sni("db")) as newcomer:
                assert await newcomer.exchange(b"new") == b"new"
            successor, hello, descriptors = await eventually(lambda: knock_or_not(door))
            assert worker.process is not None
            assert (hello.version, hello.pid, hello.generation) == (PROTOCOL_VERSION, worker.process.pid, 1)
            with socket.socket(fileno=descriptors[0]) as inherited:
                assert inherited.getsockname()[1] == worker.port
            assert await client.exchange(b"still") == b"still"
            successor.sendall(encode(Update(generation=7, removals=(ServiceName("db"),))))
            assert await client.ended() == b""
            successor.close()


async def knock_or_not(door: Path) -> tuple[socket.socket, Hello, list[int]] | None:
    """The worker may not have noticed its loss yet, and then shows a visitor the door."""
    try:
        return await knock(door)
    except (ValueError, OSError):
        return None


async def test_nobody_takes_over_a_worker_that_has_its_control_process(mesh: HandMadeMesh, tmp_path: Path) -> None:
    door = tmp_path / "worker.sock"
    async with running_worker(handover_path=door) as worker:
        await worker.update(mesh=mesh.settings())
        reader, writer = await asyncio.open_unix_connection(door)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        await worker.update(mesh=mesh.settings(Action.ALLOW))


@pytest.mark.parametrize("by_signal", [False, True])
async def test_draining_refuses_newcomers_and_waits_for_the_rest(mesh: HandMadeMesh, by_signal: bool) -> None:
    async with running_worker() as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        assert worker.process is not None
        async with connected(worker.port, context, sni("db")) as client:
            await client.exchange(b"1")
            worker.listening.close()
            if by_signal:
                worker.process.send_signal(signal.SIGTERM)
            else:
                await worker.send(Drain(timeout_s=60))

            async def refused() -> bool:
                with contextlib.suppress(ConnectionError):
                    _, writer = await asyncio.open_connection("127.0.0.1", worker.port)
                    writer.close()
                    return False
                return True

            await eventually(refused)
            assert await client.exchange(b"2") == b"2"
            assert worker.process.returncode is None
        assert await asyncio.wait_for(worker.process.wait(), 20) == 0


async def test_draining_ends_what_is_left_when_the_time_is_over(mesh: HandMadeMesh) -> None:
    async with running_worker() as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        async with connected(worker.port, context, sni("db")) as client:
            await client.exchange(b"1")
            await worker.send(Drain(timeout_s=0.2))
            assert await client.ended() == b""
        assert worker.process is not None
        assert await asyncio.wait_for(worker.process.wait(), 20) == 0
        await worker.record(reason="drain")


async def test_a_broken_frame_costs_the_link_and_not_the_traffic(mesh: HandMadeMesh) -> None:
    async with running_worker() as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        async with connected(worker.port, context, sni("db")) as client:
            worker.control.send(b"\x00\x00\x00\x03abc")
            await eventually(lambda: worker.control_closed)
            assert await client.exchange(b"on") == b"on"
