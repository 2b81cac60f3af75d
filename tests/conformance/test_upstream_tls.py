"""The second TLS session: the files that a link names, while they change and while they are wrong, and names."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from plugin.dev.external import ExternalService
from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority, KeyPair
from plugin.errors import ConsulRejected
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.support.eventually import eventually

TOPIC = "TLS to the external service"
PARTNER, NEXT, OTHER = Authority("Partner CA"), Authority("Next partner CA"), Authority("Other CA")
NAME = "db.example"
_WITHIN_S = 6.0
"""What is to be picked up without a restart is picked up by then."""

READ_ONCE = {"before": "echo", "new connection": REFUSED, "live connection": "echo"}
READ_AGAIN = {"before": "echo", "new connection": "echo", "live connection": "echo"}


async def becomes(stand: Stand, wanted: str, service: str = "db") -> str:
    """The outcome of a new connection as soon as it is ``wanted``, else what it is after a while."""

    async def is_it() -> bool:
        return await stand.outcome(service=service) == wanted

    with contextlib.suppress(AssertionError):
        await eventually(is_it, _WITHIN_S)
    return await stand.outcome(service=service)


async def told(stand: Stand, service: str, *words: str) -> bool:
    """Whether the operator finds all these words: in the status of the service, or in what Envoy logs."""
    if not isinstance(stand.gateway, Gateway):
        log = stand.agent.work_dir / f"{stand.gateway.proxy_id}.log"
        return all(word in log.read_text() for word in words)
    gateway, name = stand.gateway, stand.named(service)

    async def in_status() -> bool:
        (found,) = [one for one in (await gateway.status())["services"] if one["name"] == name]
        texts = (*found.get("reasons", ()), *found.get("warnings", ()))
        return any(all(word in text for word in words) for text in texts)

    await eventually(in_status, what=f"the status of {name} says {words}")
    return True


async def told_nothing(stand: Stand, service: str) -> None:
    """Wait until no problem of the service is reported any more."""
    if not isinstance(stand.gateway, Gateway):
        return
    gateway, name = stand.gateway, stand.named(service)

    async def quiet() -> bool:
        (found,) = [one for one in (await gateway.status())["services"] if one["name"] == name]
        return not found.get("reasons") and not found.get("warnings")

    await eventually(quiet, what=f"the status of {name} has nothing to say")


async def tls_service(stand: Stand, service: str = "db", *, pair: KeyPair, **options: Any) -> ExternalService:
    """An echo service that speaks TLS, registered and allowed; not linked."""
    backend = await stand.backend(tls=pair, **options)
    await stand.register(service, backend.port)
    await stand.intention("web", service)
    return backend


# --- files that change ---------------------------------------------------------------------------------------


async def _rotated(stand: Stand, ca_file: Path, replace: Callable[[], None]) -> Observation:
    backend = await tls_service(stand, pair=PARTNER.server(NAME))
    await stand.link("db", CAFile=str(ca_file), SNI=NAME)
    await stand.reached()
    before = await stand.outcome()
    async with stand.dial("web", "db") as live:
        await live.exchange(b"before")
        replace()
        await backend.renew(NEXT.server(NAME))
        after = await becomes(stand, "echo")
        still = "echo" if await live.exchange(b"after") == b"after" else "garbled"
    return {"before": before, "new connection": after, "live connection": still}


@conformance(
    TOPIC,
    "A CAFile that is renamed over is used without a restart",
    envoy=READ_ONCE,
    ours=READ_AGAIN,
    decision="015",
)
async def test_ca_file_renamed_over(stand: Stand) -> Observation:
    ca_file = PARTNER.write(stand.folder, "ca")
    fresh = NEXT.write(stand.folder, "fresh")
    return await _rotated(stand, ca_file, lambda: os.replace(fresh, ca_file))


@conformance(
    TOPIC,
    "A CAFile that is written in place is used without a restart",
    envoy=READ_ONCE,
    ours=READ_AGAIN,
    decision="015",
)
async def test_ca_file_written_in_place(stand: Stand) -> Observation:
    ca_file = PARTNER.write(stand.folder, "ca")

    def replace() -> None:
        ca_file.write_text(NEXT.certificate_pem)

    return await _rotated(stand, ca_file, replace)


@conformance(
    TOPIC,
    "A CAFile in a folder that Kubernetes swaps (a mounted secret) is used without a restart",
    envoy=READ_ONCE,
    ours=READ_AGAIN,
    decision="015",
)
async def test_ca_file_in_a_mounted_secret(stand: Stand) -> Observation:
    for version, authority in (("..2026_01", PARTNER), ("..2026_02", NEXT)):
        (stand.folder / version).mkdir()
        authority.write(stand.folder / version, "ca")
    (stand.folder / "..data").symlink_to("..2026_01")
    ca_file = stand.folder / "ca.pem"
    ca_file.symlink_to("..data/ca.pem")

    def replace() -> None:
        (stand.folder / "..data_tmp").symlink_to("..2026_02")
        (stand.folder / "..data_tmp").rename(stand.folder / "..data")

    return await _rotated(stand, ca_file, replace)


def common_name(der: bytes) -> str:
    (attribute,) = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(attribute.value)


@conformance(
    TOPIC,
    "A renewed client certificate is shown once its key is there too",
    envoy={"at first": "first", "only the certificate is new": "first", "told": False, "both are new": "first"},
    ours={"at first": "first", "only the certificate is new": "first", "told": True, "both are new": "second"},
    decision="015",
)
async def test_client_pair_renewed(stand: Stand) -> Observation:
    backend = await tls_service(stand, pair=PARTNER.server(NAME), client_ca_pem=PARTNER.certificate_pem)
    certificate, key = PARTNER.client("first").write(stand.folder, "client")
    renewed = PARTNER.client("second")
    ca_file = str(PARTNER.write(stand.folder, "ca"))
    await stand.link("db", CAFile=ca_file, CertFile=str(certificate), KeyFile=str(key), SNI=NAME)
    await stand.reached()

    async def shown() -> str:
        assert await stand.outcome() == "echo"
        return common_name(backend.client_certificates[-1])

    first = await shown()
    certificate.write_text(renewed.certificate_pem)
    reported = await told(stand, "db", str(key), "is not the key of", "read before stay in use")
    half = await shown()
    key.write_text(renewed.private_key_pem)
    await told_nothing(stand, "db")
    return {
        "at first": first,
        "only the certificate is new": half,
        "told": reported,
        "both are new": await shown(),
    }


@conformance(
    TOPIC,
    "A CAFile that is half written leaves in force what was read before, and is reported",
    envoy={"half written": "echo", "told": False, "whole again": "echo"},
    ours={"half written": "echo", "told": True, "whole again": "echo"},
    decision="015",
)
async def test_half_written(stand: Stand) -> Observation:
    await tls_service(stand, pair=PARTNER.server(NAME))
    ca_file = PARTNER.write(stand.folder, "ca")
    await stand.link("db", CAFile=str(ca_file), SNI=NAME)
    await stand.reached()
    ca_file.write_text(PARTNER.certificate_pem[:300])
    reported = await told(stand, "db", str(ca_file), "END CERTIFICATE")
    half = await stand.outcome()
    ca_file.write_text(PARTNER.certificate_pem)
    await told_nothing(stand, "db")
    return {"half written": half, "told": reported, "whole again": await stand.outcome()}


# --- files that are wrong from the start ---------------------------------------------------------------------


async def _beside_a_bad_one(
    stand: Stand, words: tuple[str, ...], mend: Callable[[], object], **link: str
) -> Observation:
    """A good service, then a bad link, then a deny for the good one, then the bad one is mended."""
    await stand.offer("good")
    await tls_service(stand, "bad", pair=PARTNER.server(NAME), client_ca_pem=PARTNER.certificate_pem)
    await stand.link("bad", SNI=NAME, **link)
    reported = await told(stand, "bad", *words)
    await stand.settled()
    bad = await stand.outcome(service="bad")
    await stand.intention("web", "good", "deny")
    good = await becomes(stand, REFUSED, "good")
    mend()
    return {
        "its connections": bad,
        "told": reported,
        "a deny for another service": "enforced" if good == REFUSED else "not enforced",
        "when it is mended": await becomes(stand, "echo", "bad"),
    }


FROZEN = {
    "its connections": REFUSED,
    "told": False,
    "a deny for another service": "not enforced",
    "when it is mended": REFUSED,
}
ALONE = {
    "its connections": REFUSED,
    "told": True,
    "a deny for another service": "enforced",
    "when it is mended": "echo",
}


@conformance(
    TOPIC,
    "A CAFile that does not exist concerns its own service alone",
    envoy=FROZEN,
    ours=ALONE,
    decision="015",
    own_consul={},
)
async def test_missing_ca_file(stand: Stand) -> Observation:
    certificate, key = PARTNER.client("gateway").write(stand.folder, "client")
    ca_file = stand.folder / "ca.pem"
    return await _beside_a_bad_one(
        stand,
        (str(ca_file), "does not exist", "put the file there"),
        lambda: PARTNER.write(stand.folder, "ca"),
        CAFile=str(ca_file),
        CertFile=str(certificate),
        KeyFile=str(key),
    )


@conformance(
    TOPIC,
    "A KeyFile that is encrypted concerns its own service alone",
    envoy=FROZEN,
    ours=ALONE,
    decision="015",
    own_consul={},
)
async def test_encrypted_key(stand: Stand) -> Observation:
    pair = PARTNER.client("gateway")
    certificate, key = pair.write(stand.folder, "client")
    plain = load_pem_private_key(pair.private_key_pem.encode(), None)
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    return await _beside_a_bad_one(
        stand,
        (str(key), "encrypted with a passphrase", "store the key unencrypted"),
        lambda: key.write_text(pair.private_key_pem),
        CAFile=str(PARTNER.write(stand.folder, "ca")),
        CertFile=str(certificate),
        KeyFile=str(key),
    )


@conformance(
    TOPIC,
    "One certificate of a CAFile that cannot be read does not hide the others",
    envoy={"outcome": REFUSED, "told": False},
    ours={"outcome": "echo", "told": True},
    decision="015",
    own_consul={},
)
async def test_bundle_with_an_unreadable_certificate(stand: Stand) -> Observation:
    await tls_service(stand, pair=PARTNER.server(NAME))
    ca_file = stand.folder / "bundle.pem"
    junk = "-----BEGIN CERTIFICATE-----\nMIIBIjCByqADAgECAhRl\n-----END CERTIFICATE-----\n"
    ca_file.write_text(OTHER.certificate_pem + junk + PARTNER.certificate_pem)
    line = len(OTHER.certificate_pem.splitlines()) + 1
    await stand.link("db", CAFile=str(ca_file), SNI=NAME)
    outcome = await becomes(stand, "echo")
    return {"outcome": outcome, "told": await told(stand, "db", str(ca_file), f"line {line}")}


@conformance(
    TOPIC,
    "A CAFile may be the bundle of the system: many authorities, with text between them",
    expect={"one of them": "echo", "none of them": REFUSED},
)
async def test_large_bundle(stand: Stand) -> Observation:
    ca_file = stand.folder / "bundle.pem"
    many = [Authority(f"Public CA {number}") for number in range(150)]
    ca_file.write_text("".join(f"\n# Label: {one!r}\n{one.certificate_pem}" for one in [*many, PARTNER]))
    for service, authority in (("db", PARTNER), ("other", OTHER)):
        await tls_service(stand, service, pair=authority.server(NAME))
        await stand.link(service, CAFile=str(ca_file), SNI=NAME)
    await stand.reached()
    await stand.settled()
    return {"one of them": await stand.outcome(), "none of them": await stand.outcome(service="other")}


@conformance(
    TOPIC,
    "Consul itself refuses a client certificate without its key or without a CAFile",
    expect={
        "CertFile and CAFile": "rejected",
        "KeyFile and CAFile": "rejected",
        "CertFile and KeyFile": "rejected",
        "SNI": "taken",
    },
)
async def test_incomplete_links(stand: Stand) -> Observation:
    answers = {}
    for fields in (("CertFile", "CAFile"), ("KeyFile", "CAFile"), ("CertFile", "KeyFile"), ("SNI",)):
        answer = "taken"
        try:
            await stand.link("db", **dict.fromkeys(fields, "/nowhere"))
        except ConsulRejected as rejected:
            answer = "rejected" if "CertFile, CAFile, and KeyFile" in str(rejected) else str(rejected)
        answers[" and ".join(fields)] = answer
        await stand.unlink("db")
    return answers


# --- versions, names and client certificates -----------------------------------------------------------------


@conformance(
    TOPIC,
    "Servers that speak one TLS version only are reached",
    envoy={"TLSv1_2": "echo", "TLSv1_3": REFUSED},
    ours={"TLSv1_2": "echo", "TLSv1_3": "echo"},
    decision="015",
)
async def test_versions(stand: Stand) -> Observation:
    ca_file = str(PARTNER.write(stand.folder, "ca"))
    versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    for version in versions:
        options = {"min_tls_version": version, "max_tls_version": version}
        await tls_service(stand, version.name, pair=PARTNER.server(NAME), **options)
        await stand.link(version.name, CAFile=ca_file, SNI=NAME)
    return {version.name: await becomes(stand, "echo", version.name) for version in versions}


SANS = (NAME, "*.wild.example", "w*.partial.example", "127.0.0.1", "spiffe://partner/db")


async def _outcomes(stand: Stand, pair: KeyPair, names: dict[str, str]) -> dict[str, str]:
    """Of a new connection to a server with ``pair``, for each SNI of a link."""
    ca_file = str(PARTNER.write(stand.folder, "ca"))
    for number, name in enumerate(names.values()):
        await tls_service(stand, f"n{number}", pair=pair)
        await stand.link(f"n{number}", CAFile=ca_file, **({"SNI": name} if name else {}))
    await stand.settled()
    return {what: await stand.outcome(service=f"n{number}") for number, what in enumerate(names)}


@conformance(
    TOPIC,
    "The SNI of a link must be one of the certificate's SANs",
    expect={
        "DNS name": "echo",
        "DNS name in capitals": "echo",
        "under a wildcard": "echo",
        "two labels under a wildcard": REFUSED,
        "the wildcard's parent": REFUSED,
        "address": "echo",
        "another address": REFUSED,
        "URI": "echo",
        "another name": REFUSED,
    },
)
async def test_names(stand: Stand) -> Observation:
    return await _outcomes(
        stand,
        PARTNER.server(*SANS),
        {
            "DNS name": NAME,
            "DNS name in capitals": NAME.upper(),
            "under a wildcard": "a.wild.example",
            "two labels under a wildcard": "a.b.wild.example",
            "the wildcard's parent": "wild.example",
            "address": "127.0.0.1",
            "another address": "127.0.0.2",
            "URI": "spiffe://partner/db",
            "another name": "other.example",
        },
    )


@conformance(
    TOPIC,
    "A wildcard is a whole label or none",
    envoy={"w*.partial.example": "echo"},
    ours={"w*.partial.example": REFUSED},
    decision="015",
)
async def test_partial_wildcard(stand: Stand) -> Observation:
    return await _outcomes(stand, PARTNER.server(*SANS), {"w*.partial.example": "web.partial.example"})


@conformance(
    TOPIC,
    "A CAFile need not hold the root: any certificate in it is trusted as it is",
    expect={"the root": "echo", "the issuing authority": "echo", "the server's own certificate": "echo"},
)
async def test_anchors(stand: Stand) -> Observation:
    issuing = Authority("Issuing CA", parent=PARTNER)
    pair = issuing.server(NAME)
    own = next(iter(x509.load_pem_x509_certificates(pair.certificate_pem.encode())))
    files = {
        "the root": PARTNER.certificate_pem,
        "the issuing authority": issuing.certificate_pem,
        "the server's own certificate": own.public_bytes(Encoding.PEM).decode(),
    }
    for number, pem in enumerate(files.values()):
        ca_file = stand.folder / f"anchor-{number}.pem"
        ca_file.write_text(pem)
        await tls_service(stand, f"n{number}", pair=pair)
        await stand.link(f"n{number}", CAFile=str(ca_file), SNI=NAME)
    await stand.settled()
    return {what: await stand.outcome(service=f"n{number}") for number, what in enumerate(files)}


@conformance(
    TOPIC,
    "A common name is no name; without an SNI the chain alone is verified",
    expect={"common name": REFUSED, "without SNI": "echo"},
)
async def test_common_name(stand: Stand) -> Observation:
    return await _outcomes(stand, PARTNER.server(), {"common name": "server", "without SNI": ""})


@conformance(
    TOPIC,
    "Without an SNI a server of another authority is refused all the same",
    expect={"outcome": REFUSED},
)
async def test_chain_without_sni(stand: Stand) -> Observation:
    return {"outcome": (await _outcomes(stand, OTHER.server(NAME), {"x": ""}))["x"]}


@conformance(
    TOPIC,
    "Only a DNS name is sent as SNI",
    envoy={
        NAME: NAME,
        "127.0.0.1": "127.0.0.1",
        "spiffe://partner/db": "spiffe://partner/db",
        "no SNI in the link": "nothing",
    },
    ours={NAME: NAME, "127.0.0.1": "nothing", "spiffe://partner/db": "nothing", "no SNI in the link": "nothing"},
    decision="015",
)
async def test_sni_sent(stand: Stand) -> Observation:
    ca_file = str(PARTNER.write(stand.folder, "ca"))
    sent: dict[str, object] = {}
    for number, name in enumerate((NAME, "127.0.0.1", "spiffe://partner/db", "")):
        backend = await tls_service(stand, f"n{number}", pair=PARTNER.server(*SANS))
        await stand.link(f"n{number}", CAFile=ca_file, **({"SNI": name} if name else {}))
        await stand.reached(service=f"n{number}")
        sent[name or "no SNI in the link"] = backend.server_names[-1] or "nothing"
    return sent


@conformance(
    TOPIC,
    "A server that wants a client certificate refuses a gateway that has none",
    envoy={"outcome": REFUSED, "why is in the log": False},
    ours={"outcome": REFUSED, "why is in the log": True},
    decision="015",
)
async def test_client_certificate_wanted(stand: Stand) -> Observation:
    await tls_service(stand, pair=PARTNER.server(NAME), client_ca_pem=PARTNER.certificate_pem)
    await stand.link("db", CAFile=str(PARTNER.write(stand.folder, "ca")), SNI=NAME)
    await stand.settled()
    outcome = await stand.outcome()
    return {"outcome": outcome, "why is in the log": await logged(stand, "db", "CertFile and KeyFile")}


@conformance(
    TOPIC,
    "A certificate with other names is refused, and its names are in the log",
    envoy={"outcome": REFUSED, "names are in the log": False},
    ours={"outcome": REFUSED, "names are in the log": True},
    decision="015",
)
async def test_other_names_are_logged(stand: Stand) -> Observation:
    await tls_service(stand, pair=PARTNER.server("one.example", "two.example"))
    await stand.link("db", CAFile=str(PARTNER.write(stand.folder, "ca")), SNI=NAME)
    await stand.settled()
    outcome = await stand.outcome()
    return {"outcome": outcome, "names are in the log": await logged(stand, "db", "one.example, two.example")}


async def logged(stand: Stand, service: str, words: str) -> bool:
    """Whether a line about a connection says so."""
    if not isinstance(stand.gateway, Gateway):
        return words in (stand.agent.work_dir / f"{stand.gateway.proxy_id}.log").read_text()
    gateway, name = stand.gateway, stand.named(service)

    def found() -> bool:
        return any(words in one["detail"] for one in gateway.access_records() if one.get("service") == name)

    await eventually(found, what=f"a line of {name} says {words}")
    return True
