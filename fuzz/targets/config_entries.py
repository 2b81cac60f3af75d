"""Any JSON as a config entry is a value or an error that names the place, and nothing is wider than its text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from fuzz.draw import Draw
from plugin.assemble.access_logs import access_log_choice
from plugin.assemble.http_settings import http_settings
from plugin.assemble.intentions import named_providers, read_intentions, requirements_of
from plugin.assemble.links import linked_services
from plugin.assemble.mesh_http import mesh_http
from plugin.assemble.mesh_tls import incoming_tls
from plugin.assemble.proxy_config import upstream_config
from plugin.assemble.resolver import balance, connect_timeout, half_closed_timeout, idle_timeout, max_lifetime
from plugin.assemble.token_providers import answered, token_providers
from plugin.consul import api
from plugin.consul.client import decode_rows
from plugin.consul.strict import NotUnderstood
from plugin.consul.transport import Reply
from plugin.errors import ConsulUnavailable
from plugin.facts import Fact, MeshFacts
from plugin.jwks.provider import FileKeys, RemoteKeys, name_of, read_provider
from proxy.rules import Action, EscapedSlashes, Intention, Match, Permission

CODE = (
    "plugin.assemble.http_settings",
    "plugin.assemble.intentions",
    "plugin.assemble.mesh_http",
    "plugin.assemble.permissions",
    "plugin.assemble.resolver",
    "plugin.assemble.token_providers",
    "plugin.jwks.keyset",
    "plugin.jwks.provider",
)

_NAMES = re.findall(
    r"\S+",
    """Kind Name Namespace Services CAFile CertFile KeyFile SNI DisableAutoHostRewrite Protocol Destination Addresses
    Port MaxInboundConnections MaxRequestHeadersKB Meta Subsets Filter OnlyPassing DefaultSubset ConnectTimeout
    RequestTimeout LoadBalancer Policy HashPolicies Field FieldValue SourceIP Terminal CookieConfig Session TTL Path
    LeastRequestConfig ChoiceCount RingHashConfig MinimumRingSize MaximumRingSize Config protocol AccessLogs Enabled
    JSONFormat TextFormat TLS Incoming TLSMinVersion CipherSuites HTTP SanitizeXForwardedClientCert
    RequestNormalization InsecureDisablePathNormalization MergeSlashes PathWithEscapedSlashesAction
    HeadersWithUnderscoresAction SourceName DestinationName SourceSamenessGroup Precedence Action Permissions
    PathExact PathPrefix PathRegex Methods Header Present Exact Prefix Suffix Contains Regex Invert IgnoreCase JWT
    Providers VerifyClaims Value Issuer Audiences Locations QueryParam Cookie ValuePrefix Forward Forwarding
    HeaderName PadForwardPayloadHeader ClockSkewSeconds CacheConfig Size JSONWebKeySet Local JWKS Filename Remote URI
    RequestTimeoutMs CacheDuration FetchAsynchronously RetryPolicy NumRetries RetryPolicyBackOff BaseInterval
    MaxInterval JWKSCluster DiscoveryType TLSCertificates CaCertificateProviderInstance TrustedCA EnvironmentVariable
    InlineString InlineBytes""",
)
_WORDS = re.findall(
    r"\S+",
    """allow deny web * / /a /( GET get http grpc tcp maglev ring_hash cookie header query_parameter source_ip 5s 1h x
    -1s ALLOW KEEP_UNCHANGED REJECT_REQUEST UNESCAPE_AND_FORWARD DROP_HEADER okta https://a/keys ftp://a
    eyJrZXlzIjpbXX0= TLSv1_3 stdout""",
)


def run(data: bytes) -> None:
    draw = Draw(data)
    kind = draw.choice(_KINDS)
    body = json.dumps([_json(draw, 0)]).encode() if draw.truth() else draw.rest()
    try:
        rows = decode_rows(Reply(200, 1, body, {}), kind, "/v1/config/kind")
    except ConsulUnavailable:
        return
    for row in rows:
        _READERS[kind](row)


def _json(draw: Draw, depth: int) -> Any:
    shape = draw.below(8 if depth < 6 else 4)
    if shape == 0:
        return draw.choice((None, True, False, 0, -1, 1.5, 2**70, ""))
    if shape == 1:
        return draw.below(256) - 8
    if shape == 2:
        return draw.text()
    if shape == 3:
        return draw.choice(_WORDS)
    if shape == 4:
        return [_json(draw, depth + 1) for _ in range(draw.below(4))]
    return {draw.choice(_NAMES): _json(draw, depth + 1) for _ in range(draw.below(6))}


def _gateway(row: api.TerminatingGatewayEntry) -> None:
    linked_services(row, ())


def _defaults(row: api.ServiceDefaults) -> None:
    for limit in (idle_timeout, half_closed_timeout, max_lifetime):
        assert limit(row).value >= 0
    settings = http_settings("http", api.LinkedService(name="a"), row, None).value
    assert settings is not None
    assert 0 < settings.max_request_head_bytes <= 8192 * 1024


def _resolver(row: api.ServiceResolver) -> None:
    assert connect_timeout(row).value >= 0
    settings = http_settings("grpc", api.LinkedService(name="a"), None, row).value
    assert settings is not None
    assert settings.request_timeout_s > 0
    for policy in balance(row).value.hash_policies:
        # They stand in a header that the gateway writes.
        assert not set(policy.cookie_path) & set(";\r\n\0")
        assert policy.cookie_lifetime_s is None or policy.cookie_lifetime_s >= 0


def _shared(row: api.ProxyDefaults) -> None:
    upstream_config({}, row.config or {})
    access_log_choice(row.access_logs)


def _mesh(row: api.MeshEntry) -> None:
    incoming_tls(row.tls.incoming if row.tls else None)
    read = mesh_http(row.http).normalization
    written = _field(row.http, "Incoming", "RequestNormalization")
    insecure = _field(written, "InsecureDisablePathNormalization") is True
    assert read.dot_segments is not insecure
    assert read.merge_slashes or insecure
    if read.escaped_slashes in (EscapedSlashes.UNESCAPE, EscapedSlashes.REDIRECT):
        assert str(_field(written, "PathWithEscapedSlashesAction")).startswith("UNESCAPE_AND_")


def _intention(row: api.IntentionMatch) -> None:
    read = read_intentions([row])
    (intention,) = read.intentions
    assert {one.provider for one in requirements_of(intention)} == named_providers([row])
    if intention.action is Action.ALLOW:
        assert row.action == "allow"
        assert not row.permissions
        assert row.jwt is None or intention.tokens
    for written, permission in zip(row.permissions or (), intention.permissions, strict=bool(intention.permissions)):
        _permission(written, permission)
    if _denies_by_mistake(intention):
        assert read.warnings


def _denies_by_mistake(intention: Intention) -> bool:
    nothing = intention.layer7 and not intention.permissions and not intention.tokens
    return nothing or any(one.unusable for one in intention.permissions)


def _permission(written: Any, permission: Permission) -> None:
    if permission.unusable:
        return
    assert set(written) <= {"Action", "HTTP", "JWT"}
    assert permission.action == written["Action"]
    http = written.get("HTTP") or {}
    assert set(http) <= {"PathExact", "PathPrefix", "PathRegex", "Methods", "Header"}
    assert (permission.path is Match.ANY) == (not any(http.get(f"Path{how}") for how in ("Exact", "Prefix", "Regex")))
    assert len(permission.headers) == len(http.get("Header") or ())
    assert bool(permission.methods) == bool(http.get("Methods"))
    assert (written.get("JWT") is None) == (not permission.tokens)


def _provider(row: Any) -> None:
    name = name_of(row)
    facts = MeshFacts(providers=Fact((row,), True), wanted_providers=frozenset({name}))
    (provider,) = token_providers(facts).providers
    assert bool(provider.keys_json) != bool(provider.problem)
    try:
        settings = read_provider(row)
    except NotUnderstood:
        assert not provider.keys_json
        assert answered(facts)
        return
    assert (settings.provider.issuer, list(settings.provider.audiences)) == (
        row.get("Issuer", ""),
        row.get("Audiences") or [],
    )
    assert settings.provider.clock_skew_s >= 0
    source = settings.source
    if isinstance(source, RemoteKeys):
        assert source.uri.lower().startswith(("http://", "https://"))
        assert 0 < source.timeout_s <= 60
        assert source.cache_s >= 1
        assert 0 < source.retry_first_s <= source.retry_longest_s
    if isinstance(source, (RemoteKeys, FileKeys)):
        assert not answered(facts) or not name


def _field(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


_READERS: Mapping[Any, Callable[[Any], None]] = {
    api.TerminatingGatewayEntry: _gateway,
    api.ServiceDefaults: _defaults,
    api.ServiceResolver: _resolver,
    api.ProxyDefaults: _shared,
    api.MeshEntry: _mesh,
    api.IntentionMatch: _intention,
    Any: _provider,
}
_KINDS = tuple(_READERS)
