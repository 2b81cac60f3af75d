"""Config entries that are not written yet: what they may hold, in the spelling of Consul's API. Pure.

``consul config write`` takes keys in any letter case and with underscores. It refuses what it does not know; so does
this, for the fields that the gateway reads: a simulation that passes over a misspelt field would promise too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from plugin.errors import ConfigError

KINDS = (
    *("service-intentions", "terminating-gateway", "service-defaults", "service-resolver"),
    *("mesh", "proxy-defaults", "jwt-provider"),
)
MOST_ENTRIES = 100
_NAMES_OF_ALL = "Kind Name Namespace Partition Meta Hash CreateIndex ModifyIndex Status"
_FREE = frozenset({"Meta", "Config", "LegacyMeta", "Subsets", "Redirect", "Failover"})
"""Their keys are the operator's own, or of no concern to a gateway."""
_FIELDS = {
    "service-intentions": "Sources JWT",
    "terminating-gateway": "Services",
    "service-defaults": "Protocol Mode Destination MaxInboundConnections MaxRequestHeadersKB TransparentProxy"
    " MutualTLSMode MeshGateway Expose ExternalSNI UpstreamConfig LocalConnectTimeoutMs LocalRequestTimeoutMs"
    " BalanceInboundConnections RateLimits EnvoyExtensions",
    "service-resolver": "DefaultSubset Subsets Redirect Failover ConnectTimeout RequestTimeout LoadBalancer"
    " PrioritizeByLocality",
    "mesh": "TransparentProxy AllowEnablingPermissiveMutualTLS TLS HTTP Peering ValidateClusters",
    "proxy-defaults": "Config Mode TransparentProxy MutualTLSMode MeshGateway Expose AccessLogs EnvoyExtensions"
    " FailoverPolicy PrioritizeByLocality",
    "jwt-provider": "JSONWebKeySet Audiences Issuer Locations Forwarding ClockSkewSeconds CacheConfig",
}
_INNER = (
    "Sources Action Permissions Description Type Precedence Peer SamenessGroup LegacyID LegacyMeta LegacyCreateTime"
    " LegacyUpdateTime HTTP PathExact PathPrefix PathRegex Header Present Exact Prefix Suffix Contains Regex Invert"
    " IgnoreCase Methods JWT Providers VerifyClaims Path Value Services CAFile CertFile KeyFile SNI"
    " DisableAutoHostRewrite Destination Addresses Port DialedDirectly Filter OnlyPassing Policy LeastRequestConfig"
    " ChoiceCount RingHashConfig MinimumRingSize MaximumRingSize HashPolicies Field FieldValue SourceIP Terminal"
    " CookieConfig Session TTL Incoming Outgoing TLSMinVersion TLSMaxVersion CipherSuites RequestNormalization"
    " InsecureDisablePathNormalization MergeSlashes PathWithEscapedSlashesAction HeadersWithUnderscoresAction"
    " SanitizeXForwardedClientCert MeshDestinationsOnly Enabled DisableListenerLogs JSONFormat TextFormat Local JWKS"
    " Filename Remote URI RequestTimeoutMs CacheDuration FetchAsynchronously RetryPolicy NumRetries"
    " RetryPolicyBackOff BaseInterval MaxInterval JWKSCluster DiscoveryType TLSCertificates TrustedCA"
    " EnvironmentVariable InlineString InlineBytes CaCertificateProviderInstance ValuePrefix Forward QueryParam Cookie"
    " HeaderName PadForwardPayloadHeader Size"
)
_LISTS = frozenset(
    {"Sources", "Services", "Permissions", "Header", "Providers", "VerifyClaims", "HashPolicies", "Locations"}
)
"""One block of these is a list of one."""
_SPELLING = {name.lower(): name for text in (_NAMES_OF_ALL, *_FIELDS.values(), _INNER) for name in text.split()}


def checked(entries: Iterable[Any]) -> tuple[dict[str, Any], ...]:
    """The entries as Consul's API writes them. :raises ConfigError: for what Consul would not take."""
    found = tuple(_checked(one) for one in entries)
    if not found:
        raise ConfigError("there is no config entry in it")
    if len(found) > MOST_ENTRIES:
        raise ConfigError(f"{len(found)} entries are more than {MOST_ENTRIES}: simulate them in parts")
    return found


def name_of(entry: Mapping[str, Any]) -> str:
    return f"{entry['Kind']} {entry['Name']}"


def namespace_of(entry: Mapping[str, Any]) -> str:
    return str(entry.get("Namespace") or "default").lower()


def partition_of(entry: Mapping[str, Any]) -> str:
    return str(entry.get("Partition") or "default").lower()


def _checked(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError("a config entry is an object with Kind and Name")
    entry: dict[str, Any] = _spelled(raw)
    kind = entry.get("Kind")
    if kind not in KINDS:
        raise ConfigError(f"the kind {kind!r} cannot be simulated; those that concern a gateway are {', '.join(KINDS)}")
    if kind in ("mesh", "proxy-defaults"):
        entry.setdefault("Name", "global" if kind == "proxy-defaults" else "mesh")
    if not isinstance(entry.get("Name"), str) or not entry["Name"]:
        raise ConfigError(f"the {kind} entry has no Name")
    known = set(f"{_NAMES_OF_ALL} {_FIELDS[kind]}".split())
    for key in entry.keys() - known:
        raise ConfigError(f"{name_of(entry)} has the field {key!r}, which no {kind} entry has")
    if kind == "service-intentions":
        for problem in _wrong_sources(entry):
            raise ConfigError(f"{name_of(entry)}: {problem}")
    return entry


def _wrong_sources(entry: Mapping[str, Any]) -> Iterator[str]:
    sources = entry.get("Sources")
    if not isinstance(sources, list) or not sources:
        yield "it has no Sources; an entry without any is deleted, not written"
        return
    seen = set()
    for number, source in enumerate(sources, 1):
        if not isinstance(source, Mapping) or not isinstance(source.get("Name"), str) or not source["Name"]:
            yield f"source {number} has no Name"
            continue
        one = tuple(str(source.get(key) or "") for key in ("Name", "Namespace", "Partition", "Peer", "SamenessGroup"))
        if one in seen:
            yield f"the source {source['Name']} is in it twice"
        seen.add(one)
        action, permissions = source.get("Action"), source.get("Permissions")
        if permissions and action:
            yield f"the source {source['Name']} has an Action and Permissions; Consul takes one of them"
        if permissions and entry["Name"] == "*":
            yield "an entry for `*` has no Permissions"
        if not permissions and action not in ("allow", "deny"):
            yield f"the source {source['Name']} has the Action {action!r}; it is allow or deny"


def _spelled(value: Any) -> Any:
    """Every key that is known in Consul's own spelling."""
    if isinstance(value, list | tuple):
        return [_spelled(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        name = _SPELLING.get(str(key).replace("_", "").lower(), str(key))
        if name in _LISTS and isinstance(inner, Mapping) and not (name == "Header" and _is_location(inner)):
            inner = [inner]
        found[name] = _subsets(inner) if name == "Subsets" else inner if name in _FREE else _spelled(inner)
    return found


def _is_location(header: Mapping[str, Any]) -> bool:
    """``Header`` of a jwt-provider's location is one object, that of a permission is a list."""
    keys = {str(key).replace("_", "").lower() for key in header}
    return bool(keys & {"valueprefix", "forward"}) or keys == {"name"}


def _subsets(value: Any) -> Any:
    return {key: _spelled(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
