"""Certificates that must not let a client in, each with the close reason that counts it.

``issuer`` is an authority that the gateway trusts. The client says that it is ``service``, which is allowed; its name
begins with ``web``.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from plugin.dev.pki import Authority, KeyPair
from proxy.model import CloseReason
from tests.support import crafted
from tests.support.crafted import Issuer, Wanted, intermediate, key_of, leaf

BAD, UNTRUSTED = CloseReason.BAD_IDENTITY, CloseReason.UNTRUSTED_CERTIFICATE
_YEAR, _DAY = datetime.timedelta(days=365), datetime.timedelta(days=1)
Attack = tuple[str, KeyPair, CloseReason]


def names(issuer: Issuer, trust_domain: str, service: str = "web") -> Iterator[Attack]:
    """Genuine certificates of the mesh that do not name one service of it."""
    web = f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/{service}"
    uris: dict[str, tuple[str, ...]] = {
        "two URIs": (web, web.replace("web", "api")),
        "the same URI twice": (web, web),
        "no name at all": (),
        "a slash at the end": (web + "/",),
        "an empty segment": (web.replace("/svc", "//svc"),),
        "a way up": (web.replace("/svc", "/svc/x/../../svc"),),
        "segments after the service": (web + "/svc/admin",),
        "a percent-encoded letter": (web.replace("web", "%77eb"),),
        "a percent-encoded NUL": (web + "%00",),
        "a percent-encoded slash": (web + "%2F",),
        "a query": (web + "?a=b",),
        "another trust domain": (web.replace(trust_domain, "99999999-2222-3333-4444-555555555555.consul"),),
        "the trust domain in upper case": (web.replace(trust_domain, trust_domain.upper()),),
        "SVC": (web.replace("/svc/", "/SVC/"),),
        "SPIFFE": (web.replace("spiffe:", "SPIFFE:"),),
        "the default partition": (web.replace("/ns/", "/ap/default/ns/"),),
        "an agent": (f"spiffe://{trust_domain}/agent/client/dc/dc1/id/node",),
        "a mesh gateway": (f"spiffe://{trust_domain}/gateway/mesh/dc/dc1",),
        "a server": (f"spiffe://{trust_domain}/agent/server/dc/dc1",),
        "an authority": (f"spiffe://{trust_domain}",),
    }
    for name, texts in uris.items():
        yield name, leaf(issuer, Wanted(uris=texts)), BAD
    yield "a DNS name only", leaf(issuer, Wanted(dns=("web",))), BAD
    yield "a NUL in the URI", leaf(issuer, Wanted(raw_names=crafted.raw_uri(web.encode() + b"\0.x"))), BAD
    yield "bytes that are no text", leaf(issuer, Wanted(raw_names=crafted.raw_uri(web.encode() + b"\xff"))), BAD
    yield "a name of X.400", leaf(issuer, Wanted(raw_names=crafted.raw_names(web))), BAD
    yield "a CA", leaf(issuer, Wanted(uris=(web,), ca=True)), BAD
    yield "a CA that signs", leaf(issuer, Wanted(uris=(web,), ca=True, signs=True)), BAD


def chains(issuer: Issuer, trust_domain: str, service: str = "web") -> Iterator[Attack]:
    """Certificates for which no root stands, or which are not to be used so."""
    honest = Wanted(uris=(f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/{service}",))
    uris = honest.uris
    yield "expired", leaf(issuer, Wanted(uris=uris, begins=-_YEAR, ends=-_DAY)), UNTRUSTED
    yield "not yet valid", leaf(issuer, Wanted(uris=uris, begins=_DAY, ends=_YEAR)), UNTRUSTED
    yield "for servers only", leaf(issuer, Wanted(uris=uris, usages=(ExtendedKeyUsageOID.SERVER_AUTH,))), UNTRUSTED
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    yield "an unknown critical extension", leaf(issuer, Wanted(uris=uris, more=((unknown, True),))), UNTRUSTED
    yield "an issuer that is a leaf", leaf(intermediate(issuer, "web", ca=False, signs=False), honest), UNTRUSTED
    yield "an issuer without keyCertSign", leaf(intermediate(issuer, "no signer", signs=False), honest), UNTRUSTED
    short = intermediate(issuer, "short", path_length=0)
    yield "a path that is too long", leaf(intermediate(short, "one more"), honest), UNTRUSTED
    elsewhere = x509.NameConstraints([x509.UniformResourceIdentifier("other.consul")], None)
    constrained = intermediate(issuer, "constrained", more=((elsewhere, True),))
    yield "names outside the issuer's constraints", leaf(constrained, honest), UNTRUSTED
    yield "RSA of 1024 bits", leaf(issuer, honest, key_of(1_024)), UNTRUSTED
    impostor = Issuer(key=key_of(), name=issuer.name)
    yield "an issuer that only has the name of the root", leaf(impostor, honest), UNTRUSTED
    yield "another authority", leaf(Issuer.of(Authority("Other", trust_domain=trust_domain)), honest), UNTRUSTED
    key = key_of()
    itself = Issuer(key=key, name=issuer.name)
    yield "signed by itself", leaf(itself, Wanted(uris=uris, subject=issuer.name), key), UNTRUSTED


def signatures(issuer: Issuer, trust_domain: str, service: str = "web") -> Iterator[Attack]:
    """What takes a root with an RSA key to make."""
    web = f"spiffe://{trust_domain}/ns/default/dc/dc1/svc/{service}"
    honest = Wanted(uris=(web,))
    yield "a signature with SHA-1", crafted.weakly_signed(issuer, honest, "sha1"), UNTRUSTED
    yield "a signature with MD5", crafted.weakly_signed(issuer, honest, "md5"), UNTRUSTED
