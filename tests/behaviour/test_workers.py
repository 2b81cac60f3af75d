"""Real worker processes on real sockets: started, replaced, adopted by a second control process, drained."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from plugin.addresses import HostPort
from plugin.errors import StartError
from plugin.process.runtime_dir import RuntimeDirectory
from plugin.process.tasks import spawn
from plugin.workers.places import restart_delay_s
from plugin.workers.pool import Workers
from plugin.workers.process import worker_command
from plugin.workers.published import Published
from plugin.workers.pulse import HANG_BEATS
from plugin.workers.settings import WorkerSettings
from proxy.messages import PROTOCOL_VERSION
from proxy.model import Leaf, Mesh, Service, ServiceName
from tests.support.eventually import eventually

SCRIPT = Path(__file__).with_name("scripted_worker.py")
COMMAND = (sys.executable, str(SCRIPT))
LEAF = Leaf("chain", "key", "spiffe://x", "01", 0.0, 1.0)
MESH = Mesh("x.consul", "dc1", ())


def service(name: str, protocol: str = "tcp") -> Service:
    return Service(ServiceName(name), LEAF, (), (), protocol)


def known(*services: Service, generation: int = 1) -> Published:
    by_name = {one.name: one for one in services}
    return Published(generation, MESH, by_name, frozenset(by_name), complete=True)


async def until(condition: Callable[[], bool], what: str) -> None:
    await eventually(condition, what=what)


async def answer(address: HostPort) -> int:
    """The pid of the worker that took the connection."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(address.host, address.port)
        pid = int(await reader.read())
        writer.close()
    return pid


class Group:
    """Control processes, one after the other, on one runtime directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pids: set[int] = set()
        self.current: list[tuple[Workers, RuntimeDirectory]] = []

    async def start(
        self,
        published: Published,
        *,
        count: int = 2,
        address: HostPort | None = None,
        gateway: str = "gw",
        command: tuple[str, ...] = COMMAND,
    ) -> Workers:
        directory = RuntimeDirectory.claim(self.path)
        settings = WorkerSettings(
            gateway=gateway, addresses=(address or HostPort("127.0.0.1", 0),), count=count, command=command
        )
        workers = Workers(settings, directory, published)
        self.current.append((workers, directory))
        await workers.start()
        await until(lambda: workers.ready, "workers are ready")
        self.pids |= {worker.pid for worker in workers.all}
        return workers

    def abandon(self) -> None:
        """What a SIGKILL leaves behind: workers without control connection, a lock that nobody holds."""
        for workers, directory in self.current:
            self.pids |= {worker.pid for worker in workers.all}
            workers.release()
            directory.release()
        self.current.clear()

    async def stop(self) -> None:
        for workers, _ in self.current:
            self.pids |= {worker.pid for worker in workers.all}
            workers.kill()
        self.abandon()
        for pid in self.pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    started = Group(tmp_path / "gw")
    yield started
    await started.stop()


async def test_every_worker_gets_everything_and_every_change(group: Group) -> None:
    published = known(service("legacy"))
    workers = await group.start(published)
    published.services[ServiceName("billing")] = service("billing", "http")
    del published.services[ServiceName("legacy")]
    published.generation = 2
    workers.publish({ServiceName("billing"), ServiceName("legacy")}, mesh=False)
    await until(lambda: workers.ready, "the change is applied")
    for worker in workers.all:
        page, more = await worker.connections(0, 10, 5.0)
        assert [(one.service, one.intention) for one in page] == [("billing", "http")]
        assert not more


async def test_a_killed_worker_is_replaced_and_no_connection_is_refused(group: Group) -> None:
    workers = await group.start(known(service("legacy")), count=1)
    (address,) = workers.addresses()
    (old,) = workers.all
    await answer(address)
    await until(lambda: workers.totals().accepted == 1, "the count arrived")
    os.kill(old.pid, signal.SIGKILL)
    pid = await answer(address)
    assert pid != old.pid
    await until(lambda: workers.ready, "the new worker has the state")
    await until(lambda: workers.totals().accepted == 2, "counts of the dead worker stay in the totals")
    assert workers.restarts == 1
    page, _ = await workers.all[0].connections(0, 10, 5.0)
    assert [one.service for one in page] == ["legacy"]
    group.pids.add(pid)


async def test_a_new_control_process_keeps_the_workers_that_suit(group: Group) -> None:
    workers = await group.start(known(service("legacy"), generation=7))
    (address,) = workers.addresses()
    before = {worker.pid for worker in workers.all}
    group.abandon()
    assert await answer(address) in before
    second = await group.start(known(service("billing"), generation=1), address=address)
    assert {worker.pid for worker in second.all} == before
    assert all(worker.adopted for worker in second.all)
    assert second.addresses() == (address,)
    page, _ = await second.all[0].connections(0, 10, 5.0)
    assert [one.service for one in page] == ["billing"]


async def test_adopted_workers_keep_what_they_serve_until_the_links_are_known(group: Group) -> None:
    workers = await group.start(known(service("legacy"), service("gone")), count=1)
    (address,) = workers.addresses()
    group.abandon()
    published = Published()
    directory = RuntimeDirectory.claim(group.path)
    second = Workers(WorkerSettings(gateway="gw", addresses=(address,), count=1, command=COMMAND), directory, published)
    group.current.append((second, directory))
    await second.start()
    (worker,) = second.all
    page, _ = await worker.connections(0, 10, 5.0)
    assert [one.service for one in page] == ["gone", "legacy"]
    published.generation += 1
    published.mesh = MESH
    published.linked = frozenset({ServiceName("legacy"), ServiceName("new")})
    second.publish((), mesh=False)
    await until(lambda: worker.applied == published.generation, "the links are applied")
    page, _ = await worker.connections(0, 10, 5.0)
    assert [one.service for one in page] == ["legacy"]


async def test_fewer_workers_than_before_drains_the_rest(group: Group) -> None:
    workers = await group.start(known(service("legacy")))
    (address,) = workers.addresses()
    before = {worker.pid for worker in workers.all}
    group.abandon()
    second = await group.start(known(service("legacy")), count=1, address=address)
    await until(lambda: len(second.all) == 1, "one of them has left")
    assert {worker.pid for worker in second.all} < before


async def test_another_protocol_version_is_drained_and_its_sockets_are_used(group: Group) -> None:
    command = ("/usr/bin/env", "SCRIPTED_VERSION_WHEN_ADOPTED=999", *COMMAND)
    first = await group.start(known(service("legacy")), count=1, command=command)
    (address,) = first.addresses()
    (old,) = first.all
    group.abandon()
    second = await group.start(known(service("legacy")), count=1, address=address)
    await until(lambda: [worker.pid for worker in second.all] != [old.pid], "the old one is replaced")
    await until(lambda: len(second.all) == 1, "the old one has left")
    assert await answer(address) == second.all[0].pid != old.pid


async def test_a_second_control_process_is_refused_by_the_pid_of_the_first(group: Group) -> None:
    await group.start(known(), count=1)
    with pytest.raises(StartError, match=f"process {os.getpid()} already runs this gateway"):
        RuntimeDirectory.claim(group.path)


async def test_an_address_in_use_is_an_error_that_names_it(group: Group) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError, match=f"cannot listen on 127.0.0.1:{port}: another process"):
            await group.start(known(), address=HostPort("127.0.0.1", port))


async def test_drain_ends_every_worker(group: Group) -> None:
    workers = await group.start(known(service("legacy")))
    await workers.drain(1.0)
    assert workers.all == []
    assert workers.restarts == 0


async def beaten(workers: Workers, condition: Callable[[], bool], what: str) -> None:
    """Let beats come until ``condition``, slowly enough for answers."""

    async def one_more() -> bool:
        workers.pulse.beat(late=False)
        await asyncio.sleep(0.05)
        return condition()

    await eventually(one_more, what=what)


async def test_a_hung_worker_is_replaced_and_killed_after_a_grace(group: Group) -> None:
    workers = await group.start(known(service("legacy")), count=1)
    (address,) = workers.addresses()
    (hung,) = workers.all
    os.kill(hung.pid, signal.SIGSTOP)
    waiting = spawn(answer(address), name="client")
    await beaten(workers, lambda: len(workers.all) == 2 and workers.ready, "another worker serves")
    group.pids |= {worker.pid for worker in workers.all}
    assert await waiting == workers.all[0].pid != hung.pid
    assert not hung.process.exited.is_set()
    await beaten(workers, hung.process.exited.is_set, "the hung one is killed")
    assert (len(workers.all), workers.restarts) == (1, 1)


SPINS = """
import signal, sys

def spin(*_):
    while True:
        pass

if "proxy" in sys.orig_argv:
    signal.signal(signal.SIGUSR2, spin)
"""


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGUSR2], ids=["stopped", "in an endless loop"])
async def test_a_real_worker_that_hangs_is_replaced(
    group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SPINS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    workers = await group.start(known(), count=1, command=worker_command())
    (hung,) = workers.all
    (address,) = workers.addresses()
    os.kill(hung.pid, how)
    _, writer = await asyncio.open_connection(address.host, address.port)
    await beaten(workers, lambda: len(workers.all) == 2 and workers.ready, "another worker serves")
    fresh = workers.all[0]
    group.pids.add(fresh.pid)
    assert fresh.pid != hung.pid

    def accepted() -> bool:
        return fresh.counters is not None and fresh.counters.accepted == 1

    await until(accepted, "the client that waited is served")
    await beaten(workers, hung.process.exited.is_set, "the hung one is killed")
    writer.close()
    assert (workers.all, workers.restarts) == ([fresh], 1)


async def test_a_hung_worker_that_answers_again_finishes_its_connections(group: Group) -> None:
    workers = await group.start(known(service("legacy")), count=1)
    (hung,) = workers.all
    os.kill(hung.pid, signal.SIGSTOP)
    await beaten(workers, lambda: len(workers.all) == 2, "another worker is there")
    os.kill(hung.pid, signal.SIGCONT)
    await beaten(workers, lambda: hung.draining, "it is drained, not killed")
    await beaten(workers, hung.process.exited.is_set, "it leaves by itself")


async def test_replacing_hung_workers_is_no_loop(group: Group) -> None:
    workers = await group.start(known(service("legacy")), count=1)
    os.kill(workers.all[0].pid, signal.SIGSTOP)
    await beaten(workers, lambda: len(workers.all) == 2 and workers.ready, "another worker serves")
    (second, _) = workers.all
    os.kill(second.pid, signal.SIGSTOP)
    for _ in range(HANG_BEATS + 5):
        workers.pulse.beat(late=False)
    assert workers.all[0] is second
    assert workers.restarts == 1


async def test_what_stopped_the_control_process_makes_no_worker_hang(group: Group) -> None:
    workers = await group.start(known(service("legacy")), count=1)
    (worker,) = workers.all
    os.kill(worker.pid, signal.SIGSTOP)
    for _ in range(HANG_BEATS):
        workers.pulse.beat(late=False)
    for _ in range(3 * HANG_BEATS):
        workers.pulse.beat(late=True)
    assert workers.all == [worker]
    os.kill(worker.pid, signal.SIGCONT)


async def test_a_crash_loop_is_slowed_down_and_explained(group: Group) -> None:
    directory = RuntimeDirectory.claim(group.path)
    command = ("/usr/bin/env", "SCRIPTED_EXIT=1", *COMMAND)
    settings = WorkerSettings(gateway="gw", addresses=(HostPort("127.0.0.1", 0),), count=1, command=command)
    workers = Workers(settings, directory, known())
    group.current.append((workers, directory))
    await workers.start()
    await until(lambda: workers.restarts >= 4 and not workers.all, "it died again and again")
    assert workers.complaint == "worker 0 is not running: exited with code 3"
    assert not workers.ready


async def test_a_worker_of_another_version_is_refused_by_name_with_the_remedy(group: Group) -> None:
    """The program was replaced on disk, and a worker died since."""
    directory = RuntimeDirectory.claim(group.path)
    command = ("/usr/bin/env", "SCRIPTED_VERSION=999", *COMMAND)
    settings = WorkerSettings(gateway="gw", addresses=(HostPort("127.0.0.1", 0),), count=1, command=command)
    workers = Workers(settings, directory, known(service("legacy")))
    group.current.append((workers, directory))
    await workers.start()
    (first,) = workers.all
    await until(lambda: workers.restarts >= 1 and "version 999" in workers.complaint, "it is refused")
    assert f"version {PROTOCOL_VERSION}: the program was replaced on disk; run consul-tgw reload" in workers.complaint
    assert first.sent == 0, "it was told the keys"


async def test_ipv6(group: Group) -> None:
    workers = await group.start(known(), count=1, address=HostPort("::1", 0))
    (address,) = workers.addresses()
    assert str(address).startswith("[::1]:")
    assert await answer(address) == workers.all[0].pid


def test_restart_delays_grow_to_a_limit() -> None:
    assert [restart_delay_s(deaths) for deaths in (1, 3, 4, 5, 20)] == [0.0, 0.0, 0.2, 0.4, 5.0]
