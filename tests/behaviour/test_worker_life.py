"""A worker loses its control process, meets the next one, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from pathlib import Path

import pytest

from plugin.dev.external import ExternalService, echo
from proxy.frames import ControlFrames, encode
from proxy.messages import PROTOCOL_VERSION, Drain, Hello, Listen, Listening, Ping, Pong, Update
from proxy.model import ServiceName
from proxy.rules import Action
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, MeshClient, connected, sni
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


async def test_what_is_left_ends_one_by_one_over_the_window(mesh: HandMadeMesh) -> None:
    """Clients that come back at once must not come back together."""
    window_s, clients = 3.0, 12
    async with running_worker() as worker, ExternalService(echo) as service, contextlib.AsyncExitStack() as stack:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        ends: list[float] = []

        async def note_end(client: MeshClient) -> None:
            await client.ended()
            ends.append(time.monotonic())

        waiting = []
        for _ in range(clients):
            client = await stack.enter_async_context(connected(worker.port, context, sni("db")))
            await client.exchange(b"1")
            waiting.append(note_end(client))
        await worker.send(Drain(timeout_s=0.1, window_s=window_s))
        await asyncio.gather(*waiting)
        assert worker.process is not None
        assert await asyncio.wait_for(worker.process.wait(), 20) == 0
        assert ends[-1] - ends[0] > window_s / 2
        middle = sum(ends[0] + window_s / 4 < one < ends[0] + window_s * 3 / 4 for one in ends)
        assert clients / 4 <= middle <= clients * 3 / 4


async def test_listening_sockets_come_and_go_while_it_runs(mesh: HandMadeMesh) -> None:
    """Who waits in the queue of a socket that goes is still served."""
    async with running_worker() as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        with socket.create_server(("127.0.0.1", 0)) as second:
            port = second.getsockname()[1]
            async with connected(worker.port, context, sni("db")) as client:
                await client.exchange(b"1")
                both = (f"127.0.0.1:{worker.port}", f"127.0.0.1:{port}")
                descriptors = [worker.listening.fileno(), second.fileno()]
                socket.send_fds(worker.control, [encode(Listen(both))], descriptors)
                await eventually(lambda: Listening(both) in worker.frames)
                async with connected(port, context, sni("db")) as newcomer:
                    await newcomer.exchange(b"2")
                queued = [socket.create_connection(("127.0.0.1", worker.port)) for _ in range(20)]
                worker.listening.close()
                socket.send_fds(worker.control, [encode(Listen(both[1:]))], [second.fileno()])
                await eventually(lambda: Listening(both[1:]) in worker.frames)
                with pytest.raises(ConnectionError):
                    socket.create_connection(("127.0.0.1", worker.port)).close()
                for one in queued:
                    with one:
                        one.shutdown(socket.SHUT_WR)
                        one.settimeout(20)
                        assert await asyncio.to_thread(one.recv, 1) == b""
                assert await client.exchange(b"3") == b"3"


async def test_sockets_that_did_not_arrive_change_nothing(mesh: HandMadeMesh) -> None:
    """The kernel drops descriptors where a process may open no more files."""
    async with running_worker() as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        await worker.send(Listen(("lost",)))
        await eventually(lambda: Listening((f"127.0.0.1:{worker.port}",)) in worker.frames)
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert await client.exchange(b"1") == b"1"


async def test_a_ping_is_answered(worker: WorkerProcess) -> None:
    await worker.send(Ping(7))
    await eventually(lambda: Pong(7) in worker.frames)


async def test_a_broken_frame_costs_the_link_and_not_the_traffic(mesh: HandMadeMesh) -> None:
    async with running_worker() as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        async with connected(worker.port, context, sni("db")) as client:
            worker.control.send(b"\x00\x00\x00\x03abc")
            await eventually(lambda: worker.control_closed)
            assert await client.exchange(b"on") == b"on"
