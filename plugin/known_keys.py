"""Names that can be mistyped: keys of ``Proxy.Config`` and environment variables, and what was probably meant.

Where an unknown key is an error and where a warning is in docs/decisions/051.
Source of the keys: https://developer.hashicorp.com/consul/docs/reference/proxy/envoy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping

from plugin.errors import ConfigError

_KEEPALIVE = "envoy_gateway_remote_tcp_"
KEYS: dict[str, str] = {
    "connect_timeout_ms": "5000, or what ConnectTimeout of a resolver says",
    f"{_KEEPALIVE}enable_keepalive": "false",
    f"{_KEEPALIVE}keepalive_time": "the kernel's",
    f"{_KEEPALIVE}keepalive_interval": "the kernel's",
    f"{_KEEPALIVE}keepalive_probes": "the kernel's",
    "envoy_gateway_no_default_bind": "false",
    "envoy_gateway_bind_tagged_addresses": "false",
    "envoy_gateway_bind_addresses": "none",
}
"""That have an effect here, with their defaults."""
_OLD = {
    f"envoy_mesh_gateway_{name}": f"envoy_gateway_{name}"
    for name in ("no_default_bind", "bind_tagged_addresses", "bind_addresses")
}
OF_ENVOY = frozenset(
    {
        "balance_inbound_connections",
        "bind_address",
        "bind_port",
        "envoy_bootstrap_json_tpl",
        "envoy_cluster_json",
        "envoy_dns_discovery_type",
        "envoy_dogstatsd_url",
        "envoy_extra_static_clusters_json",
        "envoy_extra_static_listeners_json",
        "envoy_extra_stats_sinks_json",
        "envoy_hcp_metrics_bind_socket_dir",
        "envoy_listener_json",
        "envoy_listener_tracing_json",
        "envoy_local_cluster_json",
        "envoy_prometheus_bind_addr",
        "envoy_public_listener_json",
        "envoy_ready_bind_addr",
        "envoy_stats_bind_addr",
        "envoy_stats_config_json",
        "envoy_stats_flush_interval",
        "envoy_stats_tags",
        "envoy_statsd_url",
        "envoy_telemetry_collector_bind_socket_dir",
        "envoy_tracing_json",
        "local_connect_timeout_ms",
        "local_idle_timeout_ms",
        "local_request_timeout_ms",
        "max_inbound_connections",
        "protocol",
        "xds_fetch_timeout_ms",
    }
)
"""That Consul or Envoy know, and that have no effect on this gateway."""
_VARIABLES = frozenset(
    {
        "CONSUL_HTTP_ADDR",
        "CONSUL_HTTP_TOKEN",
        "CONSUL_HTTP_TOKEN_FILE",
        "CONSUL_HTTP_AUTH",
        "CONSUL_HTTP_SSL",
        "CONSUL_HTTP_SSL_VERIFY",
        "CONSUL_CACERT",
        "CONSUL_CAPATH",
        "CONSUL_CLIENT_CERT",
        "CONSUL_CLIENT_KEY",
        "CONSUL_TLS_SERVER_NAME",
        "CONSUL_NAMESPACE",
        "CONSUL_PARTITION",
        "CONSUL_TGW_ADMIN_TOKEN",
    }
)
_OTHER_VARIABLES = frozenset(
    {
        "CONSUL_GRPC_ADDR",
        "CONSUL_GRPC_CACERT",
        "CONSUL_GRPC_CAPATH",
        "CONSUL_LICENSE",
        "CONSUL_LICENSE_PATH",
        "CONSUL_TGW_CACHE",
        "CONSUL_TGW_INHERITED",
        "CONSUL_TGW_REHEARSAL",
        "CONSUL_TGW_TEST_SCALE",
    }
)
_ALIKE = 0.85
"""Of what somebody else wrote, for another program as likely as not, only this much likeness counts as a mistake."""


def canonical(key: str) -> str:
    """The newer name of a key that has an older one."""
    return _OLD.get(key, key)


def probably(name: str, known: Iterable[str], *, alike: float = 0.6) -> str:
    """The known name that ``name`` is most like; empty when it is like none."""
    return next(iter(difflib.get_close_matches(name, sorted(known), 1, alike)), "")


def unknown_keys(config: Mapping[str, object]) -> Iterator[str]:
    """A sentence for each key that neither this gateway nor Envoy knows."""
    for key in config:
        if key not in KEYS and key not in _OLD and key not in OF_ENVOY:
            meant = probably(key, {*KEYS, *OF_ENVOY})
            yield f"{key} is no key of Proxy.Config" + (f"; did you mean {meant}?" if meant else "")


def check_own_config(config: Mapping[str, object]) -> None:
    """Of ``--proxy-config``. :raises ConfigError: when a key is unknown."""
    for sentence in unknown_keys(config):
        hint = "" if sentence.endswith("?") else f"; those that have an effect are {', '.join(KEYS)}"
        raise ConfigError(f"--proxy-config: {sentence}{hint}")


def doubtful_keys(own: Mapping[str, object], shared: Mapping[str, object]) -> Iterator[str]:
    """Warnings about keys that somebody else has written: into the gateway's registration (``own``), where every
    unknown key is one, and into proxy-defaults, which are for all proxies: only what looks like a key of gateways."""
    for sentence in unknown_keys(own):
        yield f"Proxy.Config of the registration: {sentence}"
    for key in shared:
        if key in KEYS or key in _OLD or key in OF_ENVOY:
            continue
        meant = probably(key, KEYS, alike=_ALIKE)
        if meant or key.startswith("envoy_gateway_"):
            known = f"; did you mean {meant}?" if meant else ""
            yield f"Config of proxy-defaults: {key} is no key of Proxy.Config{known}"


def doubtful_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Warnings about variables that nobody reads and that look like one that is read."""
    for name in environment:
        if name.startswith("CONSUL_") and name not in _VARIABLES | _OTHER_VARIABLES:
            meant = probably(name, _VARIABLES, alike=_ALIKE)
            if meant and not environment.get(meant):
                yield f"the environment variable {name} is read by nobody; did you mean {meant}?"
