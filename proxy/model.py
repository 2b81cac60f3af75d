"""The hand-over: everything a worker is told, and everything it reports back.

These types cross the process boundary as msgpack (``frames.py``) and are printed as JSON by
``consul-tgw snapshot``. They are immutable: a change is a new value, never an edit.

*Unknown is not empty.* ``Service.intentions`` is ``None`` while policy is not known (every source is
refused) and ``()`` when Consul said that there is none (the default action applies).
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

PROTOCOL_VERSION = 2
"""Raised whenever a frame changes its meaning; a worker of another version is drained, never driven."""


class Action(enum.StrEnum):
    ALLOW = "allow"
    DENY = "deny"


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


class Service(msgspec.Struct, frozen=True):
    """A linked service, complete: a worker needs nothing else to serve it."""

    name: ServiceName
    leaf: Leaf
    server_names: tuple[ServerName, ...]
    intentions: tuple[Intention, ...] | None = None
    protocol: str = "tcp"
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
    access_log: AccessLogFormat | None = None
    """``None``: the built-in JSON line, for every connection."""
    stale: bool = False
    """Consul has not confirmed this state for longer than the operator allows: nobody new is let in."""
    max_state_age_s: float = 0.0
    """Seconds after which a worker without a control process lets nobody new in; 0 means never."""


class Limits(msgspec.Struct, frozen=True):
    """What the gateway allows; 0 is no limit. Each of its workers has an equal share of what is counted."""

    workers: int = 1
    """How many share."""
    connections: int = 10_000
    """At a time, whatever they are doing."""
    service_connections: int = 7_500
    """Of one service that has no limit of its own."""
    pending_handshakes: int = 1_000
    handshake_timeout_s: float = 10.0
    """For the whole handshake."""
    stalled_bytes: int = 64 * 1024 * 1024
    """Beyond so many bytes that slow receivers have not taken yet, everybody is read in small pieces."""
    drain_timeout_s: float = 30.0
    drain_window_s: float = 0.0
    """As :class:`Drain`, when the worker itself is asked to stop (SIGTERM)."""


class Listener(msgspec.Struct, frozen=True):
    """A bound, listening socket that the worker inherited."""

    fd: int
    address: str
    """``ip:port`` as bound, for logs."""


# --- control process -> worker -------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first frame, once."""

    gateway: str
    """The gateway's service ID."""
    worker: int
    listeners: tuple[Listener, ...]
    limits: Limits = Limits()
    access_log_fd: int = -1
    """Where access log lines go; -1 is nowhere."""
    handover_path: str = ""
    """Unix socket on which the worker waits for a new control process when it has lost its own."""
    log_level: str = "info"
    log_format: str = "text"
    """``text`` or ``json``: how the worker's own log lines look on standard error."""


class Update(msgspec.Struct, frozen=True, tag="update"):
    """A delta. ``full`` replaces everything known before."""

    generation: int
    mesh: Mesh | None = None
    """``None``: unchanged."""
    upserts: tuple[Service, ...] = ()
    removals: tuple[ServiceName, ...] = ()
    """Services that are no longer linked; their live connections end."""
    full: bool = False
    keep: tuple[ServiceName, ...] = ()
    """With ``full``: services that are linked but cannot be assembled (now). If the worker serves one, it goes on
    with the state it has; a worker that was taken over must not lose them."""


class AccessLogTarget(msgspec.Struct, frozen=True, tag="access_log_target"):
    """Access log lines go elsewhere from now on."""

    descriptor: bool
    """A file descriptor travels with this frame (``SCM_RIGHTS``); without one, lines go nowhere."""


class Listen(msgspec.Struct, frozen=True, tag="listen"):
    """From now on listen on exactly these sockets; their descriptors travel with this frame (``SCM_RIGHTS``).

    A socket that the worker has already goes on; one that is not among them is closed once its queue is empty. Live
    connections stay.
    """

    addresses: tuple[str, ...]
    """``ip:port`` of each, in the order of the descriptors; the same address may be there more than once."""


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Accept nothing more; exit when the last connection ends. When the time is over, end those that are left."""

    timeout_s: float
    window_s: float = 0.0
    """What is left after ``timeout_s`` is ended one by one, spread evenly over this time."""


class Ping(msgspec.Struct, frozen=True, tag="ping"):
    """Asks whether the worker's event loop runs; answered with :class:`Pong`."""

    id: int


class Query(msgspec.Struct, frozen=True, tag="query"):
    """Asks for a page of live connections, oldest first."""

    id: int
    after: int = 0
    """Connections with a greater number than this."""
    limit: int = 1_000


# --- worker -> control process -------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """A worker introduces itself: after ``Start``, or to a new control process that adopts it."""

    version: int
    pid: int
    worker: int
    gateway: str
    generation: int
    listeners: tuple[str, ...] = ()
    """The addresses of its listening sockets, in the order in which their descriptors travel with this frame."""


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """A :class:`Listen` is in force."""

    addresses: tuple[str, ...]


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    id: int


class Problem(msgspec.Struct, frozen=True):
    """Something of an Update that the worker could not use; what it had before stays in force."""

    service: ServiceName | None
    """``None``: the mesh settings."""
    message: str


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """Everything up to ``generation`` is in force for new and live connections."""

    generation: int
    problems: tuple[Problem, ...] = ()
    revoked: int = 0
    """Live connections that this update ended."""


class Count(msgspec.Struct, frozen=True, array_like=True):
    """Totals since the worker started, for one combination of labels."""

    service: str
    """Empty when the connection did not get as far as a known server name."""
    source: str
    """The caller's ``ServiceName`` as text (``peer:name`` across a peering); empty when not authenticated."""
    reason: str
    """A :class:`CloseReason`; empty for connections that are still open."""
    connections: int
    bytes_received: int
    """From the client towards the external service."""
    bytes_sent: int


class DialCount(msgspec.Struct, frozen=True, array_like=True):
    """Totals of one service since the worker started."""

    service: str
    failures: int = 0
    """Attempts that an endpoint refused or did not answer; one connection may make several."""
    ejections: int = 0
    """How often an endpoint was left out for a while."""
    shortages: int = 0
    """Attempts that failed for want of something on the gateway's own machine."""


class Counters(msgspec.Struct, frozen=True, tag="counters"):
    """Absolute totals of one worker; sent about once a second while they change."""

    counts: tuple[Count, ...]
    open_connections: int
    pending_handshakes: int
    accepted: int
    policy_closed: int = 0
    dials: tuple[DialCount, ...] = ()
    """Of services that had any trouble."""
    access_log_lines_dropped: int = 0
    log_lines_dropped: int = 0
    """Of the worker's own log, because standard error did not take them."""


class Connection(msgspec.Struct, frozen=True):
    """A live connection, as shown to operators."""

    number: int
    client: str
    source: str
    service: str
    sni: str
    endpoint: str
    opened_at_s: float
    bytes_received: int
    bytes_sent: int
    intention: str


class ConnectionPage(msgspec.Struct, frozen=True, tag="connections"):
    id: int
    connections: tuple[Connection, ...]
    more: bool


ToWorker = Start | Update | AccessLogTarget | Drain | Query | Listen | Ping
ToControl = Hello | Applied | Counters | ConnectionPage | Listening | Pong
