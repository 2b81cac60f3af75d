"""``Permissions`` and ``JWT`` of an intention, as the data plane takes them.

What cannot be evaluated as its operator meant it is kept in its place, with the reason: a request that comes to it is
denied, so that neither an allowance grows nor a denial is passed over. Source:
https://developer.hashicorp.com/consul/docs/reference/config-entry/service-intentions
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator

from plugin.consul.strict import (
    Claim,
    IntentionPermission,
    NotUnderstood,
    PermissionHeader,
    PermissionHTTP,
    RequiredJWT,
    shortened,
    understood,
)
from proxy.http.policy.permissions import problem
from proxy.rules import Action, ClaimMatch, HeaderMatch, Match, Permission, TokenRequirement

# RFC 9110 section 5.6.2.
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)

_PSEUDO = frozenset({":authority", ":method", ":path", ":scheme"})
"""Names that Envoy has for what is no header field (RFC 9113 section 8.3.1), and Consul takes."""


def permission(element: object) -> Permission:
    """Read one element of ``Permissions``, whatever it is."""
    action = Action.DENY
    try:
        read = understood(element, IntentionPermission)
        action = _action(read.action)
        http = read.http or PermissionHTTP()
        path, path_value = _path(http)
        whole = Permission(
            action=action,
            path=path,
            path_value=path_value,
            methods=_methods(http.methods or ()),
            headers=tuple(_header(header) for header in http.header or ()),
            tokens=_tokens(read.jwt) if read.jwt is not None else (),
        )
        if why := _problem(whole):
            raise NotUnderstood(shortened(why))
    except NotUnderstood as error:
        return Permission(action=action, unusable=str(error))
    return whole


@functools.lru_cache(8192)
def _problem(whole: Permission) -> str:
    """The word of those who will evaluate it. Kept, since compiling takes longest and a service is assembled often."""
    return problem(whole)


def requirements(jwt: object) -> tuple[TokenRequirement, ...]:
    """Read ``JWT``. :raises NotUnderstood: when nobody could say which tokens meet it."""
    return _tokens(understood(jwt, RequiredJWT))


def _action(text: str) -> Action:
    try:
        return Action(text)
    except ValueError:
        raise NotUnderstood(f"its Action {shortened(text)!r} is neither allow nor deny") from None


def _path(http: PermissionHTTP) -> tuple[Match, str]:
    found = [
        (match, value)
        for match, value in (
            (Match.EXACT, http.path_exact),
            (Match.PREFIX, http.path_prefix),
            (Match.REGEX, http.path_regex),
        )
        if value
    ]
    if len(found) > 1:
        raise NotUnderstood("it has more than one of PathExact, PathPrefix and PathRegex")
    return found[0] if found else (Match.ANY, "")


def _methods(names: Iterable[str]) -> tuple[str, ...]:
    methods: dict[str, None] = {}
    for name in names:
        if not TOKEN.fullmatch(name):
            raise NotUnderstood(f"{shortened(name)!r} in Methods is no method of HTTP")
        methods[name.upper()] = None
    return tuple(methods)


def _header(header: PermissionHeader) -> HeaderMatch:
    name = header.name
    if not TOKEN.fullmatch(name) and name.lower() not in _PSEUDO:
        raise NotUnderstood(f"{shortened(name)!r} in Header is no name of a header")
    texts = (
        (Match.EXACT, header.exact),
        (Match.PREFIX, header.prefix),
        (Match.SUFFIX, header.suffix),
        (Match.CONTAINS, header.contains),
        (Match.REGEX, header.regex),
    )
    found = [(match, value) for match, value in texts if value]
    found += [(Match.PRESENT, "")] if header.present else []
    if len(found) != 1:
        wanted = "exactly one of Present, Exact, Prefix, Suffix, Contains and Regex"
        raise NotUnderstood(f"the Header {name} does not have {wanted}")
    match, value = found[0]
    if header.ignore_case and match in {Match.PRESENT, Match.REGEX}:
        raise NotUnderstood(f"the Header {name} has IgnoreCase, which goes with no Present and no Regex")
    return HeaderMatch(
        name=name.lower(), match=match, value=value, ignore_case=header.ignore_case, invert=header.invert
    )


def _tokens(jwt: RequiredJWT) -> tuple[TokenRequirement, ...]:
    if not jwt.providers:
        raise NotUnderstood("its JWT names no provider")
    return tuple(
        TokenRequirement(provider.name, tuple(_claims(provider.name, provider.verify_claims or ())))
        for provider in jwt.providers
    )


def _claims(provider: str, claims: Iterable[Claim]) -> Iterator[ClaimMatch]:
    for claim in claims:
        if not claim.path:
            raise NotUnderstood(f"VerifyClaims of the provider {shortened(provider)} has an element without Path")
        yield ClaimMatch(path=claim.path, value=claim.value)
