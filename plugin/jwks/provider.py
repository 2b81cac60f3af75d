"""A ``jwt-provider`` entry as the data plane takes it, and where its keys are to be had.

Pure. An entry is read strictly (:mod:`plugin.consul.strict`): a restriction that is passed over would let in more
tokens than its operator meant. Source: https://developer.hashicorp.com/consul/docs/reference/config-entry/jwt-provider
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from plugin.assemble.durations import duration_s
from plugin.assemble.permissions import TOKEN
from plugin.consul.strict import (
    JSONWebKeySet,
    JWTProvider,
    Location,
    NotUnderstood,
    RemoteKeySet,
    TrustedCA,
    shortened,
    understood,
)
from proxy.rules import TokenLocation, TokenProvider

DEFAULT_SKEW_S = 30.0
"""As Consul writes it into an entry that has none."""
DEFAULT_CACHE_S = 300.0
DEFAULT_TIMEOUT_S = 5.0
LONGEST_TIMEOUT_S = 60.0
SHORTEST_CACHE_S = 1.0


class InlineKeys(msgspec.Struct, frozen=True):
    content: bytes
    """It may hold a key that whoever makes tokens shares."""

    def __repr__(self) -> str:
        return f"InlineKeys({len(self.content)} bytes)"


class FileKeys(msgspec.Struct, frozen=True, tag=True):
    path: str
    """On the gateway's host."""


class RemoteKeys(msgspec.Struct, frozen=True, tag=True):
    """What one fetch needs. Providers that need the same share it."""

    uri: str
    timeout_s: float = DEFAULT_TIMEOUT_S
    connect_timeout_s: float = DEFAULT_TIMEOUT_S
    cache_s: float = DEFAULT_CACHE_S
    retry_first_s: float = 1.0
    retry_longest_s: float = 60.0
    ca_pem: str = ""
    """The only roots that are trusted; with nothing in any of these three, the host's own are."""
    ca_file: str = ""
    ca_variable: str = ""
    """Of the gateway's environment."""

    @property
    def where(self) -> str:
        """For texts: without what may be a secret."""
        return shortened(self.uri.partition("?")[0])


KeptKeys = FileKeys | RemoteKeys
"""Where keys are that are not in the entry."""
KeySource = InlineKeys | KeptKeys


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    provider: TokenProvider
    """Without keys."""
    source: KeySource


def name_of(row: Any) -> str:
    """The name of an element of ``GET /v1/config/jwt-provider``; empty when it has none."""
    name = row.get("Name") if isinstance(row, dict) else None
    return name if isinstance(name, str) else ""


def read_provider(row: Any) -> ProviderSettings:
    """:raises NotUnderstood: when it cannot be used as it was meant; the text names the field."""
    entry = understood(row, JWTProvider)
    locations = tuple(map(_location, entry.locations or ()))
    provider = TokenProvider(
        name=entry.name,
        issuer=entry.issuer,
        audiences=tuple(entry.audiences or ()),
        clock_skew_s=max(0.0, float(entry.clock_skew_seconds or DEFAULT_SKEW_S)),
        forward_header=_header_name(entry.forwarding.header_name, "Forwarding") if entry.forwarding else "",
        pad_forward_header=entry.forwarding.pad_forward_payload_header if entry.forwarding else False,
    )
    if locations:
        provider = msgspec.structs.replace(provider, locations=locations)
    return ProviderSettings(provider, _source(entry.json_web_key_set))


def _location(location: Location) -> TokenLocation:
    if sum(one is not None for one in (location.header, location.query_param, location.cookie)) != 1:
        raise NotUnderstood("an element of Locations does not have exactly one of Header, QueryParam and Cookie")
    if location.header is not None:
        return TokenLocation(
            header=_header_name(location.header.name, "Locations"),
            prefix=location.header.value_prefix,
            forward=location.header.forward,
        )
    if location.query_param is not None:
        return TokenLocation(query_parameter=_some(location.query_param.name, "QueryParam"))
    assert location.cookie is not None
    return TokenLocation(cookie=_some(location.cookie.name, "Cookie"))


def _header_name(name: str, where: str) -> str:
    if not TOKEN.fullmatch(name):
        raise NotUnderstood(f"{shortened(name)!r} in {where} is no name of a header")
    return name.lower()


def _some(name: str, where: str) -> str:
    if not name:
        raise NotUnderstood(f"an element of Locations has a {where} without Name")
    return name


def _source(keys: JSONWebKeySet) -> KeySource:
    local, remote = keys.local, keys.remote
    if (local is None) == (remote is None):
        raise NotUnderstood("its JSONWebKeySet does not have exactly one of Local and Remote")
    if remote is not None:
        return _remote(remote)
    assert local is not None
    if bool(local.jwks) == bool(local.filename):
        raise NotUnderstood("its JSONWebKeySet.Local does not have exactly one of JWKS and Filename")
    return FileKeys(local.filename) if local.filename else InlineKeys(_decoded(local.jwks, "JSONWebKeySet.Local.JWKS"))


def _decoded(text: str, where: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NotUnderstood(f"its {where} is not base64") from None


def _remote(remote: RemoteKeySet) -> RemoteKeys:
    cluster, plain = remote.jwks_cluster, RemoteKeys("")
    backoff = remote.retry_policy.retry_policy_back_off if remote.retry_policy is not None else None
    first_s = _duration(backoff.base_interval, "BaseInterval", plain.retry_first_s) if backoff else plain.retry_first_s
    longest_s = _duration(backoff.max_interval, "MaxInterval", 0.0) if backoff else plain.retry_longest_s
    timeout_s = remote.request_timeout_ms / 1000 if remote.request_timeout_ms > 0 else DEFAULT_TIMEOUT_S
    connect_s = _duration(cluster.connect_timeout, "ConnectTimeout", DEFAULT_TIMEOUT_S) if cluster else timeout_s
    found = RemoteKeys(
        uri=_uri(remote.uri),
        timeout_s=min(timeout_s, LONGEST_TIMEOUT_S),
        connect_timeout_s=min(connect_s, timeout_s, LONGEST_TIMEOUT_S),
        cache_s=max(_duration(remote.cache_duration, "CacheDuration", DEFAULT_CACHE_S), SHORTEST_CACHE_S),
        # As Envoy: ten times the first when it is not set.
        retry_first_s=first_s,
        retry_longest_s=max(longest_s or 10 * first_s, first_s),
    )
    certificates = cluster.tls_certificates if cluster is not None else None
    if certificates is None:
        return found
    if certificates.trusted_ca is None:
        raise NotUnderstood(
            "its JWKSCluster.TLSCertificates names a CaCertificateProviderInstance, which only an Envoy can have;"
            " use TrustedCA"
        )
    return _with_trust(found, certificates.trusted_ca)


def _uri(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not uri.isprintable() or " " in uri:
        raise NotUnderstood("its JSONWebKeySet.Remote.URI is not of http:// or https:// and a host")
    if parts.username is not None or parts.password is not None:
        raise NotUnderstood("its JSONWebKeySet.Remote.URI holds a user's name, which a config entry is no place for")
    return uri


def _with_trust(found: RemoteKeys, trusted: TrustedCA) -> RemoteKeys:
    given = (trusted.filename, trusted.environment_variable, trusted.inline_string, trusted.inline_bytes)
    if sum(map(bool, given)) != 1:
        wanted = "exactly one of Filename, EnvironmentVariable, InlineString and InlineBytes"
        raise NotUnderstood(f"its TrustedCA does not have {wanted}")
    pem = trusted.inline_string or _certificates(trusted.inline_bytes)
    return msgspec.structs.replace(
        found, ca_pem=pem, ca_file=trusted.filename, ca_variable=trusted.environment_variable
    )


def _certificates(inline: str) -> str:
    """``InlineBytes``: Consul keeps the text that was written, and writers with Go's types have encoded it before."""
    content = _decoded(inline, "TrustedCA.InlineBytes") if inline else b""
    if content and b"-----BEGIN" not in content:
        content = _decoded(content.decode("latin-1"), "TrustedCA.InlineBytes")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise NotUnderstood("its TrustedCA.InlineBytes is no certificate in PEM format") from None


def _duration(value: str | int, field: str, default_s: float) -> float:
    try:
        seconds = duration_s(value)
    except ValueError as error:
        raise NotUnderstood(f"its {field} is not usable: {error}") from None
    return seconds if seconds > 0 else default_s


def by_name(rows: Iterable[Any]) -> dict[str, Any]:
    return {name: row for row in rows if (name := name_of(row))}
