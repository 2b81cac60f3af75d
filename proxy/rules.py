"""Who may do what, as data: intentions with their permissions, the tokens they ask for, and how a request is read.

As :mod:`proxy.model`: immutable, handed from the control process to its workers, printed by ``consul-tgw snapshot``.
What is decided with it is in :mod:`proxy.policy.intentions` and :mod:`proxy.http.policy.permissions`.
"""

from __future__ import annotations

import enum

import msgspec


class Action(enum.StrEnum):
    ALLOW = "allow"
    DENY = "deny"


class Match(enum.StrEnum):
    """How a path or the value of a header is compared."""

    ANY = "any"
    PRESENT = "present"
    """Of a header alone: it is there, whatever its value."""
    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    CONTAINS = "contains"
    REGEX = "regex"
    """RE2, and all of the value."""


class HeaderMatch(msgspec.Struct, frozen=True):
    """One element of ``HTTP.Header`` of a permission."""

    name: str
    """Lower case."""
    match: Match
    value: str = ""
    ignore_case: bool = False
    invert: bool = False


class ClaimMatch(msgspec.Struct, frozen=True):
    """One element of ``VerifyClaims``."""

    path: tuple[str, ...]
    value: str


class TokenRequirement(msgspec.Struct, frozen=True):
    """One element of ``JWT.Providers``: a valid token of that provider with these claims."""

    provider: str
    claims: tuple[ClaimMatch, ...] = ()


class Permission(msgspec.Struct, frozen=True):
    """One element of an intention's ``Permissions``: the first one that matches a request decides about it."""

    action: Action
    path: Match = Match.ANY
    path_value: str = ""
    methods: tuple[str, ...] = ()
    """Empty: any."""
    headers: tuple[HeaderMatch, ...] = ()
    """All of them must match."""
    tokens: tuple[TokenRequirement, ...] = ()
    """Any one of them must be met; else the permission does not match."""
    unusable: str = ""
    """Why it cannot be evaluated as the operator meant it: a request that comes to it is denied."""


class Intention(msgspec.Struct, frozen=True):
    """One source of a destination's intentions (``/v1/connect/intentions/match?by=destination``)."""

    source: str
    """A service name or ``*``."""
    action: Action
    precedence: int
    """Consul's number, 9 (exact to exact) to 1; the higher one decides."""
    source_namespace: str = "default"
    """A namespace or ``*``."""
    source_partition: str = "default"
    source_peer: str = ""
    """The peer that the source lives in; empty for this cluster."""
    destination: str = ""
    """As written in the intention: a service name or ``*``."""
    layer7: bool = False
    """It carries Permissions or JWT requirements. At layer 4 such an intention denies, as in Consul."""
    permissions: tuple[Permission, ...] = ()
    """In the operator's order. What matches none of them is up to the default action."""
    tokens: tuple[TokenRequirement, ...] = ()
    """Any one of them must be met, whatever the permissions say."""


class EscapedSlashes(enum.StrEnum):
    """``PathWithEscapedSlashesAction``: what becomes of ``%2F`` and ``%5C`` in a path."""

    KEEP = "keep"
    REJECT = "reject"
    UNESCAPE = "unescape"
    """And go on with the path that this makes."""
    REDIRECT = "redirect"
    """Tell the client to come back with that path (307)."""


class Underscores(enum.StrEnum):
    """``HeadersWithUnderscoresAction``: many servers take ``a_b`` for ``a-b``."""

    ALLOW = "allow"
    REJECT = "reject"
    DROP = "drop"


class Normalization(msgspec.Struct, frozen=True):
    """``HTTP.Incoming.RequestNormalization`` of the mesh entry; the defaults are the secure ones."""

    dot_segments: bool = True
    """False is ``InsecureDisablePathNormalization``."""
    merge_slashes: bool = True
    escaped_slashes: EscapedSlashes = EscapedSlashes.KEEP
    underscores: Underscores = Underscores.ALLOW


class TokenLocation(msgspec.Struct, frozen=True):
    """Where a request carries its token: exactly one of the three is set."""

    header: str = ""
    """Lower case."""
    prefix: str = ""
    """In front of the token in that header, without the space (``Bearer``)."""
    query_parameter: str = ""
    cookie: str = ""
    forward: bool = False
    """The external service gets it too (headers only; a token elsewhere is always passed on)."""


class TokenProvider(msgspec.Struct, frozen=True):
    """A ``jwt-provider`` entry, with the keys that were found for it."""

    name: str
    issuer: str = ""
    audiences: tuple[str, ...] = ()
    """Any one of them; empty: not looked at."""
    locations: tuple[TokenLocation, ...] = (TokenLocation(header="authorization", prefix="Bearer"),)
    clock_skew_s: float = 30.0
    forward_header: str = ""
    """The verified payload goes to the external service in this header, base64url; empty: it does not."""
    pad_forward_header: bool = False
    keys_json: str = ""
    """A JSON Web Key Set (RFC 7517 section 5). Empty: none could be had, and no token of this provider is valid."""
    problem: str = ""
    """Why not."""

    def __rich_repr__(self) -> list[tuple[str, object]]:
        # A key may be one that whoever makes tokens shares.
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        return list({**shown, "keys_json": "<keys>" if self.keys_json else ""}.items())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"
