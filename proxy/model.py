"""What is served: services, their endpoints, certificates and intentions, and what they share.

These types cross the process boundary in the frames of :mod:`proxy.messages` and are printed as JSON by
``consul-tgw snapshot``. They are immutable: a change is a new value, never an edit.

*Unknown is not empty.* ``Service.intentions`` is ``None`` while policy is not known (every source is
refused) and ``()`` when Consul said that there is none (the default action applies).
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from proxy.rules import Action, Intention, Normalization, TokenProvider


class CloseReason(enum.StrEnum):
    """Why a connection ended: one vocabulary for the access log, the metrics and the admin API.

    The first one that applies is kept; later ones are consequences.
    """

    CLIENT_EOF = "client_eof"
    """Both directions were finished, the client first."""
    UPSTREAM_EOF = "upstream_eof"
    """Both directions were finished, the external service first."""
    CLIENT_RESET = "client_reset"
    UPSTREAM_RESET = "upstream_reset"
    NO_BYTES = "no_bytes"
    """Closed before a byte was sent: a health check's TCP probe."""
    NOT_TLS = "not_tls"
    NO_SERVER_NAME = "no_server_name"
    UNKNOWN_SERVER_NAME = "unknown_server_name"
    NO_CERTIFICATE = "no_certificate"
    UNTRUSTED_CERTIFICATE = "untrusted_certificate"
    BAD_IDENTITY = "bad_identity"
    """A certificate of the mesh that is not one service of a known trust domain (agent, gateway, two names)."""
    TLS_FAILED = "tls_failed"
    """Any other failure of the client's handshake or of its TLS records."""
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    DENIED = "denied"
    """An intention, or the default, denies."""
    POLICY_UNKNOWN = "policy_unknown"
    """The intentions of the service are not known yet: nobody is let in."""
    REVOKED = "revoked"
    """It was allowed when it opened; a change of policy ended it."""
    UNLINKED = "unlinked"
    """The service is no longer linked to this gateway."""
    NO_ENDPOINTS = "no_endpoints"
    DIAL_FAILED = "dial_failed"
    DIAL_TIMEOUT = "dial_timeout"
    EXHAUSTED = "exhausted"
    """Nothing could be dialled because the gateway's own machine lacks descriptors, ports or memory."""
    UPSTREAM_TLS_FAILED = "upstream_tls_failed"
    IDLE = "idle"
    LIFETIME = "lifetime"
    OVER_LIMIT = "over_limit"
    DRAIN = "drain"
    KILLED = "killed"
    """Ended by an operator."""
    INTERNAL = "internal"
    STALE_STATE = "stale_state"
    """Consul has confirmed nothing for longer than ``--max-state-age``: nobody new is let in."""
    BAD_REQUEST = "bad_request"
    """The client breaks the rules of HTTP."""
    BAD_RESPONSE = "bad_response"
    """The external service breaks the rules of HTTP."""
    FLOOD = "flood"
    """The client keeps the letter of HTTP and misuses it: resets, pings, empty frames without end."""
    COMPLETED = "completed"
    """Of a request: the client was sent the whole response of the external service."""
    REDIRECTED = "redirected"
    """The client was told to come back with the path in its one form."""
    REQUEST_TIMEOUT = "request_timeout"
    """The external service did not answer within ``RequestTimeout``."""
    TOKEN_EXPIRED = "token_expired"
    """The token that let a stream in was no longer good."""


class ServiceName(msgspec.Struct, frozen=True, order=True):
    """A service of the catalog. Namespace and partition are ``default`` outside Consul Enterprise."""

    name: str
    namespace: str = "default"
    partition: str = "default"

    def __str__(self) -> str:
        if self.partition != "default":
            return f"{self.partition}/{self.namespace}/{self.name}"
        return self.name if self.namespace == "default" else f"{self.namespace}/{self.name}"


class _HoldsKey(msgspec.Struct, frozen=True):
    """Keeps private keys out of logs and tracebacks."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = [(name, getattr(self, name)) for name in self.__struct_fields__]
        return [(name, "<redacted>" if name == "private_key_pem" and value else value) for name, value in fields]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__rich_repr__())})"


class Leaf(_HoldsKey, frozen=True):
    """The certificate with which the gateway is a linked service (``/v1/agent/connect/ca/leaf/:service``)."""

    certificate_chain_pem: str
    """The leaf first, then its intermediates in chain order, without duplicates."""
    private_key_pem: str
    spiffe_id: str
    serial_number: str
    not_before_s: float
    """Unix time, seconds."""
    not_after_s: float
    """Unix time, seconds."""


class UpstreamTLS(_HoldsKey, frozen=True):
    """The second TLS session, to the external service. Present exactly when the link has a ``CAFile``."""

    ca_pem: str
    """One or more certificates; the only roots that are trusted."""
    certificate_chain_pem: str = ""
    """The client's own chain, leaf first; empty without mutual TLS."""
    private_key_pem: str = ""
    server_name: str = ""
    """Sent as SNI and checked against the certificate's SANs. Empty: neither sent nor checked, as in Consul."""


class Endpoint(msgspec.Struct, frozen=True):
    """One place where an instance of the external service answers."""

    address: str
    """An IP address, never a name: workers do not resolve."""
    port: int
    hostname: str = ""
    """The name that ``address`` was resolved from, if any."""
    weight: int = 1
    healthy: bool = True
    instance: str = ""
    """``node/service-id`` of the catalog, for logs."""

    def __str__(self) -> str:
        """``ip:port``, with the hostname it came from."""
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{address}:{self.port} ({self.hostname})" if self.hostname else f"{address}:{self.port}"


class BalancePolicy(enum.StrEnum):
    """``LoadBalancer.Policy`` of a service-resolver."""

    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    LEAST_REQUEST = "least_request"
    RING_HASH = "ring_hash"
    MAGLEV = "maglev"


class HashSource(enum.StrEnum):
    """What a hash policy of a service-resolver hashes. Only ``source_ip`` exists at layer 4."""

    SOURCE_IP = "source_ip"
    HEADER = "header"
    COOKIE = "cookie"
    QUERY_PARAMETER = "query_parameter"


class HashPolicy(msgspec.Struct, frozen=True):
    """One element of ``LoadBalancer.HashPolicies``, in the operator's order."""

    source: HashSource
    name: str = ""
    """The header, cookie or query parameter; empty for ``source_ip``."""
    terminal: bool = False
    """When this one yields a hash, the later ones are not looked at."""
    cookie_lifetime_s: float | None = None
    """Of a cookie: a caller that has none is given one, which lives so long (0: for a session) and is hashed.
    ``None``: none is given, and then there is nothing to hash (``CookieConfig``)."""
    cookie_path: str = ""
    """``Path`` of the cookie that is given; empty: it has none."""


class Balance(msgspec.Struct, frozen=True):
    policy: BalancePolicy = BalancePolicy.ROUND_ROBIN
    choice_count: int = 2
    """``least_request``: how many endpoints are compared."""
    minimum_ring_size: int = 1024
    """``ring_hash``: places on the ring, at least."""
    maximum_ring_size: int = 8 * 1024 * 1024
    hash_policies: tuple[HashPolicy, ...] = ()
    """``ring_hash`` and ``maglev``: what is hashed. Without any, a connection goes to a random place."""


class Keepalive(msgspec.Struct, frozen=True):
    """TCP keepalive towards the external service (``envoy_gateway_remote_tcp_keepalive_*``)."""

    time_s: int = 0
    """Idle seconds before the first probe; 0 leaves the kernel's value."""
    interval_s: int = 0
    probes: int = 0


class ServerName(msgspec.Struct, frozen=True):
    """One TLS server name that a service answers to, and where its connections go."""

    sni: str
    """Lower case; compared whole, never parsed."""
    endpoints: tuple[Endpoint, ...] = ()
    subset: str = ""
    peer: str = ""
    """For a name used by an importing peer: only that peer's trust bundle is accepted on it."""


class HTTPSettings(msgspec.Struct, frozen=True):
    """How the requests of one service are carried, when its protocol is of layer 7."""

    request_timeout_s: float = 15.0
    """From the end of the request until the response is complete; 0 means never."""
    max_request_head_bytes: int = 60 * 1024
    """Of a request line and its headers together (``MaxRequestHeadersKB``)."""
    rewrite_host: bool = True
    """A request to an instance that has a hostname gets that as its Host (``DisableAutoHostRewrite``)."""


class Service(msgspec.Struct, frozen=True):
    """A linked service, complete: a worker needs nothing else to serve it."""

    name: ServiceName
    leaf: Leaf
    server_names: tuple[ServerName, ...]
    intentions: tuple[Intention, ...] | None = None
    protocol: str = "tcp"
    http: HTTPSettings | None = None
    """``None``: its connections are carried whole and decided once, at layer 4."""
    importers: tuple[str, ...] = ()
    """Of layer 7: the peers whose callers may come through a mesh gateway of this cluster, under the service's own
    name. Those of a service of layer 4 have server names."""
    upstream_tls: UpstreamTLS | None = None
    balance: Balance = Balance()
    connect_timeout_s: float = 5.0
    idle_timeout_s: float = 0.0
    """Seconds without a byte in either direction; 0 means never."""
    half_closed_timeout_s: float = 3600.0
    """As ``idle_timeout_s``, of a connection that one side has ended; the default is Envoy's for any connection."""
    max_lifetime_s: float = 0.0
    """Seconds after which a connection is ended, busy or not; 0 means never. No connection lives longer, and each is
    ended a little earlier than that, by chance, so that those that came together do not come back together."""
    keepalive: Keepalive | None = None
    max_connections: int | None = None
    """Of the whole gateway, at a time; ``None`` leaves it to ``Limits.service_connections``."""


class LogPartForm(enum.StrEnum):
    """How the value of an operator is written."""

    TEXT = "text"
    JSON_TEXT = "json_text"
    """Within a JSON string."""
    JSON_VALUE = "json_value"
    """A JSON string, number or null of its own."""


class LogPart(msgspec.Struct, frozen=True, array_like=True):
    """A text, or the place of an operator's value; then ``text`` is what stood in its parentheses."""

    text: str
    operator: str = ""
    form: LogPartForm = LogPartForm.TEXT
    length: int = 0
    """So many characters of the value at most; 0 is no limit."""


class AccessLogFormat(msgspec.Struct, frozen=True):
    """What proxy-defaults say about a line of the access log."""

    parts: tuple[LogPart, ...] = ()
    """Empty: the built-in JSON line."""
    listener: bool = True
    """Also connections that came to no service (Consul's ``DisableListenerLogs`` turns them off)."""

    def uses(self, prefix: str) -> bool:
        """Whether an operator whose name begins with ``prefix`` is in it."""
        return any(part.operator.startswith(prefix) for part in self.parts)


class PeerBundle(msgspec.Struct, frozen=True):
    """What verifies callers of one cluster peer."""

    peer: str
    """The name this cluster gave the peer."""
    trust_domain: str
    roots_pem: tuple[str, ...]
    partition: str = "default"
    """The partition of that cluster which the peering is with: its callers are of no other."""


class Mesh(msgspec.Struct, frozen=True):
    """What all services share."""

    trust_domain: str
    """``<cluster id>.consul``, lower case."""
    datacenter: str
    roots_pem: tuple[str, ...]
    """Every root that Consul lists, active or not: an old one is trusted until Consul drops it."""
    default_action: Action | None = None
    """What happens when no intention matches; ``None`` while it is not known (refused)."""
    peer_bundles: tuple[PeerBundle, ...] = ()
    tls_min_version: str = "TLSv1_2"
    """``TLSv1_0`` ... ``TLSv1_3``, Consul's spelling (``mesh`` entry, ``TLS.Incoming``)."""
    tls_max_version: str = "TLSv1_3"
    cipher_suites: tuple[str, ...] = ()
    """OpenSSL names, for TLS 1.2 and below; empty means the built-in choice."""
    normalization: Normalization = Normalization()
    sanitize_client_cert_header: bool = False
    """``SanitizeXForwardedClientCert``: ``x-forwarded-client-cert`` is neither passed on nor added."""
    token_providers: tuple[TokenProvider, ...] = ()
    """Those that intentions of linked services name."""
    access_log: AccessLogFormat | None = None
    """``None``: the built-in JSON line, for every connection."""
    stale: bool = False
    """Consul has not confirmed this state for longer than the operator allows: nobody new is let in."""
    max_state_age_s: float = 0.0
    """Seconds after which a worker without a control process lets nobody new in; 0 means never."""
