"""What a service-resolver and service-defaults say about balancing and limits.

Redirects and failover are the business of the calling side: a gateway does not follow them. Sources:
https://developer.hashicorp.com/consul/docs/reference/config-entry/service-resolver and .../service-defaults
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from plugin.assemble.durations import duration_s
from plugin.consul.api import HashPolicy as ConsulHashPolicy
from plugin.consul.api import LoadBalancer, ServiceDefaults, ServiceResolver
from proxy.model import Balance, BalancePolicy, HashPolicy, HashSource

T = TypeVar("T")

# RFC 9110 section 5.6.2, for names of headers and of cookies; RFC 6265 section 4.1.1, for what stands in Set-Cookie.
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_COOKIE_PATH = re.compile(r"[ -:<-~]*")
_LONGEST_TEXT = 100

IDLE_TIMEOUT_META = "tgw-idle-timeout"
HALF_CLOSED_TIMEOUT_META = "tgw-half-closed-timeout"
HALF_CLOSED_TIMEOUT_S = 3600.0
"""As long as Envoy's gateway waits, whose limit is for all silent connections."""
"""Key in the Meta of service-defaults: Consul has no field for how long a connection may be silent."""
MAX_LIFETIME_META = "tgw-max-lifetime"
"""Key in the Meta of service-defaults: nor for how long a connection may live."""


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    value: T
    warnings: tuple[str, ...] = ()


def connect_timeout(resolver: ServiceResolver | None) -> Setting[float]:
    """Return ``ConnectTimeout`` in seconds; 0 when it is not set."""
    if resolver is None:
        return Setting(0.0)
    return _duration(resolver.connect_timeout, "ConnectTimeout of the service-resolver")


def request_timeout(resolver: ServiceResolver | None) -> Setting[float | None]:
    """Return ``RequestTimeout`` in seconds; ``None`` when it is not set, which Consul makes of 0, too."""
    if resolver is None:
        return Setting(None)
    found = _duration(resolver.request_timeout, "RequestTimeout of the service-resolver")
    return Setting(found.value or None, found.warnings)


def idle_timeout(defaults: ServiceDefaults | None) -> Setting[float]:
    """Return how long a connection may be silent in both directions, in seconds; 0 means for ever."""
    return _meta_duration(defaults, IDLE_TIMEOUT_META)


def half_closed_timeout(defaults: ServiceDefaults | None) -> Setting[float]:
    """Return how long a connection that one side has ended may be silent, in seconds; 0 means for ever."""
    return _meta_duration(defaults, HALF_CLOSED_TIMEOUT_META, HALF_CLOSED_TIMEOUT_S)


def max_lifetime(defaults: ServiceDefaults | None) -> Setting[float]:
    """Return how long a connection may live, in seconds; 0 means for ever."""
    return _meta_duration(defaults, MAX_LIFETIME_META)


def max_connections(defaults: ServiceDefaults | None) -> Setting[int | None]:
    """Return ``MaxInboundConnections``; ``None`` when it is not set."""
    most = defaults.max_inbound_connections if defaults is not None else 0
    if most < 0:
        text = f"MaxInboundConnections of service-defaults is negative ({most}); its default applies"
        return Setting(None, (text,))
    return Setting(most or None)


def balance(resolver: ServiceResolver | None) -> Setting[Balance]:
    """Return how endpoints are chosen: round robin unless the resolver has a policy that is known."""
    settings = resolver.load_balancer if resolver is not None else None
    if settings is None or not settings.policy:
        return Setting(Balance())
    try:
        policy = BalancePolicy(settings.policy)
    except ValueError:
        known = ", ".join(BalancePolicy)
        return Setting(
            Balance(),
            (
                f"LoadBalancer.Policy {settings.policy!r} of the service-resolver is none of {known}; "
                "endpoints are used in turn. Correct the entry",
            ),
        )
    return _balance(policy, settings)


def _balance(policy: BalancePolicy, settings: LoadBalancer) -> Setting[Balance]:
    plain = Balance(policy)
    ring, least = settings.ring_hash_config, settings.least_request_config
    minimum = (ring.minimum_ring_size if ring is not None else 0) or plain.minimum_ring_size
    maximum = (ring.maximum_ring_size if ring is not None else 0) or plain.maximum_ring_size
    hash_policies, warnings = [], []
    for element in settings.hash_policies or ():
        try:
            hash_policies.append(_hash_policy(element))
        except ValueError as error:
            warnings.append(f"{error} in LoadBalancer.HashPolicies of the service-resolver; it is left out")
    if minimum > maximum:
        warnings.append("RingHashConfig of the service-resolver has a minimum above its maximum; the maximum applies")
    return Setting(
        Balance(
            policy=policy,
            choice_count=max((least.choice_count if least is not None else 0) or plain.choice_count, 2),
            minimum_ring_size=min(minimum, maximum),
            maximum_ring_size=maximum,
            hash_policies=tuple(hash_policies),
        ),
        tuple(warnings),
    )


def _hash_policy(element: ConsulHashPolicy) -> HashPolicy:
    if element.source_ip:
        return HashPolicy(HashSource.SOURCE_IP, terminal=element.terminal)
    try:
        source = HashSource(element.field)
    except ValueError as error:
        raise ValueError(f"the field {element.field!r} is not known") from error
    if source is HashSource.SOURCE_IP or not element.field_value:
        raise ValueError(f"the field {element.field!r} has no usable FieldValue")
    # Names of headers are compared without regard to case (RFC 9110 section 5.1), others are not.
    name = element.field_value.lower() if source is HashSource.HEADER else element.field_value
    if source is not HashSource.QUERY_PARAMETER and not _TOKEN.fullmatch(name):
        raise ValueError(f"the {element.field} {name[:_LONGEST_TEXT]!r} can be no name of one")
    plain = HashPolicy(source, name, element.terminal)
    cookie = element.cookie_config
    if source is not HashSource.COOKIE or cookie is None:
        return plain
    try:
        lifetime_s = 0.0 if cookie.session else duration_s(cookie.ttl)
    except ValueError as error:
        raise ValueError(f"CookieConfig of the cookie {name!r} is not usable: {error}") from error
    if not _COOKIE_PATH.fullmatch(cookie.path):
        raise ValueError(f"the Path in CookieConfig of the cookie {name!r} can be none")
    # Envoy gives a cookie when it is for a session or has a lifetime; a path alone makes none.
    given = lifetime_s if cookie.session or lifetime_s > 0 else None
    return msgspec.structs.replace(plain, cookie_lifetime_s=given, cookie_path=cookie.path)


def _meta_duration(defaults: ServiceDefaults | None, key: str, default_s: float = 0.0) -> Setting[float]:
    text = (defaults.meta or {}).get(key, "") if defaults is not None else ""
    return _duration(text, f"Meta {key} of service-defaults", default_s) if text else Setting(default_s)


def _duration(value: str | int, what: str, default_s: float = 0.0) -> Setting[float]:
    try:
        seconds = duration_s(value)
    except ValueError as error:
        return Setting(default_s, (f"{what}: {error}; its default applies",))
    if seconds < 0:
        return Setting(default_s, (f"{what} is negative ({value!r}); its default applies",))
    return Setting(seconds)
