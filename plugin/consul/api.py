"""The answers of Consul's HTTP API, as far as the gateway reads them.

Field names are Consul's, in Python's spelling; unknown fields are ignored so that newer agents keep working. Every
field that some Consul version omits has the default that the omission means. Sources: the pages of
https://developer.hashicorp.com/consul/api-docs named at each type.
"""

from __future__ import annotations

from typing import Any

import msgspec


def _pascal(name: str) -> str:
    return _SPECIAL.get(name) or "".join(part.capitalize() for part in name.split("_"))


_SPECIAL = {
    "id": "ID",
    "check_id": "CheckID",
    "service_id": "ServiceID",
    "sni": "SNI",
    "ca_file": "CAFile",
    "tls": "TLS",
    "http": "HTTP",
    "jwt": "JWT",
    "source_ns": "SourceNS",
    "destination_ns": "DestinationNS",
    "active_root_id": "ActiveRootID",
    "signing_key_id": "SigningKeyID",
    "cert_pem": "CertPEM",
    "private_key_pem": "PrivateKeyPEM",
    "service_uri": "ServiceURI",
    "tls_min_version": "TLSMinVersion",
    "tls_max_version": "TLSMaxVersion",
    "json_format": "JSONFormat",
    "max_request_headers_kb": "MaxRequestHeadersKB",
    "peer_ca_pems": "PeerCAPems",
    "ttl": "TTL",
}


class _Answer(msgspec.Struct, frozen=True, kw_only=True, rename=_pascal):
    pass


# --- config entries: GET /v1/config/:kind[/:name] ------------------------------------------------------------


class LinkedService(_Answer, frozen=True):
    """One element of ``terminating-gateway.Services``."""

    name: str
    """A service name or ``*``."""
    namespace: str = ""
    """Empty: that of the entry."""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    sni: str = ""
    disable_auto_host_rewrite: bool = False


class TerminatingGatewayEntry(_Answer, frozen=True):
    kind: str = "terminating-gateway"
    name: str = ""
    namespace: str = ""
    """Empty: this Consul has no namespaces (CE), which is the same as ``default``."""
    partition: str = "default"
    services: tuple[LinkedService, ...] | None = None
    meta: dict[str, str] | None = None


class Destination(_Answer, frozen=True):
    """``service-defaults.Destination`` (Consul 1.13 and later)."""

    addresses: tuple[str, ...] | None = None
    port: int = 0


class ServiceDefaults(_Answer, frozen=True):
    kind: str = "service-defaults"
    name: str = ""
    namespace: str = "default"
    partition: str = "default"
    protocol: str = ""
    destination: Destination | None = None
    max_inbound_connections: int = 0
    max_request_headers_kb: int | None = None
    """KiB. Consul 1.21 does not take it; later ones do."""
    meta: dict[str, str] | None = None


class ResolverSubset(_Answer, frozen=True):
    filter: str = ""
    """A bexpr expression over the health entry (``Node``, ``Service``)."""
    only_passing: bool = False


class LeastRequestConfig(_Answer, frozen=True):
    choice_count: int = 0


class RingHashConfig(_Answer, frozen=True):
    minimum_ring_size: int = 0
    maximum_ring_size: int = 0


class CookieConfig(_Answer, frozen=True):
    session: bool = False
    ttl: str | int = 0
    """Nanoseconds, or a duration as text."""
    path: str = ""


class HashPolicy(_Answer, frozen=True):
    field: str = ""
    field_value: str = ""
    source_ip: bool = msgspec.field(name="SourceIP", default=False)
    terminal: bool = False
    cookie_config: CookieConfig | None = None


class LoadBalancer(_Answer, frozen=True):
    policy: str = ""
    least_request_config: LeastRequestConfig | None = None
    ring_hash_config: RingHashConfig | None = None
    hash_policies: tuple[HashPolicy, ...] | None = None


class ServiceResolver(_Answer, frozen=True):
    kind: str = "service-resolver"
    name: str = ""
    namespace: str = "default"
    partition: str = "default"
    default_subset: str = ""
    subsets: dict[str, ResolverSubset] | None = None
    connect_timeout: str | int = 0
    """Go duration text (``"15s"``), or nanoseconds."""
    request_timeout: str | int = 0
    load_balancer: LoadBalancer | None = None
    meta: dict[str, str] | None = None


class ProxyAccessLogs(_Answer, frozen=True):
    """Of the registration of a proxy; what is not set is empty."""

    enabled: bool = False
    disable_listener_logs: bool = False
    type: str = ""
    path: str = ""
    json_format: str = ""
    text_format: str = ""


class AccessLogs(ProxyAccessLogs, frozen=True):
    type: str = "stdout"


class ProxyDefaults(_Answer, frozen=True):
    kind: str = "proxy-defaults"
    name: str = "global"
    config: dict[str, Any] | None = None
    access_logs: AccessLogs | None = None


class DirectionalTLS(_Answer, frozen=True):
    tls_min_version: str = ""
    tls_max_version: str = ""
    cipher_suites: tuple[str, ...] | None = None
    """IANA or OpenSSL names, as Consul accepts them."""


class MeshTLS(_Answer, frozen=True):
    incoming: DirectionalTLS | None = None
    outgoing: DirectionalTLS | None = None


class MeshEntry(_Answer, frozen=True):
    kind: str = "mesh"
    tls: MeshTLS | None = None
    http: Any = None
    """As JSON: what is wrong in it must not hide ``tls``."""
    meta: dict[str, str] | None = None


# --- catalog and health --------------------------------------------------------------------------------------


class CompoundName(_Answer, frozen=True):
    name: str
    namespace: str = "default"
    partition: str = "default"


class GatewayService(_Answer, frozen=True):
    """A row of ``GET /v1/catalog/gateway-services/:gateway``. Only names, kind and ``from_wildcard`` are to be
    believed: the TLS fields of an explicit link can be overwritten by those of ``*``."""

    service: CompoundName
    gateway_kind: str = ""
    service_kind: str = ""
    """``""``, ``service`` or ``destination``."""
    from_wildcard: bool = False


class Node(_Answer, frozen=True):
    node: str
    id: str = ""
    address: str = ""
    datacenter: str = ""
    meta: dict[str, str] | None = None
    tagged_addresses: dict[str, str] | None = None
    partition: str = ""
    peer_name: str = ""


class TaggedAddress(_Answer, frozen=True):
    address: str = ""
    port: int = 0


class Weights(_Answer, frozen=True):
    passing: int = 1
    warning: int = 1


class ConnectFlags(_Answer, frozen=True):
    native: bool = False


class ProxyMeshGateway(_Answer, frozen=True):
    mode: str = ""


class ProxyUpstream(_Answer, frozen=True):
    destination_type: str = ""
    destination_namespace: str = ""
    destination_partition: str = ""
    destination_peer: str = ""
    destination_name: str = ""
    datacenter: str = ""
    local_bind_address: str = ""
    local_bind_port: int = 0
    local_bind_socket_path: str = ""
    local_bind_socket_mode: str = ""
    mesh_gateway: ProxyMeshGateway | None = None


class ExposedPath(_Answer, frozen=True):
    listener_port: int = 0
    path: str = ""
    local_path_port: int = 0
    protocol: str = ""
    parsed_from_check: bool = False


class ProxyExpose(_Answer, frozen=True):
    checks: bool = False
    paths: tuple[ExposedPath, ...] | None = None


class TransparentProxy(_Answer, frozen=True):
    outbound_listener_port: int = 0
    dialed_directly: bool = False


class EnvoyExtension(_Answer, frozen=True):
    name: str = ""
    required: bool = False
    consul_version: str = ""
    envoy_version: str = ""


class InstanceProxy(_Answer, frozen=True):
    """Whose sidecar an instance is; the other fields are there for filters."""

    destination_service_name: str = ""
    destination_service_id: str = msgspec.field(name="DestinationServiceID", default="")
    local_service_address: str = ""
    local_service_port: int = 0
    local_service_socket_path: str = ""
    mode: str = ""
    envoy_extensions: tuple[EnvoyExtension, ...] | None = None
    upstreams: tuple[ProxyUpstream, ...] | None = None
    mesh_gateway: ProxyMeshGateway | None = None
    expose: ProxyExpose | None = None
    transparent_proxy: TransparentProxy | None = None
    access_logs: ProxyAccessLogs | None = None


class Instance(_Answer, frozen=True):
    id: str
    service: str
    kind: str = ""
    address: str = ""
    port: int = 0
    tags: tuple[str, ...] | None = None
    meta: dict[str, str] | None = None
    weights: Weights = Weights()
    enable_tag_override: bool = False
    tagged_addresses: dict[str, TaggedAddress] | None = None
    connect: ConnectFlags | None = None
    proxy: InstanceProxy | None = None
    socket_path: str = ""
    peer_name: str = ""
    namespace: str = "default"
    partition: str = "default"


class Check(_Answer, frozen=True):
    check_id: str
    status: str
    """``passing``, ``warning`` or ``critical`` (also ``maintenance`` in some answers)."""
    name: str = ""
    service_id: str = ""
    """Empty for a check of the whole node."""
    service_name: str = ""
    service_tags: tuple[str, ...] | None = None
    node: str = ""
    type: str = ""
    """``http``, ``tcp``, ``ttl`` and so on."""
    notes: str = ""
    output: str = ""
    """What the check said last."""
    interval: str = ""
    timeout: str = ""
    exposed_port: int = 0
    peer_name: str = ""


class HealthEntry(_Answer, frozen=True):
    """A row of ``GET /v1/health/service/:service``. Its fields, and those of its parts, are the selectors of filters:
    :mod:`plugin.assemble.bexpr_fields`."""

    node: Node
    service: Instance
    checks: tuple[Check, ...] = ()


# --- intentions ----------------------------------------------------------------------------------------------


class IntentionMatch(_Answer, frozen=True):
    """An element of ``GET /v1/connect/intentions/match?by=destination``."""

    source_name: str
    destination_name: str
    source_ns: str = "default"
    destination_ns: str = "default"
    source_partition: str = ""
    source_peer: str = ""
    source_sameness_group: str = ""
    """Consul Enterprise: stands for several partitions and peers."""
    action: str = ""
    """``allow``, ``deny``, or empty when there are Permissions."""
    permissions: Any = None
    """A list, as JSON: :class:`plugin.consul.strict.IntentionPermission`, read one by one."""
    jwt: Any = None
    """As JSON: :class:`plugin.consul.strict.RequiredJWT`."""
    precedence: int = 0


# --- peering -------------------------------------------------------------------------------------------------


class PeeringRemote(_Answer, frozen=True):
    partition: str = ""
    datacenter: str = ""


class Peering(_Answer, frozen=True):
    """A row of ``GET /v1/peerings`` (Consul 1.13 and later)."""

    name: str
    """What this cluster calls the other one."""
    state: str = ""
    """``PENDING``, ``ESTABLISHING``, ``ACTIVE``, ``FAILING``, ``DELETING`` or ``TERMINATED``."""
    peer_ca_pems: tuple[str, ...] | None = None
    """The roots of the other mesh, old and new ones during a rotation; none before the two have met."""
    peer_server_name: str = ""
    """``server.<datacenter>.peering.<trust domain>``, on the side that dials alone."""
    remote: PeeringRemote = PeeringRemote()


class Consumers(_Answer, frozen=True):
    peers: tuple[str, ...] | None = None


class ExportedService(_Answer, frozen=True):
    """A row of ``GET /v1/exported-services``: what the exported-services entries come to, without wildcards."""

    service: str
    namespace: str = ""
    partition: str = ""
    consumers: Consumers = Consumers()


class ExportConsumer(_Answer, frozen=True):
    peer: str = ""
    peer_name: str = ""
    """What ``peer`` was called at first."""
    partition: str = ""
    sameness_group: str = ""


class ExportRow(_Answer, frozen=True):
    name: str = ""
    """``*`` is every service of the namespace."""
    namespace: str = ""
    """``*`` is every namespace."""
    consumers: tuple[ExportConsumer, ...] | None = None


class ExportedServicesEntry(_Answer, frozen=True):
    """A config entry ``exported-services`` (Consul 1.13 and later); it has the name of its partition."""

    kind: str = "exported-services"
    name: str = ""
    services: tuple[ExportRow, ...] | None = None


# --- certificates --------------------------------------------------------------------------------------------


class Root(_Answer, frozen=True):
    id: str
    root_cert: str
    name: str = ""
    active: bool = False
    signing_key_id: str = ""
    """``aa:bb:...``, the subject key of what signs leaves: in a secondary datacenter, that of its intermediate."""
    intermediate_certs: tuple[str, ...] | None = None


class Roots(_Answer, frozen=True):
    """``GET /v1/agent/connect/ca/roots``."""

    active_root_id: str
    trust_domain: str
    roots: tuple[Root, ...] | None = None


class LeafCertificate(_Answer, frozen=True):
    """``GET /v1/agent/connect/ca/leaf/:service``. Never log it: it holds the private key."""

    serial_number: str
    cert_pem: str
    private_key_pem: str
    service: str
    service_uri: str
    valid_after: str
    """RFC 3339."""
    valid_before: str

    def __repr__(self) -> str:
        return f"LeafCertificate(service={self.service!r}, serial_number={self.serial_number!r})"
