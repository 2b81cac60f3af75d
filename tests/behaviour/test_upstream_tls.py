"""The second TLS session: every combination of CAFile, CertFile + KeyFile and SNI against real TLS servers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from plugin.dev.external import ExternalService, echo
from plugin.dev.pki import Authority, KeyPair
from plugin.dev.processes import can_connect, free_ports
from proxy.model import UpstreamTLS
from proxy.rules import Action
from tests.support.eventually import eventually
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


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_missing_client_certificate_is_named(
    mesh: HandMadeMesh, worker: WorkerProcess, version: ssl.TLSVersion
) -> None:
    """This server drops the connection without an alert; with TLS 1.3 after a handshake that looked good."""
    options: dict[str, Any] = {
        "min_tls_version": version,
        "max_tls_version": version,
    }
    async with ExternalService(echo, tls=SERVER, client_ca_pem=PARTNER.certificate_pem, **options) as service:
        assert not await try_it(mesh, worker, service.port, settings("partner.example"))
        assert service.accepted == 0
    record = await worker.record(service="api")
    assert record["reason"] in ("upstream_tls_failed", "upstream_eof", "upstream_reset")
    assert "set CertFile and KeyFile in the link" in record["detail"]


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
async def test_a_missing_client_certificate_is_named_beside_the_servers_alert(
    mesh: HandMadeMesh, worker: WorkerProcess, version: str, tmp_path: Path
) -> None:
    async with openssl_server(tmp_path, version, "-Verify", "1", "-verify_return_error") as port:
        assert not await try_it(mesh, worker, port, settings("partner.example"))
    record = await worker.record(reason="upstream_tls_failed")
    assert "refused the gateway" in record["detail"]
    assert "alert" in record["detail"]
    assert "set CertFile and KeyFile in the link" in record["detail"]


async def test_a_client_certificate_that_is_not_asked_for_is_no_excuse(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async def leave(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        return

    async with ExternalService(leave, tls=SERVER) as service:
        assert not await try_it(mesh, worker, service.port, settings("partner.example"))
    assert "CertFile" not in (await worker.record(service="api")).get("detail", "")


@pytest.mark.parametrize("anchor", ["root", "issuer", "server"])
async def test_any_certificate_in_the_ca_file_is_trusted_as_it_is(
    mesh: HandMadeMesh, worker: WorkerProcess, anchor: str
) -> None:
    issuer = Authority("Issuing CA", parent=PARTNER)
    pair = issuer.server("partner.example")
    own = pair.certificate_pem.partition("-----END CERTIFICATE-----\n")
    pems = {"root": PARTNER.certificate_pem, "issuer": issuer.certificate_pem, "server": own[0] + own[1]}
    tls = UpstreamTLS(ca_pem=pems[anchor], server_name="partner.example")
    async with ExternalService(echo, tls=pair) as service:
        assert await try_it(mesh, worker, service.port, tls)


@asynccontextmanager
async def openssl_server(folder: Path, *options: str) -> AsyncIterator[int]:
    """``openssl s_server``, which sends the alerts that asyncio's server does not."""
    certificate, key = SERVER.write(folder, "server")
    ca_file = PARTNER.write(folder, "ca")
    (port,) = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        *("openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", *options),
        *("-cert", str(certificate), "-key", str(key), "-CAfile", str(ca_file)),
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await eventually(lambda: can_connect("127.0.0.1", port), what="openssl s_server listens")
        yield port
    finally:
        process.kill()
        await process.wait()


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
