"""How the requests of a linked service are carried, from its entries in Consul.

Sources: https://developer.hashicorp.com/consul/docs/reference/config-entry/service-resolver (RequestTimeout),
.../service-defaults (Protocol, MaxRequestHeadersKB) and .../terminating-gateway (DisableAutoHostRewrite).
"""

from __future__ import annotations

from plugin.assemble.resolver import Setting, request_timeout
from plugin.consul.api import LinkedService, ServiceDefaults, ServiceResolver
from proxy.model import HTTPSettings

HTTP_PROTOCOLS = frozenset({"http", "http2", "grpc"})

_LARGEST_HEAD_KB = 8192
"""As Envoy takes it (``max_request_headers_kb``)."""


def http_settings(
    protocol: str, link: LinkedService, defaults: ServiceDefaults | None, resolver: ServiceResolver | None
) -> Setting[HTTPSettings | None]:
    """``None`` when ``protocol`` (lower case) is none of HTTP."""
    if protocol not in HTTP_PROTOCOLS:
        return Setting(None)
    plain = HTTPSettings()
    timeout, head = request_timeout(resolver), _largest_head(defaults, plain.max_request_head_bytes)
    settings = HTTPSettings(
        request_timeout_s=plain.request_timeout_s if timeout.value is None else timeout.value,
        max_request_head_bytes=head.value,
        rewrite_host=not link.disable_auto_host_rewrite,
    )
    return Setting(settings, (*timeout.warnings, *head.warnings))


def _largest_head(defaults: ServiceDefaults | None, default_bytes: int) -> Setting[int]:
    most_kb = defaults.max_request_headers_kb if defaults is not None else None
    if not most_kb:
        return Setting(default_bytes)
    if 0 < most_kb <= _LARGEST_HEAD_KB:
        return Setting(most_kb * 1024)
    what = f"MaxRequestHeadersKB of service-defaults is {most_kb}, which is not between 1 and {_LARGEST_HEAD_KB}"
    return Setting(default_bytes, (f"{what}; {default_bytes // 1024} applies. Correct the entry",))
