"""The second TLS session: every combination of CAFile, CertFile + KeyFile and SNI against real TLS servers."""

from __future__ import annotations

import contextlib
import ssl

import pytest

from plugin.dev.external import ExternalService, echo
from plugin.dev.pki import Authority, KeyPair
from proxy.model import Action, UpstreamTLS
from tests.support.mesh import HandMadeMesh, connected, sni
from tests.support.worker import WorkerProcess

PARTNER = Authority("Partner CA")
OTHER = Authority("Other CA")
SERVER = PARTNER.server("partner.example", "*.wild.example", "127.0.0.1")
CLIENT = PARTNER.client("gateway")


def settings(name: str = "", client: KeyPair | None = None, authority: Authority = PARTNER) -> UpstreamTLS:
    return UpstreamTLS(
        ca_pem=authority.certificate_pem,
        certificate_chain_pem=client.certificate_pem if client else "",
        private_key_pem=client.private_key_pem if client else "",
        server_name=name,
    )


async def try_it(mesh: HandMadeMesh, worker: WorkerProcess, port: int, tls: UpstreamTLS | None) -> bool:
    """Whether an exchange through the gateway succeeds."""
    service = mesh.service("api", port, upstream_tls=tls)
    await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(service,))
    async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("api")) as client:
        client.writer.write(b"ping")
        with contextlib.suppress(ConnectionError):
            return await client.reader.read(4) == b"ping"
    return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["", "partner.example"])
@pytest.mark.parametrize("mutual", [False, True])
async def test_each_combination_reaches_the_server(
    mesh: HandMadeMesh, worker: WorkerProcess, version: ssl.TLSVersion, name: str, mutual: bool
) -> None:
    authority = PARTNER.certificate_pem if mutual else None
    async with ExternalService(echo, tls=SERVER, client_ca_pem=authority, max_tls_version=version) as service:
        assert await try_it(mesh, worker, service.port, settings(name, CLIENT if mutual else None))
        assert service.server_names == [name or None]
        assert len(service.client_certificates) == int(mutual)


@pytest.mark.parametrize("name", ["a.wild.example", "127.0.0.1"])
async def test_wildcard_and_address_names_satisfy_the_check(
    mesh: HandMadeMesh, worker: WorkerProcess, name: str
) -> None:
    async with ExternalService(echo, tls=SERVER) as service:
        assert await try_it(mesh, worker, service.port, settings(name))


@pytest.mark.parametrize("name", ["wrong.example", "a.b.wild.example", "127.0.0.2", "example"])
async def test_a_wrong_name_is_refused_and_the_presented_names_are_told(
    mesh: HandMadeMesh, worker: WorkerProcess, name: str
) -> None:
    async with ExternalService(echo, tls=SERVER) as service:
        assert not await try_it(mesh, worker, service.port, settings(name))
    record = await worker.record(reason="upstream_tls_failed")
    assert name in record["detail"]
    assert "partner.example, *.wild.example, 127.0.0.1" in record["detail"]


async def test_a_common_name_is_never_a_name(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(echo, tls=PARTNER.server()) as service:
        assert not await try_it(mesh, worker, service.port, settings("server"))
    assert "no subject alternative name" in (await worker.record(reason="upstream_tls_failed"))["detail"]


@pytest.mark.parametrize("name", ["", "partner.example"])
async def test_a_server_of_another_ca_is_refused(mesh: HandMadeMesh, worker: WorkerProcess, name: str) -> None:
    async with ExternalService(echo, tls=SERVER) as service:
        assert not await try_it(mesh, worker, service.port, settings(name, authority=OTHER))
    assert "not trusted by CAFile" in (await worker.record(reason="upstream_tls_failed"))["detail"]


async def test_an_expired_server_certificate_is_refused(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(echo, tls=PARTNER.expired("partner.example")) as service:
        assert not await try_it(mesh, worker, service.port, settings("partner.example"))
    assert "expired" in (await worker.record(reason="upstream_tls_failed"))["detail"]


async def test_a_plain_server_behind_a_tls_link_gets_no_byte_of_the_client(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(echo) as service:
        assert not await try_it(mesh, worker, service.port, settings("partner.example"))
    await worker.record(reason="upstream_tls_failed")


async def test_without_a_client_certificate_mutual_tls_fails(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(echo, tls=SERVER, client_ca_pem=PARTNER.certificate_pem) as service:
        assert not await try_it(mesh, worker, service.port, settings("partner.example"))
        assert service.accepted == 0


async def test_material_that_cannot_be_used_is_reported_and_never_becomes_plain_text(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with ExternalService(echo) as plain:
        broken = UpstreamTLS(ca_pem="no certificate")
        services = (mesh.service("bad", plain.port, upstream_tls=broken), mesh.service("good", plain.port))
        applied = await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=services)
        assert [(str(problem.service), "CAFile" in problem.message) for problem in applied.problems] == [("bad", True)]
        context = mesh.client_context(mesh.leaf("web"))
        async with connected(worker.port, context, sni("good")) as client:
            assert await client.exchange(b"x") == b"x"
        async with connected(worker.port, context, sni("bad")) as client:
            assert await client.ended() == b""
        assert plain.accepted == 1


async def test_a_broken_renewal_keeps_the_former_material(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with ExternalService(echo, tls=SERVER) as service:
        assert await try_it(mesh, worker, service.port, settings("partner.example"))
        assert await try_it(mesh, worker, service.port, UpstreamTLS(ca_pem="junk", server_name="partner.example"))
