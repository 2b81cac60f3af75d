"""What happens between the gateway and external services: pooled connections, failures, time, repetition."""

from __future__ import annotations

import asyncio
import ssl

import msgspec
import pytest

from plugin.dev.external import load_key_pair
from plugin.dev.pki import Authority
from plugin.dev.processes import free_ports
from proxy.model import Balance, BalancePolicy, HashPolicy, HashSource, HTTPSettings, UpstreamTLS
from tests.support.eventually import eventually
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import HTTPClient, Response, http_client
from tests.support.http_mesh import http_service
from tests.support.mesh import HandMadeMesh, sni
from tests.support.ports import deaf
from tests.support.worker import WorkerProcess


async def test_connections_are_shared_by_requests_of_several_clients(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        context = mesh.client_context(mesh.leaf("web"))
        for _ in range(3):
            async with http_client(worker.port, context, sni("db")) as client:
                assert (await client.get()).status == 200
        assert backend.connections == 1


async def test_a_request_goes_on_to_an_endpoint_that_answers(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        service = http_service(mesh, free_ports(1)[0], backend.port)
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for _ in range(4):
                await client.request("POST", "/", body=b"hello")
                assert (await client.response()).status == 200
        assert {request.body for request in backend.requests} == {b"hello"}


async def _failing(client: HTTPClient, worker: WorkerProcess, target: str) -> tuple[Response, dict[str, str]]:
    response = await client.get(target)
    return response, await worker.record(event="request", path=target)


async def test_what_a_client_is_told_when_there_is_no_answer(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(request: Received) -> None:
        if request.target == "/garbage":
            await request.say(b"220 mail.example ESMTP\r\n\r\n")
        elif request.target == "/gone":
            request.writer.close()
        await request.reader.read()

    context = mesh.client_context(mesh.leaf("web"))
    async with HTTPBackend(answer) as backend:
        settings = HTTPSettings(request_timeout_s=0.3)
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, http=settings),))
        async with http_client(worker.port, context, sni("db")) as client:
            told, record = await _failing(client, worker, "/slow")
            assert (told.status, told.body) == (504, b"upstream request timeout")
            assert (record["reason"], record["flags"]) == ("request_timeout", "UT")
            told, record = await _failing(client, worker, "/gone")
            assert (told.status, told.body[-22:]) == (503, b"connection termination")
            assert (record["reason"], record["flags"]) == ("upstream_reset", "UC")
            told, record = await _failing(client, worker, "/garbage")
            assert (told.status, record["reason"], record["flags"]) == (502, "bad_response", "UPE")
            await worker.update(upserts=(http_service(mesh, free_ports(1)[0]),))
            told, record = await _failing(client, worker, "/refused")
            assert (told.status, told.body[-25:]) == (503, b"remote connection failure")
            assert (record["reason"], record["flags"]) == ("dial_failed", "UF")
            assert "127.0.0.1" in record["detail"]
            await worker.update(upserts=(http_service(mesh),))
            told, record = await _failing(client, worker, "/none")
            assert (told.status, told.body) == (503, b"no healthy upstream")
            assert (record["reason"], record["flags"]) == ("no_endpoints", "UH")


async def test_a_response_that_is_not_complete_in_time_is_cut_unless_it_is_a_stream(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def answer(request: Received) -> None:
        kind = b"text/event-stream" if request.target == "/events" else b"text/plain"
        await request.say(b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind)
        for _ in range(8):
            await asyncio.sleep(0.1)
            await request.say(b"1\r\nx\r\n")
        await request.say(b"0\r\n\r\n")

    async with HTTPBackend(answer) as backend:
        settings = HTTPSettings(request_timeout_s=0.3)
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, http=settings),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert (await client.get("/events")).body == b"x" * 8
            await client.request("GET", "/report")
            assert await client.ended() == "reset"
        await worker.record(event="request", reason="request_timeout", status=200, flags="UT")


async def test_a_request_that_met_the_end_of_an_idle_connection_is_repeated_if_that_does_no_harm(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def answer(request: Received) -> None:
        await request.read_body()
        if request.number < 3 and request.target == "/again":
            # As a server that ends idle connections, at the moment at which the next request comes.
            request.writer.transport.abort()
            return
        await request.answer()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert (await client.get("/first")).status == 200
            # The new connection of the repetition is lost too, and that was no accident of an idle one.
            assert (await client.get("/again")).status == 503
            assert [request.number for request in backend.requests] == [1, 1, 2]
            assert (await client.get("/again")).status == 200
            backend.requests.clear()
            backend.connections = 0
            assert (await client.get("/first")).status == 200
            await client.request("POST", "/first", body=b"once")
            assert (await client.response()).status == 200


async def test_a_post_is_not_repeated(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(request: Received) -> None:
        await request.read_body()
        if request.method == "POST":
            request.writer.transport.abort()
        else:
            await request.answer()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert (await client.get()).status == 200
            await client.request("POST", "/", body=b"once")
            assert (await client.response()).status == 503
        assert [request.method for request in backend.requests] == ["GET", "POST"]


def _server_context(server: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_key_pair(context, server.server("db.example"))
    return context


async def test_a_changed_ca_file_is_not_passed_by_an_older_connection(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    partner, stranger = Authority("Partner CA"), Authority("Another CA")
    async with HTTPBackend(tls=_server_context(partner)) as backend:
        tls = UpstreamTLS(ca_pem=partner.certificate_pem, server_name="db.example")
        service = http_service(mesh, backend.port, upstream_tls=tls)
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert (await client.get()).status == 200
            assert backend.requests[0].value("x-forwarded-proto") == "https"
            changed = msgspec.structs.replace(tls, ca_pem=stranger.certificate_pem)
            await worker.update(upserts=(msgspec.structs.replace(service, upstream_tls=changed),))
            await eventually(lambda: backend.open == 0)
            assert (await client.get()).status == 503
            await worker.record(event="request", reason="upstream_tls_failed")
            await worker.update(upserts=(service,))
            assert (await client.get()).status == 200


async def test_the_connections_of_an_endpoint_that_goes_are_ended_when_they_are_idle(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    go_on = asyncio.Event()

    async def answer(request: Received) -> None:
        if request.target == "/slow":
            await go_on.wait()
        await request.answer()

    async with HTTPBackend(answer) as former, HTTPBackend() as latter:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, former.port),))
        context = mesh.client_context(mesh.leaf("web"))
        async with (
            http_client(worker.port, context, sni("db")) as busy,
            http_client(worker.port, context, sni("db")) as client,
        ):
            assert (await client.get()).status == 200
            await busy.request("GET", "/slow")
            await eventually(lambda: len(former.requests) == 2)
            assert (await client.get()).status == 200
            assert former.open == 2
            await worker.update(upserts=(http_service(mesh, latter.port),))
            await eventually(lambda: former.open == 1)
            go_on.set()
            assert (await busy.response()).status == 200
            await eventually(lambda: former.open == 0)
            assert (await client.get()).status == 200
            assert len(latter.requests) == 1


async def test_hash_policies_keep_a_caller_with_its_endpoint(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    policies = (
        HashPolicy(HashSource.HEADER, "x-user", terminal=True),
        HashPolicy(HashSource.COOKIE, "tgw", cookie_lifetime_s=60.0, cookie_path="/"),
    )
    balance = Balance(BalancePolicy.MAGLEV, hash_policies=policies)
    async with HTTPBackend() as first, HTTPBackend() as second, HTTPBackend() as third:
        backends = (first, second, third)
        service = http_service(mesh, *(one.port for one in backends), balance=balance)
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for user in range(6):
                for one in backends:
                    one.requests.clear()
                for _ in range(4):
                    assert (await client.get("/", f"x-user: {user}\r\n")).values("set-cookie") == []
                assert sorted(len(one.requests) for one in backends) == [0, 0, 4]
            cookie = (await client.get()).value("set-cookie")
            name, _, rest = cookie.partition("=")
            assert (name, rest.partition(";")[2]) == ("tgw", " Max-Age=60; Path=/; HttpOnly")
            for one in backends:
                one.requests.clear()
            for _ in range(4):
                told = await client.get("/", f"cookie: a=b; tgw={rest.partition(';')[0]}\r\n")
                assert told.values("set-cookie") == []
            assert sorted(len(one.requests) for one in backends) == [0, 0, 4]


async def test_an_endpoint_that_does_not_answer_is_given_up_in_time(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    with deaf("127.0.0.1") as port:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, port, connect_timeout_s=0.2),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            response = await client.get()
            assert (response.status, response.body[-18:]) == (503, b"connection timeout")
        await worker.record(event="request", reason="dial_timeout", flags="UF")


async def test_connections_without_requests_end_after_the_idle_timeout_and_busy_ones_do_not(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    go_on = asyncio.Event()

    async def answer(request: Received) -> None:
        if request.target == "/slow":
            await go_on.wait()
        await request.answer()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, idle_timeout_s=0.3),))
        context = mesh.client_context(mesh.leaf("web"))
        async with (
            http_client(worker.port, context, sni("db")) as busy,
            http_client(worker.port, context, sni("db")) as idle,
        ):
            await busy.request("GET", "/slow")
            assert (await idle.get()).status == 200
            assert await idle.ended() == "end"
            go_on.set()
            assert (await busy.response()).status == 200
            assert await busy.ended() == "end"
        await eventually(lambda: _closed(worker, "idle") == 2)


def _closed(worker: WorkerProcess, reason: str) -> int:
    counters = worker.counters
    return 0 if counters is None else sum(one.connections for one in counters.counts if one.reason == reason)


async def test_a_connection_takes_no_more_requests_near_the_end_of_its_life_and_is_cut_there(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def answer(request: Received) -> None:
        if request.target == "/slow":
            await request.reader.read()
        await request.answer()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, max_lifetime_s=0.5),))
        context = mesh.client_context(mesh.leaf("web"))
        async with (
            http_client(worker.port, context, sni("db")) as idle,
            http_client(worker.port, context, sni("db")) as busy,
        ):
            assert (await idle.get()).status == 200
            await busy.request("GET", "/slow")
            assert await idle.ended() == "end"
            assert await busy.ended() == "reset"
        record = await worker.record(event="request", path="/slow")
        assert (record["reason"], record["status"]) == ("lifetime", 0)


@pytest.mark.parametrize("leaving", ["at_once", "in_order"])
async def test_floods_of_requests_leave_nothing(mesh: HandMadeMesh, worker: WorkerProcess, leaving: str) -> None:
    async def answer(request: Received) -> None:
        if leaving == "at_once":
            await request.reader.read()
        await request.answer(b"x" * 10_000)

    async def flood(context: ssl.SSLContext) -> None:
        async with http_client(worker.port, context, sni("db")) as client:
            for _ in range(1 if leaving == "at_once" else 20):
                await client.request("GET", "/" + "a" * 1_000, "x-large: " + "b" * 4_000 + "\r\n")
                if leaving == "in_order":
                    assert len((await client.response()).body) == 10_000
            if leaving == "at_once":
                await asyncio.sleep(0.05)

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        context = mesh.client_context(mesh.leaf("web"))
        await asyncio.gather(*(flood(context) for _ in range(20)))
        idle, before_mib = worker.descriptors(), worker.memory_mib()
        for _ in range(4):
            await asyncio.gather(*(flood(context) for _ in range(20)))
        if leaving == "at_once":
            await eventually(lambda: backend.open == 0)
        await eventually(lambda: worker.descriptors() <= idle)
        assert worker.memory_mib() - before_mib < 20
