"""One worker, real sockets, HTTP/2 on one side or on both, and gRPC as it looks on the wire."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import GoAwayFrame

from proxy.messages import Drain
from proxy.model import HTTPSettings
from tests.support.eventually import eventually
from tests.support.http2_async import H2Exchange, HTTP2Backend, http2_client
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import http_client
from tests.support.http_mesh import http_service
from tests.support.mesh import HandMadeMesh, allow, deny, sni
from tests.support.worker import WorkerProcess

GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


async def echoing(exchange: H2Exchange) -> None:
    await exchange.whole()
    exchange.start([(":status", "200"), ("x-path", exchange.value(":path"))])
    exchange.send(bytes(exchange.body))
    exchange.finish([("x-sum", str(len(exchange.body)))])


@pytest.mark.parametrize("alpn", [False, True], ids=["prior knowledge", "ALPN"])
async def test_many_requests_share_one_connection_on_both_sides(
    mesh: HandMadeMesh, worker: WorkerProcess, alpn: bool
) -> None:
    async with HTTP2Backend(echoing) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, protocol="http2"),))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db"), alpn=alpn) as client:
            exchanges = [client.request("POST", f"/{number}", end=False) for number in range(20)]
            for number, exchange in enumerate(exchanges):
                exchange.send(b"x" * number, end=True)
            for number, exchange in enumerate(exchanges):
                await exchange.whole()
                assert (exchange.value(":status"), exchange.value("x-path")) == ("200", f"/{number}")
                assert (len(exchange.body), exchange.trailers) == (number, [("x-sum", str(number))])
        assert len(backend.sides) == 1
        assert {request.value(":authority") for request in backend.requests} == {"service"}
        await eventually(lambda: len([one for one in worker.records if one.get("status") == 200]) == 20)
        assert {one["protocol"] for one in worker.records} == {"HTTP/2"}


async def test_a_client_of_http1_reaches_a_service_of_http2(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTP2Backend(echoing) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, protocol="http2"),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for _ in range(2):
                await client.request("POST", "/x", "te: trailers\r\nconnection: te\r\n", b"hello")
                response = await client.response()
                assert (response.status, response.body, response.trailers) == (200, b"hello", [("x-sum", "5")])
        assert backend.requests[0].value("te") == "trailers"


async def test_a_client_of_http2_reaches_a_service_of_http1(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(request: Received) -> None:
        await request.answer(await request.read_body(), headers="x-mine: yes\r\n")

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            first = client.request("POST", "/up", end=False)
            first.send(b"hello", end=True)
            second = client.request("GET", "/")
            assert bytes((await first.whole()).body) == b"hello"
            assert (await second.whole()).value("x-mine") == "yes"
        assert backend.requests[0].value("host") == "service"


async def test_a_call_of_grpc_streams_both_ways_for_longer_than_the_timeout(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def answer(exchange: H2Exchange) -> None:
        exchange.start([(":status", "200"), ("content-type", "application/grpc")])
        while not exchange.ended:
            await exchange.until(lambda: exchange.ended or exchange.body)
            exchange.send(bytes(exchange.body))
            exchange.body.clear()
        await asyncio.sleep(0.5)
        exchange.finish([("grpc-status", "0")])

    async with HTTP2Backend(answer) as backend:
        settings = HTTPSettings(request_timeout_s=0.2)
        service = http_service(mesh, backend.port, protocol="grpc", http=settings)
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            call = client.request("POST", "/a.B/C", GRPC, end=False)
            for number in range(5):
                call.send(b"ping")
                await call.until(lambda number=number: len(call.body) == 4 * (number + 1))  # type: ignore[misc]
                await asyncio.sleep(0.1)
            call.send(b"", end=True)
            await call.whole()
            assert (call.trailers, call.reset) == ([("grpc-status", "0")], None)


async def test_calls_of_grpc_are_denied_and_revoked_in_their_own_way(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(exchange: H2Exchange) -> None:
        exchange.start([(":status", "200"), ("content-type", "application/grpc")])

    async with HTTP2Backend(answer) as backend:
        both = (allow("web"), allow("api"))
        service = http_service(mesh, backend.port, protocol="grpc", intentions=both)
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        web, api = (mesh.client_context(mesh.leaf(name)) for name in ("web", "api"))
        async with (
            http2_client(worker.port, web, sni("db")) as client,
            http2_client(worker.port, api, sni("db")) as other,
        ):
            call, kept = (one.request("POST", "/a.B/C", GRPC, end=False) for one in (client, other))
            await call.head()
            await kept.head()
            denied = http_service(mesh, backend.port, protocol="grpc", intentions=(deny("web"), allow("api")))
            assert (await worker.update(upserts=(denied,))).revoked == 1
            assert (await call.whole()).reset == 8  # CANCEL
            again = await client.request("POST", "/a.B/C", GRPC, end=False).whole()
            assert (again.value(":status"), again.value("grpc-status")) == ("200", "7")
            assert again.value("grpc-message") == "RBAC: access denied"
            assert (kept.reset, kept.ended) == (None, False)
            await eventually(lambda: sum(request.reset is not None for request in backend.requests) == 1)
            assert len(backend.requests) == 2


async def test_a_client_that_takes_its_request_back_is_noticed_by_the_external_service(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def answer(exchange: H2Exchange) -> None:
        exchange.start([(":status", "200")])
        exchange.send(b"some")

    async with HTTP2Backend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, protocol="http2"),))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            one, two = client.request("GET", "/one"), client.request("GET", "/two")
            await one.until(lambda: one.body)
            await two.until(lambda: two.body)
            one.cancel()
            await eventually(lambda: sorted(str(request.reset) for request in backend.requests) == ["8", "None"])
            await worker.record(event="request", reason="client_reset", flags="DC")
            assert two.reset is None


@pytest.mark.parametrize("body", [b"", b"a call of gRPC"])
async def test_what_the_external_service_did_not_look_at_is_asked_again(
    mesh: HandMadeMesh, worker: WorkerProcess, body: bytes
) -> None:
    refused = 0

    async def answer(exchange: H2Exchange) -> None:
        nonlocal refused
        if not refused:
            refused += 1
            exchange.connection.protocol.reset_stream(exchange.number, 7)  # REFUSED_STREAM
            exchange.connection.flush()
            return
        await exchange.whole()
        exchange.start([(":status", "200"), ("x-size", str(len(exchange.body)))], end=True)

    async with HTTP2Backend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, protocol="http2"),))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            asked = client.request("POST", "/x", end=not body)
            if body:
                asked.send(body, end=True)
            await asked.whole()
            assert (asked.value(":status"), asked.value("x-size")) == ("200", str(len(body)))
        assert (refused, len(backend.requests)) == (1, 2)


async def test_a_connection_that_says_goodbye_ends_its_streams_and_the_next_request_opens_another(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    go_on = asyncio.Event()

    async def answer(exchange: H2Exchange) -> None:
        if exchange.value(":path") == "/slow":
            await go_on.wait()
        exchange.start([(":status", "200")], end=True)

    async with HTTP2Backend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, protocol="http2"),))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            slow = client.request("GET", "/slow")
            await eventually(lambda: backend.requests)
            # The library would end the connection with it.
            backend.sides[0].writer.write(GoAwayFrame(last_stream_id=backend.requests[0].number).serialize())
            await eventually(lambda: len(backend.sides) == 2 or client.request("GET", "/next"))
            go_on.set()
            assert (await slow.whole()).value(":status") == "200"
            for exchange in client.exchanges.values():
                assert (await exchange.whole()).value(":status") == "200"
            assert len(backend.sides) == 2


async def test_draining_tells_the_client_to_go_elsewhere_and_answers_what_was_asked(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    go_on = asyncio.Event()

    async def answer(exchange: H2Exchange) -> None:
        await go_on.wait()
        exchange.start([(":status", "200")], end=True)

    async with HTTP2Backend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, protocol="http2"),))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            asked = client.request("GET", "/")
            await eventually(lambda: backend.requests)
            await worker.send(Drain(timeout_s=20))
            await asyncio.wait_for(client.goaway.wait(), 20)
            go_on.set()
            assert (await asked.whole()).value(":status") == "200"
            assert worker.process is not None
            await asyncio.wait_for(worker.process.wait(), 10)
