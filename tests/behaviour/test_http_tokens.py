"""Streams end with the token that let them in."""

from __future__ import annotations

import asyncio
import time

import pytest

from proxy.rules import Action, Intention, TokenRequirement
from tests.support.eventually import SCALE, eventually
from tests.support.http2_async import H2Exchange, HTTP2Backend, http2_client
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import http_client
from tests.support.http_mesh import http_service
from tests.support.mesh import HandMadeMesh, allow, sni
from tests.support.tokens import CLAIMS, provider, signed
from tests.support.worker import WorkerProcess

WITH_TOKEN = Intention("web", Action.ALLOW, 9, destination="db", layer7=True, tokens=(TokenRequirement("okta"),))
WEBSOCKET = "connection: upgrade\r\nupgrade: websocket\r\n"


def token(lives_s: float) -> str:
    return signed(dict(CLAIMS) | {"exp": time.time() + lives_s}, kid="k1").decode()


async def answer(request: Received) -> None:
    if request.target == "/websocket":
        await request.say(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
    elif request.target == "/events":
        await request.say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    elif request.target == "/upload":
        await request.read_body()
        await request.answer()
        return
    while True:
        await request.reader.readexactly(1)


@pytest.mark.parametrize(("target", "headers", "status"), [("/websocket", WEBSOCKET, 101), ("/events", "", 200)])
async def test_a_stream_ends_when_its_token_does(
    mesh: HandMadeMesh, worker: WorkerProcess, target: str, headers: str, status: int
) -> None:
    async with HTTPBackend(answer) as backend:
        service = http_service(mesh, backend.port, intentions=(WITH_TOKEN,))
        mesh_settings = mesh.settings(token_providers=(provider(clock_skew_s=1.0),))
        await worker.update(mesh=mesh_settings, upserts=(service,))
        context = mesh.client_context(mesh.leaf("web"))
        async with (
            http_client(worker.port, context, sni("db")) as short,
            http_client(worker.port, context, sni("db")) as long,
        ):
            began_s = time.monotonic()
            for client, lives_s in ((short, 1.0), (long, 600.0)):
                await client.request("GET", target, f"authorization: Bearer {token(lives_s)}\r\n{headers}")
                assert (await client.head()).status == status
            assert await short.ended() == "reset"
            took_s = time.monotonic() - began_s
            record = await worker.record(event="request", reason="token_expired")
            assert (record["status"], record["detail"]) == (status, "the token that let it in has expired")
            assert took_s > 1.5, "the skew counts"
            assert took_s < 5.0 * SCALE
            # The token of the other one is good; taking the requirement away leaves it alone, too.
            await worker.update(upserts=(http_service(mesh, backend.port, intentions=(allow("web"),)),))
            assert [one for one in worker.records if one.get("reason") == "token_expired"] == [record]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(long.reader.read(1), 0.3)


async def test_what_is_no_stream_may_be_done_after_its_token(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend(answer) as backend:
        service = http_service(mesh, backend.port, intentions=(WITH_TOKEN,))
        await worker.update(mesh=mesh.settings(token_providers=(provider(clock_skew_s=0.0),)), upserts=(service,))
        async with http_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            bearer = f"authorization: Bearer {token(1.0)}\r\n"
            over_s = time.time() + 1.5
            await client.request("POST", "/upload", f"{bearer}transfer-encoding: chunked\r\n")
            while time.time() < over_s:
                await client.send(b"1\r\nx\r\n")
                await asyncio.sleep(0.1)
            await client.send(b"0\r\n\r\n")
            assert (await client.response()).status == 200
            assert (await client.get("/again", bearer)).status == 401


@pytest.mark.parametrize("answered", [True, False])
async def test_a_call_of_grpc_ends_with_its_token(mesh: HandMadeMesh, worker: WorkerProcess, answered: bool) -> None:
    async def begin(exchange: H2Exchange) -> None:
        if answered:
            exchange.start([(":status", "200"), ("content-type", "application/grpc")])

    async with HTTP2Backend(begin) as backend:
        service = http_service(mesh, backend.port, protocol="grpc", intentions=(WITH_TOKEN,))
        await worker.update(mesh=mesh.settings(token_providers=(provider(clock_skew_s=0.0),)), upserts=(service,))
        async with http2_client(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
            bearer = [("content-type", "application/grpc"), ("authorization", f"Bearer {token(1.0)}")]
            call = client.request("POST", "/a.B/C", bearer, end=False)
            other = client.request(
                "POST", "/a.B/D", [*bearer[:1], ("authorization", f"Bearer {token(600.0)}")], end=False
            )
            if answered:
                await other.until(lambda: other.headers)
                await call.until(lambda: call.reset is not None)
                assert call.reset == 8  # CANCEL
            else:
                await call.whole()
                assert call.value("grpc-status") == "16"
            await worker.record(event="request", reason="token_expired")
            assert other.reset is None
            await eventually(lambda: len(backend.requests) == 2)
