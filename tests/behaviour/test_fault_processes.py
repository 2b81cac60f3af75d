"""The control process dies in the middle of telling something; a worker is stopped and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from pathlib import Path

import pytest

from plugin.dev.external import ExternalService, echo
from proxy.frames import ControlFrames, encode
from proxy.messages import Applied, Hello, Limits, ToControl, Update
from proxy.model import ServiceName
from proxy.rules import Action
from tests.support.eventually import eventually
from tests.support.mesh import HandMadeMesh, connected, sni
from tests.support.worker import WorkerProcess, running_worker

HANDSHAKE_TIMEOUT_S = 1.0


class Successor:
    """The next control process, reduced to its connection."""

    def __init__(self, connection: socket.socket, hello: Hello) -> None:
        self.connection = connection
        self.hello = hello
        self._frames = ControlFrames()

    async def update(self, update: Update) -> Applied:
        self.connection.sendall(encode(update))
        return await asyncio.to_thread(self._applied, update.generation)

    def _applied(self, generation: int) -> Applied:
        while True:
            for frame in self._read():
                if isinstance(frame, Applied) and frame.generation == generation:
                    return frame

    def _read(self) -> list[ToControl]:
        data = self.connection.recv(65_536)
        assert data, "the worker has hung up"
        return list(self._frames.feed(data))


async def successor(door: Path) -> Successor:
    async def let_in() -> Successor | None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(door))
        data, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, connection, 65_536, 8)
        for descriptor in descriptors:
            socket.close(descriptor)
        if not data:  # it has not noticed its loss yet
            connection.close()
            return None
        (hello,) = ControlFrames().feed(data)
        assert isinstance(hello, Hello)
        return Successor(connection, hello)

    found: Successor = await eventually(let_in, what="the worker takes a successor")
    return found


def die(worker: WorkerProcess) -> None:
    """What SIGKILL does to the control process's end: closed, whatever it had still to say."""
    asyncio.get_running_loop().remove_reader(worker.control.fileno())
    worker.control.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("part", [0.001, 0.5, 0.999], ids=["in its length", "in its middle", "before its last byte"])
async def test_a_frame_that_was_never_finished_changes_nothing(mesh: HandMadeMesh, tmp_path: Path, part: float) -> None:
    door = tmp_path / "worker.sock"
    context = mesh.client_context(mesh.leaf("web"))
    async with running_worker(handover_path=door) as worker, ExternalService(echo) as service:
        db = mesh.service("db", service.port)
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(db,))
        async with connected(worker.port, context, sni("db")) as client:
            await client.exchange(b"before")
            frame = encode(Update(generation=2, removals=(ServiceName("db"),), upserts=(mesh.service("new", 1),)))
            worker.control.send(frame[: max(2, int(len(frame) * part))])
            die(worker)
            heir = await successor(door)
            assert heir.hello.generation == 1
            assert await client.exchange(b"after") == b"after"
            async with connected(worker.port, context, sni("db")) as newcomer:
                assert await newcomer.exchange(b"new") == b"new"
            applied = await heir.update(Update(generation=3, full=True, mesh=mesh.settings(Action.DENY), upserts=(db,)))
            assert applied.revoked == 1, "what changed meanwhile holds for live connections at once"
            await client.ended()
            heir.connection.close()


async def test_an_update_whose_sender_died_before_the_answer_is_in_force(mesh: HandMadeMesh, tmp_path: Path) -> None:
    door = tmp_path / "worker.sock"
    context = mesh.client_context(mesh.leaf("web"))
    async with running_worker(handover_path=door) as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        assert worker.process is not None
        async with connected(worker.port, context, sni("db")) as client:
            await client.exchange(b"before")
            worker.process.send_signal(signal.SIGSTOP)
            await worker.send(Update(generation=2, mesh=mesh.settings(Action.DENY), upserts=()))
            await worker.send(Update(generation=3, removals=(ServiceName("db"),)))
            die(worker)
            worker.process.send_signal(signal.SIGCONT)
            heir = await successor(door)
            assert heir.hello.generation == 3
            await client.ended()
            heir.connection.close()


async def test_a_worker_that_was_stopped_goes_on_where_it_was(mesh: HandMadeMesh) -> None:
    """For longer than the handshake timeout: as when the machine sleeps."""
    context = mesh.client_context(mesh.leaf("web"))
    limits = Limits(handshake_timeout_s=HANDSHAKE_TIMEOUT_S)
    async with running_worker(limits=limits) as worker, ExternalService(echo) as service:
        db = mesh.service("db", service.port, idle_timeout_s=4 * HANDSHAKE_TIMEOUT_S)
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(db,))
        assert worker.process is not None
        async with connected(worker.port, context, sni("db")) as client:
            await client.exchange(b"before")
            _, silent = await asyncio.open_connection("127.0.0.1", worker.port)
            silent.write(b"\x16")
            await eventually(lambda: worker.counters is not None and worker.counters.pending_handshakes == 1)
            worker.process.send_signal(signal.SIGSTOP)
            client.writer.write(b"meanwhile")
            newcomer = asyncio.get_running_loop().create_task(_echoed(worker, mesh))
            await asyncio.sleep(2.5 * HANDSHAKE_TIMEOUT_S)
            worker.process.send_signal(signal.SIGCONT)
            assert await asyncio.wait_for(client.reader.readexactly(9), 20) == b"meanwhile"
            assert await newcomer == b"waited"
            await worker.record(reason="handshake_timeout")
            assert await client.exchange(b"after") == b"after"
            silent.close()
            with contextlib.suppress(ConnectionError):
                await silent.wait_closed()


async def _echoed(worker: WorkerProcess, mesh: HandMadeMesh) -> bytes:
    async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
        return await client.exchange(b"waited")
