"""Parts of Consul's answers in which a field that is not known must not be passed over.

A permission, a token's requirement or a provider that is read without one of its fields may let in more than its
operator meant. So these types refuse what they do not know; :func:`understood` says which field that was. They are read
out of an answer one by one, so that one of them spoils no other. Sources:
https://developer.hashicorp.com/consul/docs/reference/config-entry/service-intentions and .../jwt-provider
"""

from __future__ import annotations

from typing import TypeVar

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
