"""One worker, a hand-made mesh, real sockets: who gets in, with which certificate, and which bytes arrive."""

from __future__ import annotations

import asyncio
import ssl

import pytest
from cryptography import x509

from plugin.dev.pki import Authority
from proxy.model import ServiceName
from proxy.rules import Action
from tests.support.mesh import TRUST_DOMAIN, EchoServer, HandMadeMesh, alert_of, allow, connected, deny, sni
from tests.support.worker import WorkerProcess


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_allowed_service_reaches_the_external_service_with_its_leaf(
    mesh: HandMadeMesh, worker: WorkerProcess, version: ssl.TLSVersion
) -> None:
    async with EchoServer() as echo:
        db, api = mesh.service("db", echo.port, intentions=(allow("web"),)), mesh.service("api", echo.port)
        await worker.update(mesh=mesh.settings(), upserts=(db, api))
        context = mesh.client_context(mesh.leaf("web"), maximum=version)
        async with connected(worker.port, context, sni("db")) as client:
            assert await client.exchange(b"hello") == b"hello"
            served = x509.load_der_x509_certificate(client.served_certificate)
            names = served.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.UniformResourceIdentifier) == [db.leaf.spiffe_id]
        record = await worker.record(reason="client_eof")
    assert record["verdict"] == "allowed"
    assert record["source"] == f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
    assert (record["service"], record["precedence"]) == ("db", 9)
    assert (record["bytes_received"], record["bytes_sent"]) == (5, 5)


async def test_strangers_are_refused_with_an_alert_and_counted_by_reason(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        web = mesh.client_context(mesh.leaf("web"))
        foreign = mesh.client_context(Authority("Other", trust_domain=TRUST_DOMAIN).leaf(TRUST_DOMAIN, "web"))
        port = worker.port
        assert "CERTIFICATE_REQUIRED" in await alert_of(port, mesh.client_context(None), sni("db"))
        assert "UNKNOWN_CA" in await alert_of(port, foreign, sni("db"))
        assert "UNRECOGNIZED_NAME" in await alert_of(port, web, sni("nobody"))
        assert "UNRECOGNIZED_NAME" in await alert_of(port, web, None)
        for reason in ("no_certificate", "untrusted_certificate", "unknown_server_name", "no_server_name"):
            assert (await worker.record(reason=reason))["verdict"] == "refused"
        assert echo.connections == 0


@pytest.mark.parametrize(
    "uris",
    [
        ["spiffe://99999999-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web"],
        [f"spiffe://{TRUST_DOMAIN}/agent/client/dc/dc1/id/node"],
        [f"spiffe://{TRUST_DOMAIN}/gateway/mesh/dc/dc1"],
        [f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web", f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/x"],
        [],
    ],
)
async def test_only_one_service_identity_of_the_trust_domain_gets_in(
    mesh: HandMadeMesh, worker: WorkerProcess, uris: list[str]
) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        context = mesh.client_context(mesh.authority.identity(*uris))
        assert "HANDSHAKE_FAILURE" in await alert_of(worker.port, context, sni("db"))
        await worker.record(reason="bad_identity")
        assert echo.connections == 0


async def test_unknown_policy_denies_and_an_empty_one_means_the_default(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with EchoServer() as echo:
        context = mesh.client_context(mesh.leaf("web"))
        unknown = mesh.service("db", echo.port, intentions=None)
        for settings, service, reason in (
            (mesh.settings(Action.ALLOW), unknown, "policy_unknown"),
            (mesh.settings(Action.DENY), mesh.service("db", echo.port), "denied"),
            (mesh.settings(None), mesh.service("db", echo.port), "policy_unknown"),
        ):
            await worker.update(mesh=settings, upserts=(service,))
            worker.records.clear()
            async with connected(worker.port, context, sni("db")) as client:
                assert await client.ended() == b""
            await worker.record(reason=reason)
        assert echo.connections == 0
        await worker.update(mesh=mesh.settings(Action.ALLOW))
        async with connected(worker.port, context, sni("db")) as client:
            assert await client.exchange(b"x") == b"x"


async def test_a_new_denial_ends_that_source_and_no_other(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        leaf = mesh.leaf("db")
        both = mesh.service("db", echo.port, intentions=(allow("web"), allow("batch")), leaf=leaf)
        await worker.update(mesh=mesh.settings(), upserts=(both,))
        web, batch = mesh.client_context(mesh.leaf("web")), mesh.client_context(mesh.leaf("batch"))
        async with (
            connected(worker.port, web, sni("db")) as first,
            connected(worker.port, batch, sni("db")) as second,
        ):
            await first.exchange(b"a")
            await second.exchange(b"a")
            one = mesh.service("db", echo.port, intentions=(deny("web"), allow("batch")), leaf=leaf)
            applied = await worker.update(upserts=(one,))
            assert applied.revoked == 1
            assert await first.ended() == b""
            for _ in range(10):
                assert await second.exchange(b"still here") == b"still here"
        record = await worker.record(reason="revoked")
        assert record["source"].endswith("/svc/web")
        assert "web => db" in record["detail"]


async def test_rotation_of_leaf_and_root_is_not_felt_by_a_live_connection(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(), upserts=(mesh.service("db", echo.port, intentions=(allow("web"),)),))
        web = mesh.client_context(mesh.leaf("web"))
        async with connected(worker.port, web, sni("db")) as client:
            await client.exchange(b"before")
            former, mesh.authority = mesh.authority, Authority("Next CA", trust_domain=TRUST_DOMAIN)
            roots = (former.certificate_pem, mesh.authority.certificate_pem)
            renewed = mesh.service("db", echo.port, intentions=(allow("web"),))
            await worker.update(mesh=mesh.settings(roots_pem=roots), upserts=(renewed,))
            assert await client.exchange(b"after") == b"after"
        old_client = mesh.client_context(former.leaf(TRUST_DOMAIN, "web"))
        async with connected(worker.port, old_client, sni("db")) as client:
            assert await client.exchange(b"old root, new leaf") == b"old root, new leaf"
            served = x509.load_der_x509_certificate(client.served_certificate)
            assert served == x509.load_pem_x509_certificate(renewed.leaf.certificate_chain_pem.encode())
        await worker.update(mesh=mesh.settings())
        assert "UNKNOWN_CA" in await alert_of(worker.port, old_client, sni("db"))


async def test_unlinking_ends_the_connections_of_that_service(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        services = tuple(mesh.service(name, echo.port) for name in ("db", "api"))
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=services)
        web = mesh.client_context(mesh.leaf("web"))
        async with (
            connected(worker.port, web, sni("db")) as gone,
            connected(worker.port, web, sni("api")) as stays,
        ):
            await gone.exchange(b"1")
            await stays.exchange(b"1")
            await worker.update(removals=(ServiceName("db"),))
            assert await gone.ended() == b""
            assert await stays.exchange(b"2") == b"2"
        assert "UNRECOGNIZED_NAME" in await alert_of(worker.port, web, sni("db"))
        await worker.record(reason="unlinked")


async def test_a_service_without_instances_and_one_whose_port_is_closed_say_so(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    closed = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("empty"), mesh.service("down", port)))
    context = mesh.client_context(mesh.leaf("web"))
    for name, reason in (("empty", "no_endpoints"), ("down", "dial_failed")):
        async with connected(worker.port, context, sni(name)) as client:
            assert await client.ended() == b""
        record = await worker.record(reason=reason)
    assert f"127.0.0.1:{port}" in record["detail"]


async def test_another_endpoint_is_tried_while_nothing_was_sent(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    closed = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", port, echo.port),))
        context = mesh.client_context(mesh.leaf("web"))
        for _ in range(4):
            async with connected(worker.port, context, sni("db")) as client:
                assert await client.exchange(b"x") == b"x"


async def test_no_client_is_given_a_ticket_to_resume_with(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = mesh.client_context(mesh.leaf("web"), maximum=version)
            async with connected(worker.port, context, sni("db")) as client:
                assert await client.exchange(b"x") == b"x"
                session = client.writer.get_extra_info("ssl_object").session
                assert not session.has_ticket
