"""The TLS session to an external service: from the files that a link names to what a worker uses.

There is TLS exactly when the link has a ``CAFile``. The files are checked here, so that a worker never meets
material that it cannot load. Pure: others read the files, see :mod:`plugin.observe.files`. When the material was good
before and the files are not good now, which includes the moment in which a certificate was replaced and its key
was not yet, the earlier material stays in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from plugin.assemble.pem import (
    Certificates,
    PEMError,
    PrivateKey,
    read_authorities,
    read_certificates,
    read_private_key,
)
from plugin.consul.api import LinkedService
from plugin.facts import Fact
from proxy.model import UpstreamTLS

Files = Mapping[str, Fact[bytes]]

_WARN_BEFORE_S = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class GoodMaterial:
    """Material that was complete and consistent when it was read."""

    paths: tuple[str, str, str]
    """CAFile, CertFile and KeyFile."""
    tls: UpstreamTLS
    not_after_s: float
    """When the client's certificate, or else the last CA, ends; 0 without an end."""
    warnings: tuple[str, ...] = ()
    """What of the files was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    tls: UpstreamTLS | None = None
    """``None``: plain, unless there are problems."""
    good: GoodMaterial | None = None
    """To be handed in again the next time."""
    problems: tuple[str, ...] = ()
    """Why the link cannot be used at all."""
    warnings: tuple[str, ...] = ()


class _UnusableError(Exception):
    """The files do not make usable material. The text is a sentence for the operator."""


def upstream_material(
    link: LinkedService, files: Files, *, good: GoodMaterial | None = None, now_s: float | None = None
) -> Material:
    """Return what the link's files amount to.

    ``good`` is the material of an earlier call for this service. ``now_s`` is Unix time, for warnings about
    certificates at the end of their life; ``None`` warns of none.
    """
    if not link.ca_file:
        return Material(warnings=tuple(_without_effect(link)))
    warnings = list(_warnings(link, files))
    try:
        fresh = _read(link, files)
    except _UnusableError as error:
        if good is None:
            return Material(problems=(str(error),), warnings=tuple(warnings))
        warnings.append(f"{error}; until then the certificates read before stay in use")
        # With other files the earlier server name goes along: it belongs to the earlier authority.
        same = good.paths == (link.ca_file, link.cert_file, link.key_file)
        fresh = replace(good, tls=_named(good.tls, link.sni)) if same else good
    warnings += [*fresh.warnings, *_expiry(fresh, now_s)]
    return Material(tls=fresh.tls, good=fresh, warnings=tuple(warnings))


def _read(link: LinkedService, files: Files) -> GoodMaterial:
    if bool(link.cert_file) != bool(link.key_file):
        given, missing = ("CertFile", "KeyFile") if link.cert_file else ("KeyFile", "CertFile")
        raise _UnusableError(
            f"the link has a {given} and no {missing}; set both or neither in the terminating-gateway entry"
        )
    authorities = _certificates("CAFile", link.ca_file, files, read_authorities)
    warnings = tuple(_left_out(link.ca_file, authorities.unreadable))
    paths = (link.ca_file, link.cert_file, link.key_file)
    if not link.cert_file:
        tls = UpstreamTLS(ca_pem=authorities.pem, server_name=link.sni)
        return GoodMaterial(paths, tls, max(authorities.not_after_s), warnings)
    chain = _certificates("CertFile", link.cert_file, files, read_certificates)
    key = _private_key(link.key_file, files)
    if key.public_key != chain.first_public_key:
        raise _UnusableError(
            f"KeyFile {link.key_file} is not the key of the first certificate in CertFile {link.cert_file}; "
            "put the matching pair in place"
        )
    tls = UpstreamTLS(authorities.pem, chain.pem, key.pem, link.sni)
    return GoodMaterial(paths, tls, chain.not_after_s[0], warnings)


def _left_out(ca_file: str, unreadable: tuple[str, ...]) -> Iterator[str]:
    if unreadable:
        others = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        yield f"CAFile {ca_file} {unreadable[0]}{others}; it is left out, the others are used: replace or remove it"


def _certificates(what: str, path: str, files: Files, read: Callable[[bytes], Certificates]) -> Certificates:
    try:
        return read(_content(what, path, files))
    except PEMError as error:
        raise _UnusableError(f"{what} {path} {error}") from error


def _private_key(path: str, files: Files) -> PrivateKey:
    try:
        return read_private_key(_content("KeyFile", path, files))
    except PEMError as error:
        raise _UnusableError(f"KeyFile {path} {error}") from error


def _content(what: str, path: str, files: Files) -> bytes:
    fact = files.get(path, Fact[bytes]())
    if fact.known and fact.value is not None:
        return fact.value
    if fact.problem is not None:
        raise _UnusableError(f"{what}: {fact.problem}")
    raise _UnusableError(f"{what} {path} has not been read yet")


def _named(tls: UpstreamTLS, server_name: str) -> UpstreamTLS:
    return UpstreamTLS(tls.ca_pem, tls.certificate_chain_pem, tls.private_key_pem, server_name)


def _without_effect(link: LinkedService) -> Iterator[str]:
    names = ("CertFile", "KeyFile", "SNI")
    values = (link.cert_file, link.key_file, link.sni)
    if given := [name for name, value in zip(names, values, strict=True) if value]:
        yield (
            f"{' and '.join(given)} without a CAFile: connections to the external service are not encrypted; "
            "set CAFile in the link to use TLS"
        )


def _warnings(link: LinkedService, files: Files) -> Iterator[str]:
    if not link.sni:
        yield (
            "CAFile without an SNI: any certificate of that authority is accepted, whatever its name; "
            "set SNI in the link to have the name checked"
        )
    for path in dict.fromkeys((link.ca_file, link.cert_file, link.key_file)):
        fact = files.get(path)
        if path and fact is not None and fact.known and fact.problem is not None:
            yield f"{fact.problem}; what was read before stays in use"


def _expiry(material: GoodMaterial, now_s: float | None) -> Iterator[str]:
    if now_s is None:
        return
    ca_file, cert_file, _ = material.paths
    if cert_file:
        what, consequence = f"CertFile {cert_file}", "the external service will refuse the gateway"
    else:
        what, consequence = f"CAFile {ca_file}", "no external service can be verified with it"
    left_s = material.not_after_s - now_s
    if left_s <= 0:
        yield f"the certificate in {what} has expired: {consequence}; renew it in place"
    elif left_s < _WARN_BEFORE_S:
        yield f"the certificate in {what} expires in {left_s / 86_400:.1f} days: then {consequence}; renew it in place"
