"""Nobody gets in with a certificate that is not exactly a service's; each attempt is counted by its reason."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from plugin.dev.pki import Authority, KeyPair
from proxy.model import PeerBundle
from proxy.rules import Action
from tests.support import attacks, crafted
from tests.support.attacks import Attack
from tests.support.crafted import Issuer, Wanted
from tests.support.eventually import eventually
from tests.support.mesh import TRUST_DOMAIN, EchoServer, HandMadeMesh, alert_of, connected, sni
from tests.support.worker import WorkerProcess

WEB = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"


def context_of(mesh: HandMadeMesh, pair: KeyPair | None, **options: ssl.TLSVersion) -> ssl.SSLContext:
    """Shows even what OpenSSL would rather not."""
    context = mesh.client_context(None)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    for name, version in options.items():
        setattr(context, f"{name}_version", version)
    if pair is not None:
        _load(context, pair)
    return context


def _load(context: ssl.SSLContext, pair: KeyPair) -> None:
    with tempfile.TemporaryDirectory() as folder:
        context.load_cert_chain(*pair.write(Path(folder), "client"))


async def repelled(mesh: HandMadeMesh, worker: WorkerProcess, echo: EchoServer, tried: Iterable[Attack]) -> None:
    """Everything is tried with both versions of TLS, refused by an alert and counted; then an honest client comes."""
    await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
    expected: Counter[str] = Counter()
    for name, pair, reason in tried:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            worker.records.clear()
            alert = await alert_of(worker.port, context_of(mesh, pair, maximum=version), sni("db"))
            assert alert, f"{name}: no alert"
            record = await eventually(lambda: next(iter(worker.records), None), what=name)
            assert (record["reason"], record["verdict"]) == (str(reason), "refused"), f"{name}: {record}"
            expected[str(reason)] += 1
    assert echo.connections == 0
    async with connected(worker.port, mesh.client_context(mesh.leaf("web")), sni("db")) as client:
        assert await client.exchange(b"still serving") == b"still serving"
    await eventually(lambda: counted(worker) == expected, what=f"{expected} is counted")


def counted(worker: WorkerProcess) -> Counter[str]:
    found: Counter[str] = Counter()
    for count in worker.counters.counts if worker.counters else ():
        if count.reason and count.reason != "client_eof":
            found[count.reason] += count.connections
    return found


async def test_names_that_are_not_one_service(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await repelled(mesh, worker, echo, attacks.names(Issuer.of(mesh.authority), TRUST_DOMAIN))


async def test_chains_that_lead_nowhere(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await repelled(mesh, worker, echo, attacks.chains(Issuer.of(mesh.authority), TRUST_DOMAIN))


async def test_weak_signatures(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "RSA root")])
    issuer = Issuer(key=crafted.key_of(2_048), name=name)
    root = crafted.issue(issuer, Wanted(subject=name, ca=True, signs=True, usages=()), issuer.key)
    mesh.also_trusted = crafted.pair(root.public_bytes(crafted.DER), issuer.key).certificate_pem
    async with EchoServer() as echo:
        await repelled(mesh, worker, echo, attacks.signatures(issuer, TRUST_DOMAIN))


async def test_the_authority_of_a_peer_does_not_vouch_for_callers_of_this_cluster(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    peer = Authority("Peer CA", trust_domain="peer.consul")
    bundle = PeerBundle("there", "peer.consul", (peer.certificate_pem,))
    async with EchoServer() as echo:
        settings = mesh.settings(Action.ALLOW, peer_bundles=(bundle,))
        await worker.update(mesh=settings, upserts=(mesh.service("db", echo.port),))
        for trust_domain in (TRUST_DOMAIN, "peer.consul"):
            context = mesh.client_context(peer.leaf(trust_domain, "web"))
            assert "UNKNOWN_CA" in await alert_of(worker.port, context, sni("db"))
        assert echo.connections == 0


async def test_a_root_that_was_removed_refuses_from_the_next_handshake_on(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        old = mesh.client_context(mesh.leaf("web"))
        async with connected(worker.port, old, sni("db")) as live:
            await live.exchange(b"before")
            mesh.authority = Authority("Next CA", trust_domain=TRUST_DOMAIN)
            await worker.update(mesh=mesh.settings(Action.ALLOW))
            assert "UNKNOWN_CA" in await alert_of(worker.port, old, sni("db"))
            assert await live.exchange(b"after") == b"after"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_of_tls_are_refused(
    mesh: HandMadeMesh, worker: WorkerProcess, version: ssl.TLSVersion
) -> None:
    await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db"),))
    context = context_of(mesh, mesh.leaf("web"), minimum=version, maximum=version)
    assert "PROTOCOL_VERSION" in await alert_of(worker.port, context, sni("db"))
    await worker.record(reason="tls_failed")


class Attacker:
    """A client whose TLS bytes pass through the test."""

    def __init__(self, context: SSL.Context, server_name: bytes) -> None:
        self.tls = SSL.Connection(context, None)
        self.tls.set_tlsext_host_name(server_name)
        self.tls.set_connect_state()

    async def open(self, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)

    async def handshake(self, forge: bool = False) -> str:
        """Go on until it is done (empty), or refused: the alert. ``forge`` breaks the proof of the key."""
        while True:
            try:
                self.tls.do_handshake()
                await self.flush(forge)
                return ""
            except SSL.WantReadError:
                await self.flush(forge)
                if not await self._hear():
                    return "closed"
            except SSL.Error as error:
                return str(error)

    async def exchange(self, data: bytes) -> bytes:
        self.tls.send(data)
        await self.flush()
        while True:
            try:
                return self.tls.recv(65_536)
            except SSL.WantReadError:
                assert await self._hear(), "the gateway closed"

    async def _hear(self) -> bool:
        data = await asyncio.wait_for(self.reader.read(65_536), 20)
        if data:
            self.tls.bio_write(data)
        return bool(data)

    async def flush(self, forge: bool = False) -> None:
        try:
            data = self.tls.bio_read(1 << 20)
        except SSL.WantReadError:
            return
        self.writer.write(_forged(data) if forge else data)


def _forged(records: bytes) -> bytes:
    """TLS 1.2 before its encryption: flip a bit of the signature in CertificateVerify (RFC 5246, section 7.4.8)."""
    at, out = 0, bytearray(records)
    while at + 5 <= len(out):
        length = int.from_bytes(out[at + 3 : at + 5], "big")
        if out[at] == 22 and out[at + 5] == 15:
            out[at + 5 + length - 1] ^= 1
        at += 5 + length
    return bytes(out)


def attacker(pair: KeyPair | None, server_name: bytes, maximum: int = SSL.TLS1_3_VERSION) -> Attacker:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(maximum)
    if pair is not None:
        context.use_certificate(x509.load_pem_x509_certificate(pair.certificate_pem.encode()))
        context.use_privatekey(crafted.private_key(pair))
    return Attacker(context, server_name)


async def test_a_replayed_certificate_without_its_key_is_refused(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        client = attacker(mesh.leaf("web"), sni("db").encode(), SSL.TLS1_2_VERSION)
        await client.open(worker.port)
        assert "alert" in await client.handshake(forge=True)
        await worker.record(reason="tls_failed")
        assert echo.connections == 0


async def test_renegotiation_is_refused(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        client = attacker(mesh.leaf("web"), sni("db").encode(), SSL.TLS1_2_VERSION)
        await client.open(worker.port)
        assert await client.handshake() == ""
        assert await client.exchange(b"once") == b"once"
        before = client.tls.total_renegotiations()
        client.tls.renegotiate()
        assert "no renegotiation" in await client.handshake()
        assert client.tls.total_renegotiations() <= before + 1


async def test_a_session_of_somebody_else_does_not_stand_for_a_certificate(
    mesh: HandMadeMesh, worker: WorkerProcess
) -> None:
    async with EchoServer() as echo:
        leaf = mesh.leaf("other")
        foreign = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load(foreign, leaf)
        server = await asyncio.start_server(lambda r, w: w.write(b"x"), "127.0.0.1", 0, ssl=foreign)
        client = attacker(None, sni("db").encode(), SSL.TLS1_2_VERSION)
        await client.open(server.sockets[0].getsockname()[1])
        assert await client.handshake() == ""
        session = client.tls.get_session()
        assert session is not None
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        second = Attacker(client.tls.get_context(), sni("db").encode())
        second.tls.set_session(session)
        await second.open(worker.port)
        assert "alert" in await second.handshake()
        await worker.record(reason="no_certificate")
        client.writer.close()
        server.close()
        assert echo.connections == 0


NAMES = {
    "another label in front": b"x." + sni("db").encode(),
    "a dot at the end": sni("db").encode() + b".",
    "punycode": b"xn--db-." + sni("db").encode(),
    "bytes that are no text": b"\xff" + sni("db").encode(),
    "an IP address": b"127.0.0.1",
    "the longest": b"a" * 255,
    "two names": sni("db").encode() + b"," + sni("api").encode(),
    "white space": b" " + sni("db").encode(),
}


async def test_a_server_name_is_compared_whole(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        for name, server_name in NAMES.items():
            worker.records.clear()
            client = attacker(mesh.leaf("web"), server_name)
            await client.open(worker.port)
            assert "unrecognized name" in await client.handshake(), name
            await worker.record(reason="unknown_server_name")
        assert echo.connections == 0
        upper = attacker(mesh.leaf("web"), sni("db").upper().encode())
        await upper.open(worker.port)
        assert await upper.handshake() == ""
        assert await upper.exchange(b"letter case is none") == b"letter case is none"
