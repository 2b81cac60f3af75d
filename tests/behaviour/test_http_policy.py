"""Who may ask what, on connections that stay: each request is decided with the policy of its moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from proxy.messages import Drain, Ping, Pong
from proxy.model import CloseReason, ServiceName
from proxy.rules import Action, Intention, Match, Permission
from tests.support.eventually import eventually
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import HTTPClient, http_client
from tests.support.http_mesh import http_service
from tests.support.mesh import HandMadeMesh, alert_of, allow, deny, sni
from tests.support.worker import WorkerProcess

DENIED = b"RBAC: access denied"


def by_path(source: str, prefix: str, action: Action = Action.ALLOW) -> Intention:
    return Intention(
        source=source,
        action=Action.DENY,
        precedence=9,
        destination="db",
        layer7=True,
        permissions=(Permission(action, Match.PREFIX, prefix),),
    )


async def streaming(request: Received) -> None:
    """``/stream`` is answered for as long as the client listens."""
    if request.target != "/stream":
        await request.answer()
        return
    await request.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        await request.say(b"4\r\ntick\r\n")
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def listening(worker: WorkerProcess, mesh: HandMadeMesh, source: str) -> AsyncIterator[HTTPClient]:
    """A client in the middle of a stream."""
    async with http_client(worker.port, mesh.client_context(mesh.leaf(source)), sni("db")) as client:
        await client.request("GET", "/stream")
        assert (await client.head()).status == 200
        await client.reader.readuntil(b"tick")
        yield client


async def test_a_denied_request_is_told_so_and_the_connection_goes_on(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with HTTPBackend() as backend:
        service = http_service(mesh, backend.port, intentions=(by_path("web", "/public"),))
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            response = await client.get("/secret")
            assert (response.status, response.body) == (403, DENIED)
            assert (response.value("content-type"), response.value("server")) == ("text/plain", "consul-tgw")
            assert (await client.get("/public/x")).status == 200
            # What is decided about is what is forwarded.
            assert (await client.get("/public/../secret")).status == 403
            assert (await client.get("/x/../public/%79?q=%41")).status == 200
        assert [request.target for request in backend.requests] == ["/public/x", "/public/y?q=%41"]
        denied = await worker.record(event="request", status=403)
        allowed = await worker.record(event="request", status=200)
    assert (denied["verdict"], denied["reason"], denied["path"]) == ("denied", "denied", "/secret")
    assert (allowed["verdict"], allowed["permission"], allowed["precedence"]) == ("allowed", 1, 9)


async def test_a_denied_call_of_grpc_is_told_in_its_own_way(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        service = http_service(mesh, backend.port, intentions=(deny("web"),))
        await worker.update(mesh=mesh.settings(), upserts=(service,))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            response = await client.get("/a.B/C", "content-type: application/grpc+proto\r\n")
            assert (response.status, response.value("grpc-status")) == (200, "7")
            assert response.value("grpc-message") == "RBAC: access denied"
        assert backend.requests == []


async def test_only_identities_of_services_get_past_the_handshake(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(http_service(mesh, backend.port),))
        foreign = mesh.authority.identity(
            "spiffe://99999999-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/a"
        )
        assert "HANDSHAKE_FAILURE" in await alert_of(worker.port, mesh.client_context(foreign), sni("db"))
        await worker.record(reason="bad_identity")


async def test_the_next_request_of_a_connection_is_decided_with_the_new_policy(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert (await client.get()).status == 200
            await worker.update(upserts=(http_service(mesh, backend.port, intentions=(deny("web"),)),))
            assert (await client.get()).body == DENIED
            await worker.update(upserts=(http_service(mesh, backend.port),))
            assert (await client.get()).status == 200


async def test_a_new_denial_ends_the_streams_of_that_source_and_of_no_other(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    both = (allow("web"), allow("api"))
    async with HTTPBackend(streaming) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port, intentions=both),))
        async with listening(worker, mesh, "web") as web, listening(worker, mesh, "api") as api:
            denied = http_service(mesh, backend.port, intentions=(deny("web"), allow("api")))
            applied = await worker.update(upserts=(denied,))
            assert applied.revoked == 1
            assert await asyncio.wait_for(web.ended(), 1) == "reset"
            for _ in range(3):
                await api.reader.readuntil(b"tick")
            record = await worker.record(event="request", reason="revoked")
            assert (record["verdict"], record["status"], record["source"][-3:]) == ("denied", 200, "web")
            await eventually(lambda: backend.open == 1)


async def test_a_request_that_waits_for_its_response_is_told_that_it_is_denied_now(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    asked = asyncio.Event()

    async def answer(request: Received) -> None:
        asked.set()
        await request.reader.read()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            await client.request()
            await asked.wait()
            await worker.update(upserts=(http_service(mesh, backend.port, intentions=(by_path("web", "/other"),)),))
            assert (await client.response()).body == DENIED
            await asyncio.wait_for(backend.lost.wait(), 20)
        await worker.record(event="request", reason="revoked", status=403)


async def test_unlinking_ends_everything(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend(streaming) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        context = mesh.client_context(mesh.leaf("web"))
        async with listening(worker, mesh, "web") as busy, http_client(worker.port, context, sni("db")) as idle:
            assert (await idle.get()).status == 200
            await worker.update(removals=(ServiceName("db"),))
            assert await busy.ended() == "reset"
            assert await idle.ended() == "reset"
            await worker.record(event="request", reason="unlinked")
            await eventually(lambda: backend.open == 0)


async def test_a_worker_that_stops_answers_what_was_asked_and_takes_no_more(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: Received) -> None:
        asked.set()
        await go_on.wait()
        await request.answer()

    async with HTTPBackend(answer) as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        context = mesh.client_context(mesh.leaf("web"))
        async with http_client(worker.port, context, sni("db")) as busy:
            await busy.request()
            await asked.wait()
            await worker.send(Drain(timeout_s=20))
            await worker.send(Ping(1))
            await eventually(lambda: Pong(1) in worker.frames)
            go_on.set()
            response = await busy.response()
            assert (response.status, response.values("connection")) == (200, ["close"])
            assert await busy.ended() == "end"
        assert worker.process is not None
        await asyncio.wait_for(worker.process.wait(), 10)


async def test_an_idle_connection_does_not_keep_a_worker_that_stops(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=mesh.settings(), upserts=(http_service(mesh, backend.port),))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            assert (await client.get()).status == 200
            await worker.send(Drain(timeout_s=20))
            assert await client.ended() == "end"
            assert worker.process is not None
            await asyncio.wait_for(worker.process.wait(), 10)


@pytest.mark.parametrize("become", ["tcp", "http"])
async def test_a_service_changes_its_protocol_under_a_live_connection(
    mesh: HandMadeMesh, worker: WorkerProcess, become: str
) -> None:
    async with HTTPBackend() as backend:
        http = http_service(mesh, backend.port)
        tcp = mesh.service("db", backend.port, intentions=(allow("web"),))
        before, after = (http, tcp) if become == "tcp" else (tcp, http)
        await worker.update(mesh=mesh.settings(), upserts=(before,))
        context = mesh.client_context(mesh.leaf("web"))
        async with http_client(worker.port, context, sni("db")) as client:
            assert (await client.get()).status == 200
            await worker.update(upserts=(after,))
            ended = await client.ended()
        if become == "tcp":
            assert ended == "end"
        else:
            # It would go on past everything that is decided about requests.
            await worker.record(reason="revoked")
        async with http_client(worker.port, context, sni("db")) as client:
            assert (await client.get()).status == 200
        reasons = {record["reason"] for record in worker.records}
        assert CloseReason.INTERNAL not in reasons
