"""Parts of Consul's answers in which a field that is not known must not be passed over.

A permission, a token's requirement or a provider that is read without one of its fields may let in more than its
operator meant. So these types refuse what they do not know; :func:`understood` says which field that was. They are read
out of an answer one by one, so that one of them spoils no other. Sources:
https://developer.hashicorp.com/consul/docs/reference/config-entry/service-intentions and .../jwt-provider
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_LONGEST_TEXT = 300
"""Of an error: what it quotes is somebody else's."""

_SPECIAL = {
    "http": "HTTP",
    "jwt": "JWT",
    "jwks": "JWKS",
    "uri": "URI",
    "json_web_key_set": "JSONWebKeySet",
    "jwks_cluster": "JWKSCluster",
    "tls_certificates": "TLSCertificates",
    "trusted_ca": "TrustedCA",
    "ca_certificate_provider_instance": "CaCertificateProviderInstance",
}


def _pascal(name: str) -> str:
    return _SPECIAL.get(name) or "".join(part.capitalize() for part in name.split("_"))


class NotUnderstood(ValueError):
    """Its text names the field and what is wrong with it."""


def understood(value: object, type_: type[T]) -> T:
    """Read ``value``, a piece of decoded JSON. :raises NotUnderstood: when it is anything else than ``type_``."""
    try:
        return msgspec.convert(value, type_)
    except (msgspec.ValidationError, RecursionError) as error:
        raise NotUnderstood(shortened(str(error) or "it is nested too deeply")) from None


def shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


class _Strict(msgspec.Struct, frozen=True, kw_only=True, rename=_pascal, forbid_unknown_fields=True):
    pass


# --- service-intentions: Permissions and JWT -----------------------------------------------------------------


class Claim(_Strict, frozen=True):
    """One element of ``VerifyClaims``."""

    path: tuple[str, ...] | None = None
    value: str = ""


class RequiredProvider(_Strict, frozen=True):
    """One element of ``JWT.Providers``."""

    name: str
    verify_claims: tuple[Claim, ...] | None = None


class RequiredJWT(_Strict, frozen=True):
    """``JWT`` of an intention or of one of its permissions."""

    providers: tuple[RequiredProvider, ...] | None = None


class PermissionHeader(_Strict, frozen=True):
    """One element of ``HTTP.Header``. A text that is not set is empty."""

    name: str
    present: bool = False
    exact: str = ""
    prefix: str = ""
    suffix: str = ""
    contains: str = ""
    regex: str = ""
    invert: bool = False
    ignore_case: bool = False


class PermissionHTTP(_Strict, frozen=True):
    """``HTTP`` of a permission. A text that is not set is empty."""

    path_exact: str = ""
    path_prefix: str = ""
    path_regex: str = ""
    header: tuple[PermissionHeader, ...] | None = None
    methods: tuple[str, ...] | None = None


class IntentionPermission(_Strict, frozen=True):
    """One element of ``Permissions``."""

    action: str
    http: PermissionHTTP | None = None
    jwt: RequiredJWT | None = None


# --- jwt-provider --------------------------------------------------------------------------------------------


class HeaderLocation(_Strict, frozen=True):
    name: str
    value_prefix: str = ""
    forward: bool = False


class NamedLocation(_Strict, frozen=True):
    """``QueryParam`` or ``Cookie``."""

    name: str


class Location(_Strict, frozen=True):
    """One element of ``Locations``: exactly one is set."""

    header: HeaderLocation | None = None
    query_param: NamedLocation | None = None
    cookie: NamedLocation | None = None


class Forwarding(_Strict, frozen=True):
    header_name: str
    pad_forward_payload_header: bool = False


class CacheConfig(_Strict, frozen=True):
    size: int = 0


class LocalKeySet(_Strict, frozen=True):
    jwks: str = ""
    """The key set in base64."""
    filename: str = ""
    """A path on the gateway's host."""


class RetryBackOff(_Strict, frozen=True):
    base_interval: str | int = 0
    """Nanoseconds, or a duration as text. So are the others here."""
    max_interval: str | int = 0


class RetryPolicy(_Strict, frozen=True):
    num_retries: int = 0
    retry_policy_back_off: RetryBackOff | None = None


class TrustedCA(_Strict, frozen=True):
    """Exactly one is set."""

    filename: str = ""
    environment_variable: str = ""
    inline_string: str = ""
    inline_bytes: str = ""
    """In base64."""


class TLSCertificates(_Strict, frozen=True):
    ca_certificate_provider_instance: Any = None
    trusted_ca: TrustedCA | None = None


class JWKSCluster(_Strict, frozen=True):
    discovery_type: str = ""
    """How an Envoy resolves the host; here each fetch resolves it."""
    tls_certificates: TLSCertificates | None = None
    connect_timeout: str | int = 0


class RemoteKeySet(_Strict, frozen=True):
    uri: str
    request_timeout_ms: int = 0
    cache_duration: str | int = 0
    fetch_asynchronously: bool = False
    retry_policy: RetryPolicy | None = None
    jwks_cluster: JWKSCluster | None = None


class JSONWebKeySet(_Strict, frozen=True):
    """Exactly one is set."""

    local: LocalKeySet | None = None
    remote: RemoteKeySet | None = None


class JWTProvider(_Strict, frozen=True):
    """An entry of ``GET /v1/config/jwt-provider`` (Consul 1.16 and later)."""

    name: str
    json_web_key_set: JSONWebKeySet
    issuer: str = ""
    audiences: tuple[str, ...] | None = None
    locations: tuple[Location, ...] | None = None
    forwarding: Forwarding | None = None
    clock_skew_seconds: int = 0
    cache_config: CacheConfig | None = None
    """Of verified tokens in an Envoy. What a worker keeps is its own affair."""
    # What Consul adds to every entry.
    kind: str = "jwt-provider"
    meta: Any = None
    namespace: Any = None
    partition: Any = None
    hash: Any = None
    create_index: Any = None
    modify_index: Any = None
