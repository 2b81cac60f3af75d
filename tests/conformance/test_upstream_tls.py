"""The second TLS session: the files that a link names, while they change and while they are wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from plugin.dev.pki import Authority
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.conformance.upstream import (
    NAME,
    NEXT,
    OTHER,
    PARTNER,
    READ_AGAIN,
    READ_ONCE,
    TOPIC,
    becomes,
    tls_service,
    told,
    told_nothing,
)


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
