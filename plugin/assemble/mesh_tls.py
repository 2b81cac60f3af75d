"""``TLS.Incoming`` of the mesh entry: which TLS the gateway's callers may speak.

A value that is not usable is reported and the default stays, which is never weaker than TLS 1.2.
Source: https://developer.hashicorp.com/consul/docs/reference/config-entry/mesh (TLS).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from plugin.consul.api import DirectionalTLS

_VERSIONS = ("TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3")
DEFAULT_MINIMUM = "TLSv1_2"
DEFAULT_MAXIMUM = "TLSv1_3"

_OPENSSL_NAMES = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingTLS:
    minimum: str = DEFAULT_MINIMUM
    maximum: str = DEFAULT_MAXIMUM
    cipher_suites: tuple[str, ...] = ()
    """OpenSSL names; empty means the built-in choice."""
    warnings: tuple[str, ...] = ()


def incoming_tls(settings: DirectionalTLS | None) -> IncomingTLS:
    """Read ``TLS.Incoming``; ``None`` and empty fields mean the defaults."""
    if settings is None:
        return IncomingTLS()
    warnings: list[str] = []
    minimum = _version(settings.tls_min_version, "TLSMinVersion", DEFAULT_MINIMUM, warnings)
    maximum = _version(settings.tls_max_version, "TLSMaxVersion", DEFAULT_MAXIMUM, warnings)
    if _VERSIONS.index(minimum) > _VERSIONS.index(maximum):
        if settings.tls_min_version in _VERSIONS:
            warnings.append(_wrong("TLSMaxVersion", maximum, f"below TLSMinVersion {minimum}", DEFAULT_MAXIMUM))
            maximum = DEFAULT_MAXIMUM
        else:
            # Only an upper bound was set, below the default lower bound: it is the operator's wish.
            minimum = maximum
    suites = _cipher_suites(settings.cipher_suites or (), warnings)
    return IncomingTLS(minimum=minimum, maximum=maximum, cipher_suites=suites, warnings=tuple(warnings))


def _version(value: str, field: str, default: str, warnings: list[str]) -> str:
    if value in {"", "TLS_AUTO"}:
        return default
    if value in _VERSIONS:
        return value
    warnings.append(_wrong(field, value, f"not one of TLS_AUTO, {', '.join(_VERSIONS)}", default))
    return default


def _cipher_suites(names: Iterable[str], warnings: list[str]) -> tuple[str, ...]:
    known = frozenset(_OPENSSL_NAMES.values())
    suites = {name: _OPENSSL_NAMES.get(name, name) for name in names}
    unknown = [name for name, suite in suites.items() if suite not in known]
    if unknown:
        warnings.append(_wrong("CipherSuites", ", ".join(unknown), "not known", "the built-in choice"))
        return ()
    return tuple(dict.fromkeys(suites.values()))


def _wrong(field: str, value: str, why: str, instead: str) -> str:
    return f"TLS.Incoming.{field} of the mesh entry is {value}, which is {why}; {instead} applies. Correct the entry"
