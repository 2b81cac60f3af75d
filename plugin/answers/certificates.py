"""Every certificate that a gateway depends on, when it ends, and what renews it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from plugin.consul.api import Roots
from plugin.facts import MeshFacts, ServiceFacts
from plugin.settings import ConsulSettings
from proxy.model import ServiceName

_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class CertificateStatus(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    """``leaf``, ``intermediate``, ``root``, ``peer_root``, ``upstream_ca``, ``upstream_client``, ``consul_ca`` or
    ``consul_client``."""
    subject: str
    issuer: str
    serial: str
    """Hexadecimal, in pairs (``0a:1b``), as Consul writes it."""
    spiffe_ids: tuple[str, ...] = ()
    not_before_s: float
    """Unix time, as the next."""
    not_after_s: float
    services: tuple[str, ...] = ()
    """That depend on it; empty: all."""
    active: bool | None = None
    """Of a root: Consul signs with it."""
    renewed_by: str
    """What replaces it, in words."""
    renewal_s: float = 0.0
    """When the gateway asks for the next one, Unix time; 0 where somebody else decides."""
    path: str = ""
    modified_s: float = 0.0
    """Of the file."""


class CertificateList(msgspec.Struct, frozen=True):
    """The answer of ``/api/certificates``."""

    certificates: tuple[CertificateStatus, ...]
    """The one that ends first comes first."""
    problems: tuple[str, ...] = ()
    """What could not be read."""


@dataclass(slots=True)
class _File:
    content: bytes | None
    """``None``: to be read."""
    kind: str
    services: list[str] = field(default_factory=list)


def certificates(
    mesh: MeshFacts,
    services: Iterable[ServiceFacts],
    renewal_due_s: Callable[[ServiceName], float],
    consul: ConsulSettings,
) -> CertificateList:
    """Reads the state of files: call it in a thread."""
    found: list[CertificateStatus] = []
    problems: list[str] = []
    files: dict[tuple[str, str], _File] = {}
    for facts in services:
        found += _leaf(facts, renewal_due_s(facts.name), problems)
        for kind, path in (("upstream_ca", facts.link.ca_file), ("upstream_client", facts.link.cert_file)):
            fact = facts.files.get(path)
            if path and fact is not None and fact.known:
                files.setdefault((kind, path), _File(fact.value, kind)).services.append(str(facts.name))
            elif path:
                why = fact.problem if fact is not None and fact.problem is not None else "it was not read yet"
                problems.append(f"{path} of {facts.name}: {why}")
    for kind, own in (("consul_ca", consul.ca_file), ("consul_client", consul.client_cert)):
        if own is not None:
            files[kind, str(own)] = _File(None, kind)
    for (_, path), file in files.items():
        found += _file(path, file, problems)
    if mesh.roots.value is not None:
        found += _roots(mesh.roots.value, problems)
    for bundle in mesh.peers.value or ():
        by = f"the peer {bundle.peer}, through the peering"
        for pem in bundle.roots_pem:
            found += _statuses(pem.encode(), f"roots of {bundle.peer}", problems, kind="peer_root", renewed_by=by)
    return CertificateList(tuple(sorted(found, key=lambda one: one.not_after_s)), tuple(problems))


def _leaf(facts: ServiceFacts, due_s: float, problems: list[str]) -> Iterator[CertificateStatus]:
    leaf = facts.leaf.value
    if leaf is None:
        problem = facts.leaf.problem or "Consul has issued none yet"
        problems.append(f"leaf of {facts.name}: {problem}")
        return
    name = str(facts.name)
    found = _statuses(
        leaf.certificate_chain_pem.encode(),
        f"leaf of {name}",
        problems,
        kind="leaf",
        services=(name,),
        renewed_by="the gateway asks Consul for the next one, at once when the signing key changes",
        renewal_s=due_s,
    )
    yield from found[:1]
    for one in found[1:]:
        yield msgspec.structs.replace(one, kind="intermediate", renewal_s=0.0, renewed_by="Consul, with the leaf")


def _roots(roots: Roots, problems: list[str]) -> Iterator[CertificateStatus]:
    for root in roots.roots or ():
        by = "Consul's CA (consul connect ca set-config), followed as it changes"
        if not root.active:
            by = "nothing: Consul drops it when no leaf of it is left"
        yield from _statuses(
            root.root_cert.encode(), f"root {root.id}", problems, kind="root", active=root.active, renewed_by=by
        )


def _file(path: str, file: _File, problems: list[str]) -> list[CertificateStatus]:
    content, modified_s = file.content, 0.0
    try:
        modified_s = os.stat(path).st_mtime
        if content is None:
            content = Path(path).read_bytes()
    except OSError as error:
        problems.append(f"{path}: {error.strerror}")
    return _statuses(
        content or b"",
        path,
        problems,
        kind=file.kind,
        services=tuple(sorted(file.services)),
        renewed_by=f"whoever writes {path}; the gateway reads it again when it changes",
        path=path,
        modified_s=modified_s,
    )


def _statuses(pem: bytes, where: str, problems: list[str], **fields: object) -> list[CertificateStatus]:
    result = []
    for block in _blocks(pem):
        try:
            result.append(msgspec.structs.replace(_parsed(block), **fields))
        except _UNREADABLE as error:
            # The text of the error is left out: it may quote what was parsed.
            problems.append(f"{where} holds a certificate that cannot be read ({type(error).__name__})")
    return result


def _blocks(pem: bytes) -> Iterator[bytes]:
    """Only certificates: a file may hold the key as well."""
    for part in pem.split(_BEGIN)[1:]:
        inner, end, _ = part.partition(_END)
        if end:
            yield _BEGIN + inner + _END + b"\n"


@functools.lru_cache(maxsize=8_192)
def _parsed(block: bytes) -> CertificateStatus:
    certificate = x509.load_pem_x509_certificate(block)
    number = f"{certificate.serial_number:x}"
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        uris = ()
    return CertificateStatus(
        kind="",
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        serial=bytes.fromhex(number.zfill(len(number) + len(number) % 2)).hex(":"),
        spiffe_ids=uris,
        not_before_s=certificate.not_valid_before_utc.timestamp(),
        not_after_s=certificate.not_valid_after_utc.timestamp(),
        renewed_by="",
    )


def expiring(listed: CertificateList, within_s: float, now_s: float | None = None) -> list[CertificateStatus]:
    """Those that end within so many seconds, or have ended."""
    now_s = time.time() if now_s is None else now_s
    return [one for one in listed.certificates if one.not_after_s - now_s < within_s]
