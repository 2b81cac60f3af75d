"""Callers of peers that a mesh gateway asks for: each request has its own, and only a mesh gateway has any."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest

from plugin.dev.pki import Authority, KeyPair
from proxy.messages import Applied, ConnectionPage, Ended, Kill, Query
from proxy.model import Mesh, PeerBundle, Service
from proxy.rules import Action, Intention, Match, Permission, TokenRequirement
from tests.support.eventually import eventually
from tests.support.http_backend import HTTPBackend, Received
from tests.support.http_client import HTTPClient, http_client
from tests.support.http_mesh import http_service
from tests.support.mesh import TRUST_DOMAIN, HandMadeMesh, alert_of, sni
from tests.support.tokens import CLAIMS, provider, signed
from tests.support.worker import WorkerProcess

CLOUD, OTHER = "22222222-2222-3333-4444-555555555555.consul", "33333333-2222-3333-4444-555555555555.consul"
GATEWAY = f"spiffe://{TRUST_DOMAIN}/gateway/mesh/dc/dc1"
PEERS = tuple(
    PeerBundle(name, domain, (Authority(name, trust_domain=domain).certificate_pem,))
    for name, domain in (("cloud", CLOUD), ("other", OTHER))
)


def spiffe(service: str = "web", domain: str = CLOUD) -> str:
    return f"spiffe://{domain}/ns/default/dc/dc2/svc/{service}"


def line(uri: str, by: str = GATEWAY) -> str:
    return f'x-forwarded-client-cert: By={by};Hash=ab;Subject="";URI={uri}\r\n'


def of_peer(source: str, action: Action = Action.ALLOW, peer: str = "cloud") -> Intention:
    return Intention(source=source, source_peer=peer, action=action, precedence=9, destination="db")


def service(mesh: HandMadeMesh, backend: HTTPBackend, *intentions: Intention, **fields: Any) -> Service:
    fields.setdefault("importers", ("cloud",))
    return http_service(mesh, backend.port, intentions=intentions or (of_peer("web"),), **fields)


def settings(mesh: HandMadeMesh, default: Action = Action.DENY, **fields: Any) -> Mesh:
    return mesh.settings(default, peer_bundles=PEERS, **fields)


def gateway(
    mesh: HandMadeMesh, worker: WorkerProcess, pair: KeyPair | None = None
) -> AbstractAsyncContextManager[HTTPClient]:
    return http_client(worker.port, mesh.client_context(pair or mesh.authority.identity(GATEWAY)), sni("db"))


async def streaming(request: Received) -> None:
    if request.target == "/stream":
        await request.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ntick\r\n")
    else:
        await request.answer()


async def test_each_request_of_one_connection_has_its_own_caller(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=settings(mesh), upserts=(service(mesh, backend),))
        async with gateway(mesh, worker) as client:
            statuses = [
                (await client.get(f"/{name}", line(spiffe(name)))).status for name in ("web", "api", "web", "admin")
            ]
        assert statuses == [200, 403, 200, 403]
        (first, second) = [request.value("x-forwarded-client-cert") for request in backend.requests]
        assert first == second
        # The mesh gateway's element stays the first, and ours says who brought it.
        assert first.startswith(line(spiffe()).partition(": ")[2].strip() + f",By=spiffe://{TRUST_DOMAIN}/ns/")
        assert first.endswith(f";URI={GATEWAY}")
    allowed = await worker.record(event="request", path="/web")
    assert (allowed["source"], allowed["peer"], allowed["via"]) == (spiffe(), "cloud", GATEWAY)
    assert allowed["intention"] == "cloud:web => db (precedence 9)"
    denied = await worker.record(event="request", path="/api")
    assert (denied["verdict"], denied["source"], denied["peer"]) == ("denied", spiffe("api"), "cloud")
    assert "cloud:api may not connect to db" in denied["detail"]

    def counted() -> bool:
        rows = worker.counters.requests if worker.counters is not None else ()
        return {row.source for row in rows} >= {"cloud:web", "cloud:api"}

    await eventually(counted)


NOBODY = {
    "none": "",
    "two lines": line(spiffe()) + line(spiffe()),
    "two elements": line(f"{spiffe()},By={GATEWAY};URI={spiffe()}"),
    "two URIs": line(f"{spiffe()};URI={spiffe()}"),
    "quoted": line(f'"{spiffe()}"'),
    "an end that is quoted": line(spiffe()).replace('Subject=""', 'Subject="'),
    "written by another gateway": line(spiffe(), by=GATEWAY.replace("dc1", "dc9")),
    "an escaped character": line(spiffe("w%65b")),
    "a mesh gateway of the peer": line(f"spiffe://{CLOUD}/gateway/mesh/dc/dc2"),
    "a caller of this cluster": line(spiffe(domain=TRUST_DOMAIN)),
    "a peer without the export": line(spiffe(domain=OTHER)),
    "an unknown peer": line(spiffe(domain="44444444-2222-3333-4444-555555555555.consul")),
    "another partition": line(spiffe().replace("/ns/", "/ap/east/ns/")),
    "upper case": line(spiffe(domain=CLOUD.upper())),
    "underscores": line(spiffe()).replace("-", "_", 3),
}


async def test_who_is_not_said_beyond_doubt_is_nobody(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    """Also where everybody is allowed."""
    anybody = (of_peer("*"), Intention(source="*", action=Action.ALLOW, precedence=8, destination="db"))
    async with HTTPBackend() as backend:
        await worker.update(mesh=settings(mesh, Action.ALLOW), upserts=(service(mesh, backend, *anybody),))
        async with gateway(mesh, worker) as client:
            for what, headers in NOBODY.items():
                assert ((await client.get("/", headers)).status, what) == (403, what)
            assert (await client.get("/", line(spiffe()))).status == 200
        assert len(backend.requests) == 1
    record = await worker.record(event="request", status=403)
    assert (record["reason"], record["verdict"], record["source"]) == ("bad_identity", "denied", GATEWAY)


async def test_the_header_of_a_service_says_nothing(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    """Nor that of a client of this cluster which calls itself a mesh gateway there."""
    async with HTTPBackend() as backend:
        await worker.update(mesh=settings(mesh), upserts=(service(mesh, backend),))
        async with gateway(mesh, worker, mesh.leaf("web")) as client:
            assert (await client.get("/", line(spiffe()))).status == 403
        await worker.update(upserts=(service(mesh, backend, of_peer("web", Action.DENY), _local("web")),))
        async with gateway(mesh, worker, mesh.leaf("web")) as client:
            assert (await client.get("/", line(spiffe()))).status == 200
    assert (await worker.record(event="request", status=200))["source"].endswith("/dc/dc1/svc/web")


def _local(source: str) -> Intention:
    return Intention(source=source, action=Action.ALLOW, precedence=9, destination="db")


STRANGERS = {
    "another trust domain": f"spiffe://{CLOUD}/gateway/mesh/dc/dc1",
    "another partition": GATEWAY.replace("/gateway", "/ap/east/gateway"),
    "a terminating gateway": GATEWAY.replace("mesh", "terminating"),
    "more path": f"{GATEWAY}/x",
    "no datacenter": GATEWAY.removesuffix("/dc1"),
}


async def test_other_gateways_do_not_get_past_the_handshake(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        await worker.update(mesh=settings(mesh, Action.ALLOW), upserts=(service(mesh, backend),))
        for what, uri in STRANGERS.items():
            alert = await alert_of(worker.port, mesh.client_context(mesh.authority.identity(uri)), sni("db"))
            assert ("HANDSHAKE_FAILURE" in alert, what) == (True, what)
        await eventually(lambda: [one["reason"] for one in worker.records] == ["bad_identity"] * len(STRANGERS))


async def test_a_mesh_gateway_has_no_business_with_what_is_not_exported(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    context = mesh.client_context(mesh.authority.identity(GATEWAY))
    async with HTTPBackend() as backend:
        await worker.update(mesh=settings(mesh, Action.ALLOW), upserts=(service(mesh, backend, importers=()),))
        assert "HANDSHAKE_FAILURE" in await alert_of(worker.port, context, sni("db"))
        whole = service(mesh, backend, http=None, protocol="tcp")
        await worker.update(upserts=(whole,))
        assert "HANDSHAKE_FAILURE" in await alert_of(worker.port, context, sni("db"))


Change = Callable[[HandMadeMesh, WorkerProcess, HTTPBackend], Awaitable[Applied]]


async def _export_of_both_ends(mesh: HandMadeMesh, worker: WorkerProcess, backend: HTTPBackend) -> Applied:
    return await worker.update(upserts=(service(mesh, backend, of_peer("*"), importers=()),))


async def _peering_ends(mesh: HandMadeMesh, worker: WorkerProcess, backend: HTTPBackend) -> Applied:
    return await worker.update(mesh=mesh.settings(), upserts=(service(mesh, backend, of_peer("*"), importers=()),))


async def _layer_4(mesh: HandMadeMesh, worker: WorkerProcess, backend: HTTPBackend) -> Applied:
    return await worker.update(upserts=(service(mesh, backend, of_peer("*"), http=None, protocol="tcp"),))


@pytest.mark.parametrize("change", [_export_of_both_ends, _peering_ends, _layer_4])
async def test_what_is_no_longer_exported_ends(mesh: HandMadeMesh, worker: WorkerProcess, change: Change) -> None:
    async with HTTPBackend(streaming) as backend:
        await worker.update(mesh=settings(mesh), upserts=(service(mesh, backend, of_peer("*")),))
        async with gateway(mesh, worker) as client, gateway(mesh, worker) as idle:
            assert (await idle.get("/", line(spiffe()))).status == 200
            await client.request("GET", "/stream", line(spiffe()))
            await client.reader.readuntil(b"tick")
            applied = await change(mesh, worker, backend)
            assert applied.ended == (Ended("db", "cloud:web", "revoked", 1),)
            await client.ended()
            await idle.ended()
    assert (await worker.record(event="request", path="/stream"))["reason"] == "revoked"


async def test_one_peer_that_goes_ends_none_of_the_other(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    both = of_peer("*"), of_peer("*", peer="other")
    async with HTTPBackend(streaming) as backend:
        await worker.update(mesh=settings(mesh), upserts=(service(mesh, backend, *both, importers=("cloud", "other")),))
        async with gateway(mesh, worker) as cloud, gateway(mesh, worker) as other:
            await cloud.request("GET", "/stream", line(spiffe()))
            await other.request("GET", "/stream", line(spiffe(domain=OTHER)))
            for client in (cloud, other):
                await client.reader.readuntil(b"tick")
            page = await _page(worker)
            assert {one.caller for one in page.connections} == {"mesh gateway of dc1"}
            shown = [request.caller for one in page.connections for request in one.live_requests]
            assert sorted(shown) == ["cloud:web", "other:web"]
            applied = await worker.update(upserts=(service(mesh, backend, *both, importers=("other",)),))
            assert [one.source for one in applied.ended] == ["cloud:web"]
            await cloud.ended()
            (left,) = [one for one in backend.requests if OTHER in one.value("x-forwarded-client-cert")]
            await left.say(b"4\r\nmore\r\n")
            await other.reader.readuntil(b"more")
            await worker.send(Kill(8, source="other:web", detail="wanted"))
            await other.ended()
    assert (await worker.record(event="request", source=spiffe(domain=OTHER)))["reason"] == "killed"


async def _page(worker: WorkerProcess) -> ConnectionPage:
    await worker.send(Query(7))
    page: ConnectionPage = await eventually(
        lambda: next((one for one in worker.frames if isinstance(one, ConnectionPage)), None)
    )
    return page


async def test_of_two_peers_in_one_trust_domain_nobody_can_say_which_it_is(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    twice = (PeerBundle("cloud", CLOUD, PEERS[0].roots_pem), PeerBundle("again", CLOUD, PEERS[0].roots_pem))
    async with HTTPBackend() as backend:
        exported = service(mesh, backend, of_peer("*"), of_peer("*", peer="again"), importers=("again", "cloud"))
        await worker.update(mesh=mesh.settings(peer_bundles=twice), upserts=(exported,))
        async with gateway(mesh, worker) as client:
            assert (await client.get("/", line(spiffe()))).status == 403
            # To one of them alone: then it is that one.
            await worker.update(upserts=(service(mesh, backend, of_peer("*"), importers=("cloud",)),))
            assert (await client.get("/", line(spiffe()))).status == 200


async def test_a_caller_of_a_peer_is_asked_for_a_token_and_permissions(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    only_public = (Permission(Action.ALLOW, Match.PREFIX, "/public"),)
    asking = msgspec.structs.replace(
        of_peer("web"), layer7=True, permissions=only_public, tokens=(TokenRequirement("okta"),)
    )
    bearer = f"authorization: Bearer {signed(dict(CLAIMS) | {'exp': time.time() + 600}, kid='k1').decode()}\r\n"
    async with HTTPBackend() as backend:
        known = settings(mesh, token_providers=(provider(),))
        await worker.update(mesh=known, upserts=(service(mesh, backend, asking),))
        async with gateway(mesh, worker) as client:
            assert (await client.get("/public", line(spiffe()))).status == 401
            assert (await client.get("/public", line(spiffe()) + bearer)).status == 200
            assert (await client.get("/private", line(spiffe()) + bearer)).status == 403
            assert (await client.get("/public", line(spiffe("api")) + bearer)).status == 403


async def test_what_the_mesh_does_not_pass_on_is_read_all_the_same(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with HTTPBackend() as backend:
        sanitizing = settings(mesh, sanitize_client_cert_header=True)
        await worker.update(mesh=sanitizing, upserts=(service(mesh, backend),))
        async with gateway(mesh, worker) as client:
            assert (await client.get("/", line(spiffe()))).status == 200
        assert backend.requests[0].values("x-forwarded-client-cert") == []
