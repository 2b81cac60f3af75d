"""One worker, real sockets, HTTP/1.1 on both sides: requests in, the same requests out, and their responses back."""

from __future__ import annotations

import asyncio

import pytest

from proxy.model import HTTPSettings
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import http_client
from tests.support.http_mesh import http_service
from tests.support.mesh import TRUST_DOMAIN, HandMadeMesh, sni
from tests.support.worker import WorkerProcess


async def test_requests_of_one_connection_reach_the_external_service(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for _ in range(3):
                response = await client.get("/a?b=c", "user-agent: me\r\n")
                assert (response.status, response.body) == (200, b"ok")
        assert backend.connections == 1
        request = backend.requests[0]
        assert (request.method, request.target, request.value("host")) == ("GET", "/a?b=c", "service")
        record = await worker.record(event="request")
    assert (record["method"], record["path"], record["status"], record["verdict"]) == ("GET", "/a", 200, "allowed")
    assert record["source"] == f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
    assert (record["protocol"], record["user_agent"], record["reason"]) == ("HTTP/1.1", "me", "completed")
    assert record["request_id"] == request.value("x-request-id")


async def test_chunks_go_both_ways_and_trailers_back(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(request: Received) -> None:
        body = await request.read_body()
        told = str(request.trailers)
        await request.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (body, told.encode()):
            await request.say(b"%x\r\n%b\r\n" % (len(piece), piece))
        await request.say(b"0\r\nx-checked: yes\r\n\r\n")

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for _ in range(2):
                await client.request("POST", "/up", "transfer-encoding: chunked\r\nte: trailers\r\nconnection: te\r\n")
                await client.send(b"5\r\nhello\r\n")
                await client.send(b"0\r\nx-sum: 42\r\n\r\n")
                response = await client.response()
                assert response.body == b"hello[]"
                assert response.trailers == [("x-checked", "yes")]
        assert backend.connections == 1


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
async def test_responses_without_a_body_leave_the_connection_usable(
    mesh: HandMadeMesh, worker: WorkerProcess, method: str, status: str
) -> None:
    async def answer(request: Received) -> None:
        length = "" if status.startswith("204") else "content-length: 1000\r\n"
        await request.say(f"HTTP/1.1 {status}\r\netag: x\r\n{length}\r\n".encode())

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            for _ in range(2):
                await client.request(method)
                response = await client.response(bodiless=True)
                assert response.status == int(status[:3])
                assert response.values("content-length") == ([] if status.startswith("204") else ["1000"])
        assert backend.connections == 1


async def test_the_body_is_sent_when_the_external_service_asks_for_it(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def answer(request: Received) -> None:
        assert request.value("expect") == "100-continue"
        await request.say(b"HTTP/1.1 100 Continue\r\n\r\n")
        await request.answer(await request.read_body())

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.request("PUT", "/", "expect: 100-continue\r\ncontent-length: 5\r\n")
            assert (await client.head()).status == 100
            await client.send(b"hello")
            assert (await client.response()).body == b"hello"


async def test_a_response_before_the_end_of_the_request_ends_the_connection(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def answer(request: Received) -> None:
        await request.answer(b"too much", status="413 Content Too Large")

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.request("POST", "/", "content-length: 1000000\r\n")
            await client.send(b"x" * 1000)
            response = await client.response()
            assert (response.status, response.body, response.values("connection")) == (413, b"too much", ["close"])
            assert await client.ended() == "end"


async def test_a_web_socket_goes_through(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(request: Received) -> None:
        assert (request.value("upgrade"), request.value("sec-websocket-key")) == ("websocket", "abc")
        await request.say(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi")
        while data := await request.reader.read(1024):
            await request.say(data)
        request.writer.close()

    async with HTTPBackend(answer) as backend:
        # Its request has ended long before the tunnel does.
        settings = HTTPSettings(request_timeout_s=0.2)
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, http=settings),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.request(
                "GET", "/ws", "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: abc\r\n"
            )
            response = await client.head()
            assert (response.status, response.value("upgrade")) == (101, "websocket")
            assert await client.reader.readexactly(2) == b"hi"
            for _ in range(4):
                await client.send(b"frame")
                assert await client.reader.readexactly(5) == b"frame"
                await asyncio.sleep(0.1)
        record = await worker.record(event="request")
    assert (record["status"], record["bytes_received"], record["bytes_sent"]) == (101, 20, 22)


async def test_a_client_that_goes_is_noticed_by_the_external_service(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(request: Received) -> None:
        await request.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await request.reader.read()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.request()
            assert (await client.head()).status == 200
        await asyncio.wait_for(backend.lost.wait(), 20)
        record = await worker.record(event="request")
    assert (record["reason"], record["flags"], record["status"]) == ("client_reset", "DC", 200)


async def test_a_response_that_is_cut_does_not_look_complete(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async def answer(request: Received) -> None:
        await request.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        request.writer.close()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.request()
            assert await client.ended() == "reset"
        record = await worker.record(event="request")
    assert (record["reason"], record["flags"], record["status"]) == ("upstream_reset", "UC", 200)


async def test_an_upload_is_read_no_faster_than_the_external_service_takes_it(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    size = 64 * 1024 * 1024
    go_on = asyncio.Event()

    async def answer(request: Received) -> None:
        await go_on.wait()
        left = size
        while left:
            left -= len(await request.reader.read(1024 * 1024))
        await request.answer()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.request("POST", "/", f"content-length: {size}\r\n")
            block, sent = b"x" * 65_536, 0
            while sent < size:
                client.writer.write(block)
                sent += len(block)
                try:
                    await asyncio.wait_for(client.writer.drain(), 1 if not go_on.is_set() else 20)
                except TimeoutError:
                    # Nobody takes anything any more: what is on its way is in the kernels of both sides.
                    assert sent < 24 * 1024 * 1024
                    assert worker.memory_mib() < 150
                    go_on.set()
            assert go_on.is_set()
            assert (await client.response()).status == 200


async def test_what_the_external_service_is_told_about_the_caller(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
            headers = {
                "x-forwarded-client-cert": "By=spiffe://other/x;Hash=00",
                "x-envoy-expected-rq-timeout-ms": "15000",
                "x-request-id": "mine",
                "traceparent": traceparent,
            }
            await client.get("/", "".join(f"{name}: {value}\r\n" for name, value in headers.items()))
            await worker.update(mesh=mesh.settings(sanitize_client_cert_header=True))
            await client.get("/", "x-forwarded-client-cert: By=spiffe://other/x;Hash=00\r\n")
        told, sanitized = backend.requests
    first, own = told.value("x-forwarded-client-cert").split(",", 1)
    assert first == "By=spiffe://other/x;Hash=00"
    assert own.startswith(f"By=spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/db;Hash=")
    assert own.endswith(f"URI=spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web")
    assert 'Cert="-----BEGIN%20CERTIFICATE-----%0A' in own
    assert (told.value("x-request-id"), told.value("traceparent")) == ("mine", traceparent)
    assert told.values("x-envoy-expected-rq-timeout-ms") == []
    assert told.value("x-forwarded-proto") == "https"
    assert sanitized.values("x-forwarded-client-cert") == []
