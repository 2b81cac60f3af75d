"""Bytes, ends and resets: what one side does, the other side sees."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest

from plugin.dev.external import ExternalService, banner_first, echo, reset, sink, source
from proxy.messages import Drain, Limits
from proxy.model import Service
from proxy.rules import Action
from tests.support.eventually import SCALE, eventually
from tests.support.mesh import HandMadeMesh, allow, connected, deny, sni
from tests.support.raw_tls import RawTLSClient
from tests.support.sockets import keepalive_s
from tests.support.worker import WorkerProcess, running_worker


async def test_the_clients_end_is_passed_on_and_the_answer_still_comes(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(sink) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))

        def talk() -> bytes:
            client = RawTLSClient(worker.port, context, sni("db"))
            client.send(bytes(3_000_000))
            client.finish()
            answer = client.receive_all()
            client.close()
            return answer

        assert await asyncio.to_thread(talk) == b"3000000"
        record = await worker.record(reason="client_eof")
    assert (record["bytes_received"], record["bytes_sent"]) == (3_000_000, 7)


async def test_the_external_services_end_is_passed_on_and_it_still_hears_the_client(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def last_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.set_result(await reader.read())

    async with ExternalService(last_words) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))

        def talk() -> bytes:
            client = RawTLSClient(worker.port, context, sni("db"))
            answer = client.receive_all()
            client.send(b"thanks")
            client.finish()
            return answer

        assert await asyncio.to_thread(talk) == b"bye"
        assert await asyncio.wait_for(heard, 20) == b"thanks"
        await worker.record(reason="upstream_eof")


async def test_bytes_arrive_unchanged_both_ways_at_once(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        data = os.urandom(20_000_000)
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:

            async def pump() -> None:
                for start in range(0, len(data), 77_777):
                    client.writer.write(data[start : start + 77_777])
                    await client.writer.drain()

            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                tasks.create_task(pump())
                received = await client.reader.readexactly(len(data))
        assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()


async def test_little_after_much_is_not_waited_with(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    """A direction that streams is read in large pieces; what comes after it, or stays below one, still arrives."""

    async def acknowledge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                writer.write(await reader.readexactly(length))
                await writer.drain()

    async with ExternalService(acknowledge) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for length in (16_000_000, 1, 50_000, 16_000_000, 130_000, 8_000_001, 10):
                data = os.urandom(length)
                client.writer.write(length.to_bytes(4, "big") + data)
                async with asyncio.timeout(60):
                    assert await client.reader.readexactly(length) == data


async def test_a_reset_is_passed_on_as_a_reset(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(reset) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))

        def talk() -> None:
            client = RawTLSClient(worker.port, context, sni("db"))
            client.send(b"anything")
            client.receive_all()

        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(talk)
        await worker.record(reason="upstream_reset")


async def test_an_answer_that_is_cut_by_a_reset_never_looks_complete(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    """The client is slow to read, and writes: it is the write that the kernel tells of the reset, not a read."""
    stalled = asyncio.Event()

    async def send_until_stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError):
            while True:
                writer.write(bytes(65_536))
                async with asyncio.timeout(1.0):
                    await writer.drain()
        stalled.set()
        await reader.read()

    async with ExternalService(send_until_stalled) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))
        client = await asyncio.to_thread(
            functools.partial(RawTLSClient, worker.port, context, sni("db"), receive_buffer=4_096)
        )
        assert await asyncio.to_thread(client.receive)
        await asyncio.wait_for(stalled.wait(), 60)
        service.end_connections(reset=True)
        await eventually(lambda: service.connections == 0)
        await asyncio.to_thread(client.send, b"are you there?")
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(client.receive_all)
        client.close()
        await worker.record(reason="upstream_reset")


async def test_a_service_that_is_stuck_answering_a_lost_client_is_freed(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    """Each direction waits for the other one: the service takes nothing more before its answers are taken."""
    heard, ended = 0, asyncio.Event()

    async def counting_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        try:
            while data := await reader.read(65_536):
                heard += len(data)
                writer.write(data)
                await writer.drain()
        finally:
            ended.set()

    async with ExternalService(counting_echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        await asyncio.to_thread(_send_until_stuck, worker.port, mesh.client_context(mesh.leaf("web")))
        heard_while_stuck = heard
        await asyncio.wait_for(ended.wait(), 30 * SCALE)
        assert heard > heard_while_stuck, "what the client had sent before is delivered"
        await worker.record(reason="client_reset")


async def test_a_service_that_takes_nothing_does_not_keep_a_lost_client(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    service = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1)
    try:
        port = service.sockets[0].getsockname()[1]
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", port),))
        await asyncio.to_thread(_send_until_stuck, worker.port, mesh.client_context(mesh.leaf("web")))
        record = await worker.record(reason="client_reset")
        assert "was not taken for" in record["detail"]
    finally:
        service.close()


def _send_until_stuck(port: int, context: ssl.SSLContext) -> None:
    """Send and take nothing, until nothing is taken either; then reset the connection."""
    client = RawTLSClient(port, context, sni("db"))
    client.socket.settimeout(1.5)
    with contextlib.suppress(TimeoutError):
        while True:
            client.send(bytes(65_536))
    client.reset()


async def test_what_came_before_a_refused_upload_still_reaches_the_client(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def too_large(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(10)
        writer.write(b"413 too large")
        writer.write_eof()
        await reader.read()

    async with ExternalService(too_large) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            client.writer.write(bytes(5_000_000))
            assert await asyncio.wait_for(client.reader.read(), 20) == b"413 too large"


async def test_a_reader_that_never_reads_costs_no_memory_and_delays_nobody(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(source) as endless, ExternalService(echo) as service:
        services = (mesh.service("files", endless.port), mesh.service("db", service.port))
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=services)
        context = mesh.client_context(mesh.leaf("web"))
        before = resident_bytes(worker)
        stuck = [
            await asyncio.to_thread(
                functools.partial(RawTLSClient, worker.port, context, sni("files"), receive_buffer=4_096)
            )
            for _ in range(20)
        ]
        await eventually(lambda: worker.counters is not None and worker.counters.open_connections == len(stuck))
        async with connected(worker.port, context, sni("db")) as client:
            for _ in range(200):
                assert await client.exchange(b"x" * 1_000) == b"x" * 1_000
        assert resident_bytes(worker) - before < 40_000_000
        for one in stuck:
            one.close()
        await eventually(lambda: worker.counters is not None and worker.counters.open_connections == 0)


def resident_bytes(worker: WorkerProcess) -> int:
    assert worker.process is not None
    pages = Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def test_a_denied_client_is_told_nothing_that_the_external_service_says(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(banner_first) as service:
        allowed = mesh.service("smtp", service.port, intentions=(allow("web"),))
        await worker.update(mesh=mesh.settings(), upserts=(allowed,))
        async with connected(worker.port, mesh.client_context(mesh.leaf("batch")), sni("smtp")) as client:
            assert await client.ended() == b""
        assert service.accepted == 0
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("smtp")) as client:
            assert await asyncio.wait_for(client.reader.readline(), 20) == b"220 ready\r\n"


async def test_data_that_comes_with_the_last_handshake_flight_is_relayed(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        context = mesh.client_context(mesh.leaf("web"))

        def talk() -> bytes:
            client = RawTLSClient(worker.port, context, sni("db"))
            client.send(b"first words")
            client.finish()
            return client.receive_all()

        for _ in range(20):
            assert await asyncio.to_thread(talk) == b"first words"


async def test_an_idle_connection_is_ended_only_where_the_service_says_so(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(echo) as service:
        services = (mesh.service("db", service.port), mesh.service("api", service.port, idle_timeout_s=0.4))
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=services)
        context = mesh.client_context(mesh.leaf("web"))
        async with (
            connected(worker.port, context, sni("db")) as stays,
            connected(worker.port, context, sni("api")) as idle,
        ):
            assert await stays.exchange(b"1") == b"1"
            assert await idle.exchange(b"1") == b"1"
            assert await idle.ended() == b""
            assert await stays.exchange(b"2") == b"2"
        assert (await worker.record(reason="idle"))["service"] == "api"


@pytest.mark.parametrize("first", ["client", "external service"])
async def test_a_half_closed_connection_that_is_silent_is_ended(
    mesh: HandMadeMesh, worker: WorkerProcess, first: str
) -> None:
    forgotten = asyncio.Event()

    async def forget(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if first == "external service":
            writer.write_eof()
        await forgotten.wait()

    async with ExternalService(forget) as service:
        db = mesh.service("db", service.port, intentions=(allow("web"),), half_closed_timeout_s=0.4)
        await worker.update(mesh=mesh.settings(), upserts=(db,))
        client = await asyncio.to_thread(RawTLSClient, worker.port, mesh.client_context(mesh.leaf("web")), sni("db"))
        if first == "client":
            await asyncio.to_thread(client.finish)
        record = await worker.record(reason="idle")
        assert "one side has ended" in record["detail"]
        client.close()
        forgotten.set()


async def test_a_half_closed_connection_lives_as_long_as_the_other_side_sends(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        for _ in range(30):
            writer.write(b".")
            await asyncio.sleep(0.05)

    async with ExternalService(drip) as service:
        db = mesh.service("db", service.port, intentions=(allow("web"),), half_closed_timeout_s=0.6)
        await worker.update(mesh=mesh.settings(), upserts=(db,))
        client = await asyncio.to_thread(RawTLSClient, worker.port, mesh.client_context(mesh.leaf("web")), sni("db"))
        await asyncio.to_thread(client.finish)
        assert await asyncio.to_thread(client.receive_all) == b"." * 30
        assert (await worker.record(reason="client_eof"))["duration_ms"] > 1_000
        client.close()


async def test_a_connection_that_is_busy_is_ended_at_the_end_of_its_life(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(echo) as service:
        services = (mesh.service("db", service.port), mesh.service("api", service.port, max_lifetime_s=1.0))
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=services)
        context = mesh.client_context(mesh.leaf("web"))
        async with (
            connected(worker.port, context, sni("db")) as stays,
            connected(worker.port, context, sni("api")) as short,
        ):
            assert await stays.exchange(b"1") == b"1"
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await short.exchange(b"busy")
            assert await stays.exchange(b"2") == b"2"
        record = await worker.record(reason="lifetime")
        assert record["service"] == "api"
        assert record["duration_ms"] >= 900
        assert "at most 1 s" in record["detail"]
        await eventually(lambda: service.connections == 0)


async def test_lives_end_at_different_moments(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(echo) as service:
        api = mesh.service("api", service.port, max_lifetime_s=3.0)
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(api,))
        context = mesh.client_context(mesh.leaf("web"))
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(10):
                client = await stack.enter_async_context(connected(worker.port, context, sni("api")))
                assert await client.exchange(b"1") == b"1"
            await eventually(lambda: len(worker.records) == 10)
    lives = sorted(record["duration_ms"] for record in worker.records)
    assert lives[0] >= 2_700
    # By chance alone all ten would fall into 20 ms of 300 about once in 10^10 runs.
    assert lives[-1] - lives[0] > 20


async def made_to_end(worker: WorkerProcess, mesh: HandMadeMesh, service: Service, how: str) -> None:
    """End the connections of ``service`` from this side."""
    match how:
        case "revoked":
            denied = msgspec.structs.replace(service, intentions=(deny("web"),))
            assert (await worker.update(upserts=(denied,))).revoked == 1
        case "unlinked":
            await worker.update(removals=(service.name,))
        case "drain":
            await worker.send(Drain(0.0))
        case "killed":
            assert worker.process is not None
            worker.process.kill()
        case _:
            await worker.record(reason=how)


@pytest.mark.parametrize("how", ["idle", "lifetime", "revoked", "unlinked", "drain", "killed"])
async def test_an_end_that_neither_side_made_looks_like_no_end(
    mesh: HandMadeMesh, worker: WorkerProcess, how: str
) -> None:
    """A clean end would say that what was sent so far was all."""
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def half_an_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1_000):
                writer.write(data)
            seen.set_result("end")
        except ConnectionResetError:
            seen.set_result("reset")

    limits: dict[str, Any] = {"idle": {"idle_timeout_s": 0.5}, "lifetime": {"max_lifetime_s": 0.5}}.get(how, {})
    async with ExternalService(half_an_answer) as external:
        service = mesh.service("api", external.port, intentions=(allow("web"),), **limits)
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        context = mesh.client_context(mesh.leaf("web"))
        client = await asyncio.to_thread(RawTLSClient, worker.port, context, sni("api"))
        await asyncio.to_thread(client.send, b"ping")
        assert await asyncio.to_thread(client.receive) == b"ping"
        await made_to_end(worker, mesh, service, how)
        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(client.receive)
        assert await asyncio.wait_for(seen, 20) == "reset"
        client.close()


async def test_the_kernel_looks_after_a_client_that_says_nothing(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert await client.exchange(b"1") == b"1"
            client_port = client.writer.get_extra_info("sockname")[1]
            await eventually(lambda: keepalive_s(worker.port, client_port) is not None)


async def test_silent_and_surplus_clients_are_ended(mesh: HandMadeMesh) -> None:
    limits = Limits(connections=3, pending_handshakes=2, handshake_timeout_s=0.5)
    async with running_worker(limits=limits) as worker, ExternalService(echo) as service:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", service.port),))
        silent = [socket.create_connection(("127.0.0.1", worker.port)) for _ in range(3)]
        await worker.record(reason="over_limit")
        await worker.record(reason="handshake_timeout")
        await eventually(lambda: sum(r["reason"] == "handshake_timeout" for r in worker.records) == 2)
        async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert await client.exchange(b"room again") == b"room again"
        for one in silent:
            one.close()


async def test_garbage_and_probes_are_told_apart(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db"),))
    socket.create_connection(("127.0.0.1", worker.port)).close()
    with socket.create_connection(("127.0.0.1", worker.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await worker.record(reason="not_tls")
    await eventually(lambda: worker.counters and len(worker.counters.counts) >= 2)
    assert worker.counters is not None
    counted = {count.reason: count.connections for count in worker.counters.counts}
    assert counted == {"no_bytes": 1, "not_tls": 1}
    assert not [record for record in worker.records if record["reason"] == "no_bytes"]
