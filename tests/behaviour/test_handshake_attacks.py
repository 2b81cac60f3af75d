"""Handshakes of TLS 1.3 that no library would begin: nobody gets in by one, and each is counted by its reason."""

from __future__ import annotations

import asyncio
import struct
import zlib
from collections import Counter
from collections.abc import Callable

import pytest

from plugin.dev.pki import Authority, KeyPair
from proxy.rules import Action
from tests.support import crafted
from tests.support.crafted import Issuer, Key, Wanted
from tests.support.eventually import eventually
from tests.support.handmade13 import (
    CERTIFICATE,
    CERTIFICATE_REQUEST,
    CERTIFICATE_VERIFY,
    COMPRESS_CERTIFICATE,
    COMPRESSED_CERTIFICATE,
    ENCRYPTED_EXTENSIONS,
    FINISHED,
    POST_HANDSHAKE_AUTH,
    SERVER_NAME,
    Extension,
    HandmadeClient,
    Refused,
    alpn,
    der_of,
    server_name,
    vector,
)
from tests.support.mesh import TRUST_DOMAIN, EchoServer, HandMadeMesh, sni
from tests.support.worker import WorkerProcess

DB = sni("db").encode()
WEB = f"spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
ZLIB = 1
_COMPRESSION = (COMPRESS_CERTIFICATE, vector(struct.pack(">H", ZLIB), 1))


class Caller:
    """An allowed service of the mesh, and what it shows."""

    def __init__(self, pair: KeyPair) -> None:
        self.chain = der_of(pair.certificate_pem)
        self.key: Key = crafted.private_key(pair)

    def prove(self, client: HandmadeClient) -> None:
        """The rest of an honest handshake."""
        client.certificate(*self.chain)
        client.verify(self.key)
        client.finished()


Attack = Callable[[HandmadeClient, Caller], None]
"""Does everything up to the first data. :raises Refused: when it did not get so far."""


async def tried(worker: WorkerProcess, caller: Caller, attack: Attack) -> bytes | int:
    """What comes back of the data that is sent at last, or the alert."""

    def within() -> bytes | int:
        client = HandmadeClient(worker.port)
        try:
            attack(client, caller)
            return client.exchange(b"let me in")
        except Refused as refused:
            return refused.alert
        finally:
            client.close()

    return await asyncio.to_thread(within)


async def test_an_honest_handshake_made_by_hand_gets_in(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    """Or the attacks below would prove nothing."""
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))

        def honest(client: HandmadeClient, caller: Caller) -> None:
            client.hello(server_name(DB))
            caller.prove(client)

        assert await tried(worker, Caller(mesh.leaf("web")), honest) == b"let me in"


# --- the proof ---------------------------------------------------------------------------------------------------


def proof(attack: Attack) -> Attack:
    """After an honest ClientHello."""

    def whole(client: HandmadeClient, caller: Caller) -> None:
        client.hello(server_name(DB))
        attack(client, caller)

    whole.__name__ = attack.__name__
    return whole


def somebody_elses_key(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.verify(crafted.key_of())
    client.finished()


def no_proof_at_all(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.finished()


def a_proof_as_a_server(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.verify(caller.key, role=b"server")
    client.finished()


def a_proof_of_another_session(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.verify(caller.key, transcript=b"what was said elsewhere")
    client.finished()


def a_proof_with_a_weak_hash(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.say(CERTIFICATE_VERIFY, struct.pack(">H", 0x0203) + vector(b"\x30\x06\x02\x01\x01\x02\x01\x01"))
    client.finished()


def an_empty_signature(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.say(CERTIFICATE_VERIFY, struct.pack(">H", 0x0403) + vector(b""))
    client.finished()


def a_signature_of_zeros(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.say(CERTIFICATE_VERIFY, struct.pack(">H", 0x0403) + vector(b"\x30\x06\x02\x01\x00\x02\x01\x00"))
    client.finished()


def the_wrong_end(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.verify(caller.key)
    client.finished(wrong=True)


def the_end_first(client: HandmadeClient, _caller: Caller) -> None:
    client.finished()


def data_before_the_end(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain)
    client.verify(caller.key)
    client.exchange(b"early")


def the_certificate_of_another_between(client: HandmadeClient, caller: Caller) -> None:
    """First one with its proof, then a second one."""
    client.certificate(*caller.chain)
    client.verify(caller.key)
    client.certificate(*caller.chain)
    client.finished()


def a_certificate_for_another_question(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain, context=b"\x01")
    client.verify(caller.key)
    client.finished()


def no_certificate(client: HandmadeClient, _caller: Caller) -> None:
    client.certificate()
    client.finished()


def no_certificate_but_a_proof(client: HandmadeClient, caller: Caller) -> None:
    client.certificate()
    client.verify(caller.key)
    client.finished()


def bytes_behind_the_certificate(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(caller.chain[0] + b"\0", *caller.chain[1:])
    client.verify(caller.key)
    client.finished()


def a_compressed_certificate(client: HandmadeClient, caller: Caller) -> None:
    """RFC 8879, although nobody asked for it."""
    entries = b"".join(vector(one, 3) + vector(b"") for one in caller.chain)
    plain = vector(b"", 1) + vector(entries, 3)
    body = struct.pack(">H", ZLIB) + len(plain).to_bytes(3, "big") + vector(zlib.compress(plain), 3)
    client.say(COMPRESSED_CERTIFICATE, body)
    client.verify(caller.key)
    client.finished()


def a_compressed_certificate_that_swells(client: HandmadeClient, caller: Caller) -> None:
    size = 0xFFFFFF
    body = struct.pack(">H", ZLIB) + size.to_bytes(3, "big") + vector(zlib.compress(bytes(size)), 3)
    client.say(COMPRESSED_CERTIFICATE, body)
    client.finished()


def a_certificate_of_sixteen_megabytes(client: HandmadeClient, _caller: Caller) -> None:
    client.say(CERTIFICATE, vector(b"", 1) + vector(bytes(0xFFFFFF - 8), 3))


def ten_thousand_certificates(client: HandmadeClient, caller: Caller) -> None:
    client.certificate(*caller.chain * 10_000)
    client.verify(caller.key)
    client.finished()


def _offering(*extensions: Extension) -> Attack:
    def attack(client: HandmadeClient, _caller: Caller) -> None:
        client.hello(server_name(DB), *extensions)
        client.certificate()
        client.finished()

    return attack


PROOFS: dict[Attack, str] = {
    proof(somebody_elses_key): "tls_failed",
    proof(no_proof_at_all): "tls_failed",
    proof(a_proof_as_a_server): "tls_failed",
    proof(a_proof_of_another_session): "tls_failed",
    proof(a_proof_with_a_weak_hash): "tls_failed",
    proof(an_empty_signature): "tls_failed",
    proof(a_signature_of_zeros): "tls_failed",
    proof(the_wrong_end): "tls_failed",
    proof(the_end_first): "tls_failed",
    proof(data_before_the_end): "tls_failed",
    proof(the_certificate_of_another_between): "tls_failed",
    proof(a_certificate_for_another_question): "tls_failed",
    proof(no_certificate): "no_certificate",
    proof(no_certificate_but_a_proof): "no_certificate",
    proof(bytes_behind_the_certificate): "tls_failed",
    proof(a_compressed_certificate): "tls_failed",
    proof(a_compressed_certificate_that_swells): "tls_failed",
    proof(a_certificate_of_sixteen_megabytes): "tls_failed",
    proof(ten_thousand_certificates): "tls_failed",
}


async def refused(worker: WorkerProcess, caller: Caller, attacks: dict[Attack, str]) -> Counter[str]:
    """Each is refused for its reason; the reasons so far."""
    wrong = {}
    for attack, reason in attacks.items():
        worker.records.clear()
        answer = await tried(worker, caller, attack)
        record = await eventually(lambda: next(iter(worker.records), None), what=attack.__name__)
        if isinstance(answer, bytes) or record["reason"] != reason or record["verdict"] != "refused":
            wrong[attack.__name__] = (answer, record["reason"], record["verdict"], record.get("detail"))
    assert wrong == {}
    return Counter(attacks.values())


async def test_nobody_gets_in_without_the_proof(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        expected = await refused(worker, Caller(mesh.leaf("web")), PROOFS)
        assert echo.connections == 0
        await eventually(lambda: counted(worker) == expected, what=f"{expected} is counted")


def counted(worker: WorkerProcess) -> Counter[str]:
    found: Counter[str] = Counter()
    for count in worker.counters.counts if worker.counters else ():
        if count.reason:
            found[count.reason] += count.connections
    return found


# --- the server name ---------------------------------------------------------------------------------------------


def naming(name: str, *extensions: Extension) -> Attack:
    """An honest caller that asks so."""

    def attack(client: HandmadeClient, caller: Caller) -> None:
        client.hello(*extensions)
        caller.prove(client)

    attack.__name__ = name
    return attack


OTHER = sni("api").encode()
NAMES: dict[Attack, str] = {
    naming("none"): "no_server_name",
    naming("an empty extension", (SERVER_NAME, b"")): "tls_failed",
    naming("an empty list", (SERVER_NAME, vector(b""))): "tls_failed",
    naming("an empty name", server_name(b"")): "no_server_name",
    naming("two names", server_name(DB, OTHER)): "tls_failed",
    naming("the same name twice", server_name(DB, DB)): "tls_failed",
    naming("two extensions", server_name(DB), server_name(OTHER)): "tls_failed",
    naming("a name of another kind", server_name(DB, kind=1)): "tls_failed",
    naming("a length beyond the end", (SERVER_NAME, b"\xff\xff" + server_name(DB)[1][2:])): "tls_failed",
    naming("bytes behind the list", (SERVER_NAME, server_name(DB)[1] + b"\0")): "tls_failed",
    naming("a NUL inside", server_name(DB[:4] + b"\0" + DB[4:])): "tls_failed",
    naming("a NUL at the end", server_name(DB + b"\0")): "tls_failed",
    naming("a dot at the end", server_name(DB + b".")): "unknown_server_name",
    naming("two dots at the end", server_name(DB + b"..")): "unknown_server_name",
    naming("a dot in front", server_name(b"." + DB)): "unknown_server_name",
    naming("letters of Unicode", server_name("ďb".encode() + DB[2:])): "unknown_server_name",
    naming("letters that fold to ASCII", server_name(DB.replace(b"s", "ſ".encode()))): "unknown_server_name",
    naming("the dotless i", server_name(DB.replace(b"i", "ı".encode()))): "unknown_server_name",
    naming("an IPv4 address", server_name(b"127.0.0.1")): "unknown_server_name",
    naming("an IPv6 address", server_name(b"[::1]")): "unknown_server_name",
    naming("256 bytes", server_name(b"a" * 256)): "tls_failed",
    naming("60,000 bytes", server_name(DB + b"." * 60_000)): "tls_failed",
    naming("a pattern", server_name(b"*" + DB[2:])): "unknown_server_name",
    naming("a new line", server_name(DB + b"\n")): "unknown_server_name",
}


async def test_nobody_gets_in_by_a_server_name_that_is_none(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        services = (mesh.service("db", echo.port), mesh.service("api", echo.port))
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=services)
        await refused(worker, Caller(mesh.leaf("web")), NAMES)
        assert echo.connections == 0


# --- what is offered beside it -------------------------------------------------------------------------------------


OFFERS: dict[str, tuple[Extension, ...]] = {
    "to prove later who it is": ((POST_HANDSHAKE_AUTH, b""),),
    "compressed certificates": (_COMPRESSION,),
    "protocols that nobody knows": (alpn(b"consul", b"\xff" * 255, b"h2c"),),
    "four thousand protocols": (alpn(*[b"x%d" % number for number in range(4_000)]),),
    "the same protocol again and again": (alpn(*[b"imap"] * 500),),
    "an extension that nobody knows": ((0xFAFA, bytes(8_000)),),
}


async def test_what_is_offered_beside_it_opens_nothing(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        caller = Caller(mesh.leaf("web"))
        for number, (offer, extensions) in enumerate(OFFERS.items()):
            heard: dict[int, bytes] = {}
            certificate_required = 116
            assert await tried(worker, caller, _offering(*extensions)) == certificate_required, offer
            assert echo.connections == number, offer
            assert await tried(worker, caller, _heard(heard, extensions)) == b"let me in", offer
            assert len(heard[ENCRYPTED_EXTENSIONS]) <= 6, f"{offer}: more than the server name is answered"
            assert struct.pack(">H", COMPRESS_CERTIFICATE) not in heard[CERTIFICATE_REQUEST][-60:], offer
        await eventually(lambda: counted(worker)["no_certificate"] == len(OFFERS), what="all are counted")


def _heard(heard: dict[int, bytes], extensions: tuple[Extension, ...]) -> Attack:
    """An honest caller that notes what the gateway says."""

    def honest(client: HandmadeClient, caller: Caller) -> None:
        client.hello(server_name(DB), *extensions)
        heard.update(client.heard)
        caller.prove(client)

    return honest


MALFORMED_PROTOCOLS: dict[Attack, str] = {
    naming("an empty extension of protocols", server_name(DB), (16, b"")): "tls_failed",
    naming("no protocol", server_name(DB), alpn()): "tls_failed",
    naming("an empty protocol", server_name(DB), alpn(b"h2", b"")): "tls_failed",
    naming("a protocol that is cut off", server_name(DB), (16, vector(b"\x05h2"))): "tls_failed",
    naming("bytes behind the protocols", server_name(DB), (16, vector(b"\x02h2") + b"\0")): "tls_failed",
}


async def test_protocols_that_cannot_be_read_are_refused(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        await refused(worker, Caller(mesh.leaf("web")), MALFORMED_PROTOCOLS)
        assert echo.connections == 0


async def test_who_a_client_is_cannot_be_changed_afterwards(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    """RFC 8446 section 4.6.2: only an answer to a question, and none is asked."""
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        caller, other = Caller(mesh.leaf("web")), Caller(mesh.leaf("other"))
        for kind in (CERTIFICATE, CERTIFICATE_VERIFY, FINISHED, CERTIFICATE_REQUEST):
            for offered in ((), ((POST_HANDSHAKE_AUTH, b""),)):
                worker.records.clear()
                answer = await tried(worker, caller, _again_as(other, kind, offered))
                assert isinstance(answer, int), f"message {kind} was taken"
                record = await worker.record(verdict="allowed")
                assert (record["reason"], record["source"]) == ("tls_failed", WEB), record


def _again_as(other: Caller, kind: int, offered: tuple[Extension, ...]) -> Attack:
    def attack(client: HandmadeClient, caller: Caller) -> None:
        client.hello(server_name(DB), *offered)
        caller.prove(client)
        assert client.exchange(b"first") == b"first"
        entries = b"".join(vector(one, 3) + vector(b"") for one in other.chain)
        client.say(kind, vector(b"", 1) + vector(entries, 3) if kind == CERTIFICATE else bytes(40))

    return attack


# --- chains --------------------------------------------------------------------------------------------------------


async def test_chains_that_bite_their_tail_or_do_not_end(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    root = Issuer.of(mesh.authority)
    honest = Wanted(uris=(WEB,))
    stranger = Issuer.of(Authority("Other", trust_domain=TRUST_DOMAIN))
    one, other = (crafted.intermediate(stranger, name) for name in ("one", "other"))
    loop = [crafted.between(one, other), crafted.between(other, one)]
    long = stranger
    for number in range(100):
        long = crafted.intermediate(long, f"authority {number}")
    key = crafted.key_of()
    pairs = {
        "two that vouch for each other": crafted.leaf(
            Issuer(key=one.key, name=one.name, chain_pem="".join(loop)), honest
        ),
        "a hundred that lead nowhere": crafted.leaf(long, honest),
        "the root behind a foreign leaf": crafted.leaf(
            Issuer(key=stranger.key, name=stranger.name, chain_pem=mesh.authority.certificate_pem), honest
        ),
        "an honest leaf behind a foreign one": crafted.leaf(
            Issuer(key=stranger.key, name=stranger.name, chain_pem=mesh.leaf("web").certificate_pem), honest
        ),
        "its own key under the name of the root": crafted.leaf(Issuer(key=key, name=root.name), honest),
    }
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        for name, pair in pairs.items():
            attack = naming(name, server_name(DB))
            await refused(worker, Caller(pair), {attack: "untrusted_certificate"})
        assert echo.connections == 0


# --- roots ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", [False, True], ids=["before its certificate", "before its last word"])
async def test_a_root_that_goes_while_a_client_hesitates(
    mesh: HandMadeMesh, worker: WorkerProcess, shown: bool
) -> None:
    """A handshake that was begun under a root does not outlive it."""
    async with EchoServer() as echo:
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))
        caller = Caller(mesh.leaf("web"))
        client = await asyncio.to_thread(HandmadeClient, worker.port)
        await asyncio.to_thread(client.hello, server_name(DB))
        if shown:
            client.certificate(*caller.chain)
            client.verify(caller.key)
            # Whoever came after it is served: the worker has looked at the certificate.
            assert await tried(worker, caller, naming("another", server_name(DB))) == b"let me in"
        mesh.authority = Authority("Next CA", trust_domain=TRUST_DOMAIN)
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(mesh.service("db", echo.port),))

        def rest() -> bytes | int:
            try:
                if not shown:
                    client.certificate(*caller.chain)
                    client.verify(caller.key)
                client.finished()
                return client.exchange(b"let me in")
            except Refused as refused:
                return refused.alert
            finally:
                client.close()

        assert isinstance(await asyncio.to_thread(rest), int)
        await worker.record(reason="untrusted_certificate", verdict="refused")
        assert echo.connections == int(shown)


async def test_a_leaf_that_cannot_be_used_keeps_no_root_alive(mesh: HandMadeMesh, worker: WorkerProcess) -> None:
    """The last good leaf is shown on; the root that was taken back meanwhile is not trusted for that."""
    async with EchoServer() as echo:
        service = mesh.service("db", echo.port)
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(service,))
        former = Caller(mesh.leaf("web"))
        assert await tried(worker, former, naming("before", server_name(DB))) == b"let me in"
        await worker.record(verdict="allowed")
        mesh.authority = Authority("Next CA", trust_domain=TRUST_DOMAIN)
        broken = mesh.service("db", echo.port, leaf=KeyPair("no certificate", "no key"))
        applied = await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=(broken,))
        assert applied.problems
        worker.records.clear()
        await refused(worker, former, {naming("after", server_name(DB)): "untrusted_certificate"})
        assert await tried(worker, Caller(mesh.leaf("web")), naming("next", server_name(DB))) == b"let me in"
