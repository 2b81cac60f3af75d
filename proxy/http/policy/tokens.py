"""Tokens that requests carry (JSON Web Tokens, RFC 7519), against what intentions ask for.

A requirement names a provider and claims; any one of a rule's requirements has to be met. Nothing that a token says is
believed before its signature was verified with a key of the provider, and nothing is fetched here. What was verified
once is remembered, by the whole token and the provider as it is, and looked at anew for its time.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from proxy.http.message import Headers, RequestHead
from proxy.http.policy import token_places
from proxy.http.policy.token_keys import read_keys
from proxy.rules import ClaimMatch, TokenProvider, TokenRequirement

_MAX_TOKEN = 8 * 1024
"""Bytes."""
_REMEMBERED = 4 * 1024 * 1024
"""Bytes of tokens of one provider."""
_COMPACT = re.compile(rb"([\w-]+)\.([\w-]+)\.([\w-]+)", re.ASCII)
"""RFC 7515 section 7.1, and never an empty signature."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The valid tokens of one request, and what follows from them."""

    valid_until_s: float
    """Unix time at which the first of them is no longer good; infinity when none says."""
    removed: frozenset[bytes]
    """Headers that the external service does not get."""
    added: Headers
    """Headers that it gets, made from the tokens."""

    def and_also(self, other: Accepted | None) -> Accepted:
        if other is None:
            return self
        names = {name for name, _ in other.added}
        return Accepted(
            min(self.valid_until_s, other.valid_until_s),
            self.removed | other.removed,
            other.added + [header for header in self.added if header[0] not in names],
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    why: str
    """Names the provider and what was wrong, never the token."""
    unknown: bool = False
    """Nobody can say whether the requirement is met, as the provider or its keys are not known."""
    claims: bool = False
    """The token is good, but does not have the claims that are asked for."""
    unknown_keys: tuple[str, ...] = ()
    """Providers of which the token names a key (``kid``) that is not among theirs: they may have a new one."""


class Tokens:
    """Any one of the requirements has to be met."""

    __slots__ = ("_requirements",)

    def __init__(self, requirements: Iterable[TokenRequirement], providers: Mapping[str, TokenProvider]) -> None:
        self._requirements = [(one, verifier_of(providers.get(one.provider))) for one in requirements]

    def check(self, head: RequestHead, now_s: float) -> Accepted | Rejected:
        rejections = []
        for requirement, verifier in self._requirements:
            if verifier is None:
                why = f"the token provider {requirement.provider!r} is not known here"
                rejections.append(Rejected(why, unknown=True))
                continue
            verdict = verifier.check(head, requirement.claims, now_s)
            if isinstance(verdict, Accepted):
                return verdict
            rejections.append(verdict)
        return Rejected(
            "; ".join(one.why for one in rejections),
            unknown=any(one.unknown for one in rejections),
            claims=any(one.claims for one in rejections),
            unknown_keys=tuple(name for one in rejections for name in one.unknown_keys),
        )


class _Invalid(Exception):
    """The text says what is wrong with the token: ``has expired``."""


class _UnknownKey(_Invalid):
    """It names one that the provider does not have, as far as is known."""


@dataclass(frozen=True, slots=True)
class _Verified:
    claims: Mapping[str, Any]
    payload: bytes
    """As in the token: base64url without padding."""
    not_before_s: float
    valid_until_s: float
    """Both with the clock skew that the provider allows."""


class Verifier:
    """One provider, as it is now."""

    def __init__(self, provider: TokenProvider) -> None:
        self.provider = provider
        self._keys = read_keys(provider.keys_json) if provider.keys_json else None
        self._verified: dict[bytes, _Verified] = {}
        self._remembered = 0

    @property
    def problem(self) -> str:
        """Why no token of this provider is valid; empty when some may be."""
        if self._keys is not None and self._keys.keys:
            return ""
        why = self.provider.problem or "; ".join(self._keys.problems if self._keys else ())
        return f"the keys of the token provider {self.provider.name!r} are not known: {why or 'none were found'}"

    def check(self, head: RequestHead, claims: tuple[ClaimMatch, ...], now_s: float) -> Accepted | Rejected:
        provider = self.provider
        try:
            found = token_places.find(head, provider.locations)
        except token_places.Ambiguous as ambiguous:
            return Rejected(f"no token of {provider.name!r} can be told: {ambiguous}")
        if found is None:
            return Rejected(f"a token of {provider.name!r} is missing ({token_places.text(provider.locations)})")
        if self.problem:
            return Rejected(self.problem, unknown=True)
        try:
            verified = self._in_time(found.token, now_s)
        except _Invalid as error:
            unknown = (provider.name,) if isinstance(error, _UnknownKey) else ()
            return Rejected(f"the token of {provider.name!r} {error}", unknown_keys=unknown)
        for claim in claims:
            if not _holds(verified.claims, claim):
                why = f"does not have the claim {'.'.join(claim.path)} that is asked for"
                return Rejected(f"the token of {provider.name!r} {why}", claims=True)
        return Accepted(verified.valid_until_s, found.removed, self._forwarded(verified))

    def _in_time(self, token: bytes, now_s: float) -> _Verified:
        verified = self._verified.get(token)
        if verified is None:
            verified = self._verify(token)
            self._remember(token, verified)
        if now_s >= verified.valid_until_s:
            del self._verified[token]
            self._remembered -= len(token)
            raise _Invalid("has expired")
        if now_s < verified.not_before_s:
            raise _Invalid("is not valid yet")
        return verified

    def _remember(self, token: bytes, verified: _Verified) -> None:
        self._verified[token] = verified
        self._remembered += len(token)
        while self._remembered > _REMEMBERED:
            oldest = next(iter(self._verified))
            del self._verified[oldest]
            self._remembered -= len(oldest)

    def _verify(self, token: bytes) -> _Verified:
        """All but the time. :raises _Invalid:"""
        if len(token) > _MAX_TOKEN:
            raise _Invalid(f"has more than {_MAX_TOKEN} bytes")
        parts = _COMPACT.fullmatch(token)
        if parts is None:
            raise _Invalid("is encrypted" if token.count(b".") == 4 else "is not a signed JSON Web Token")
        header, payload = _object(parts[1], "header"), parts[2]
        _decoded(parts[3], "signature")
        self._check_signature(token, header)
        claims = _object(payload, "payload")
        self._check_issuer_and_audience(claims)
        skew_s = self.provider.clock_skew_s
        return _Verified(
            claims,
            payload,
            _time(claims, "nbf", -math.inf) - skew_s,
            _time(claims, "exp", math.inf) + skew_s,
        )

    def _check_signature(self, token: bytes, header: Mapping[str, Any]) -> None:
        assert self._keys is not None
        if "crit" in header or "b64" in header:
            raise _Invalid("has extensions that have to be understood (crit), and they are not")
        algorithm, kid = header.get("alg"), header.get("kid", "")
        if not isinstance(algorithm, str) or not isinstance(kid, str):
            raise _Invalid("has an alg or a kid that is no text")
        keys = self._keys.candidates(algorithm, kid)
        if not any(key.signed(token, algorithm) for key in keys):
            if kid and not self._keys.knows(kid):
                raise _UnknownKey("is signed by a key that is not of this provider, or not yet known to be")
            if not keys:
                raise _Invalid("is signed by a key or an algorithm that is not of this provider")
            raise _Invalid("has a signature that is not of this provider")

    def _check_issuer_and_audience(self, claims: Mapping[str, Any]) -> None:
        provider = self.provider
        if provider.issuer and claims.get("iss") != provider.issuer:
            raise _Invalid("is of another issuer")
        if provider.audiences:
            audience = claims.get("aud")
            named = audience if isinstance(audience, list) else [audience]
            if not any(one in provider.audiences for one in named if isinstance(one, str)):
                raise _Invalid("is for another audience")

    def _forwarded(self, verified: _Verified) -> Headers:
        if not self.provider.forward_header:
            return []
        payload = verified.payload
        if self.provider.pad_forward_header:
            payload += b"=" * (-len(payload) % 4)
        return [(self.provider.forward_header.lower().encode(), payload)]


@functools.lru_cache(maxsize=256)
def verifier_of(provider: TokenProvider | None) -> Verifier | None:
    """The same one for the same provider: a change of policy does not forget what was verified."""
    return None if provider is None else Verifier(provider)


def forward_headers(providers: Iterable[TokenProvider]) -> frozenset[bytes]:
    """Names under which the gateway alone tells what a token says: a client's own are never passed on."""
    return frozenset(provider.forward_header.lower().encode() for provider in providers if provider.forward_header)


def _object(segment: bytes, what: str) -> dict[str, Any]:
    """A JSON object that has each name once."""
    try:
        found = json.loads(_decoded(segment, what), object_pairs_hook=_once_each, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _Invalid(f"has a {what} that is no JSON, or has a name twice") from None
    if not isinstance(found, dict):
        raise _Invalid(f"has a {what} that is no JSON object")
    return found


def _decoded(segment: bytes, what: str) -> bytes:
    """Base64url, in the one spelling that it has for what it says."""
    try:
        data = base64.urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except binascii.Error:
        data = b""
    if base64.urlsafe_b64encode(data).rstrip(b"=") != segment:
        raise _Invalid(f"has a {what} that is not in base64url")
    return data


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name that is there twice")
    return found


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _time(claims: Mapping[str, Any], name: str, absent: float) -> float:
    """Seconds (NumericDate, RFC 7519 section 2)."""
    if name not in claims:
        return absent
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise _Invalid(f"has an {name} that is no time")
    return float(value)


def _holds(claims: Any, wanted: ClaimMatch) -> bool:
    """The claim is the value, or a list with the value in it. Source: Consul's ``VerifyClaims``."""
    for name in wanted.path:
        if not isinstance(claims, dict) or name not in claims:
            return False
        claims = claims[name]
    return any(_as_text(value) == wanted.value for value in (claims if isinstance(claims, list) else [claims]))


def _as_text(value: Any) -> str | None:
    """As JSON writes it; texts without their quotes. ``None``: nothing is equal to it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return None
