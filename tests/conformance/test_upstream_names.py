"""The second TLS session: versions, names, anchors, and what is said of a refusal."""

from __future__ import annotations

import ssl

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
)

from plugin.dev.gateway import Gateway
from plugin.dev.pki import Authority, KeyPair
from plugin.errors import ConsulRejected
from tests.conformance.case import Observation, conformance
from tests.conformance.stand import REFUSED, Stand
from tests.conformance.upstream import (
    NAME,
    OTHER,
    PARTNER,
    TOPIC,
    becomes,
    tls_service,
)
from tests.support.eventually import eventually


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
