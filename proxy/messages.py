"""The frames between the control process and its workers: what is asked, what is reported, and in which version.

``ToWorker`` and ``ToControl`` list which go where. What they carry about services is in :mod:`proxy.model`; how they
travel, in :mod:`proxy.frames`.
"""

from __future__ import annotations

import msgspec

from proxy.model import Mesh, Service, ServiceName

PROTOCOL_VERSION = 6
"""Raised whenever a frame changes its meaning; a worker of another version is drained, never driven."""


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


class Start(msgspec.Struct, frozen=True, tag="start"):
    """The first frame, once."""

    gateway: str
    """The gateway's service ID."""
    worker: int
    listeners: tuple[Listener, ...]
    limits: Limits = Limits()
    access_log_fd: int = -1
    """Where access log lines go; -1 is nowhere."""
    audit_log_fd: int = -1
    """Where lines of the audit log go; -1 is nowhere."""
    audit_allowed: bool = False
    """Everybody who is let in has a line there, not only the first of each caller."""
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


class AuditLogTarget(msgspec.Struct, frozen=True, tag="audit_log_target"):
    """Lines of the audit log go elsewhere from now on; the descriptor as with :class:`AccessLogTarget`."""

    descriptor: bool


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


class Kill(msgspec.Struct, frozen=True, tag="kill"):
    """End live connections for an operator (``CloseReason.KILLED``); answered with :class:`Killed`.

    Those that have everything which is set; nothing is ended when nothing is set.
    """

    id: int
    number: int = 0
    service: str = ""
    source: str = ""
    """The caller's SPIFFE ID, or its name as a :class:`Count` has it."""
    detail: str = ""
    """For the access log."""


class Recall(msgspec.Struct, frozen=True, tag="recall"):
    """Asks what has ended lately, the newest first, and which endpoints are left out."""

    id: int
    number: int = 0
    """Of the connection; 0 is any."""
    service: ServiceName | None = None
    """``None`` is any, and then no endpoint is told."""
    allowed: bool = True
    """Also those that policy had let in."""
    limit: int = 100


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """A worker introduces itself: after ``Start``, or to a new control process that adopts it."""

    version: int
    pid: int
    worker: int
    gateway: str
    generation: int
    listeners: tuple[str, ...] = ()
    """The addresses of its listening sockets, in the order in which their descriptors travel with this frame."""
    code: str = ""
    """What its modules run as, for people: compiled by what, or interpreted and why."""


class Listening(msgspec.Struct, frozen=True, tag="listening"):
    """A :class:`Listen` is in force."""

    addresses: tuple[str, ...]


class KeysWanted(msgspec.Struct, frozen=True, tag="keys_wanted"):
    """Requests were refused whose tokens name keys that these providers do not have, as far as the worker knows."""

    providers: tuple[str, ...]


class Pong(msgspec.Struct, frozen=True, tag="pong"):
    id: int


class Problem(msgspec.Struct, frozen=True):
    """Something of an Update that the worker could not use; what it had before stays in force."""

    service: ServiceName | None
    """``None``: the mesh settings."""
    message: str


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """Live connections, or requests on them, that one update has ended."""

    service: str
    source: str
    """As of a :class:`Count`."""
    reason: str
    """``revoked`` or ``unlinked``."""
    number: int


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """Everything up to ``generation`` is in force for new and live connections."""

    generation: int
    problems: tuple[Problem, ...] = ()
    revoked: int = 0
    """Live connections that this update ended."""
    ended: tuple[Ended, ...] = ()
    """The same by service and source, and those of services that are no longer linked."""


class Count(msgspec.Struct, frozen=True, array_like=True):
    """Totals since the worker started, for one combination of labels."""

    service: str
    """Empty when the connection did not get as far as a known server name."""
    source: str
    """The caller's ``ServiceName`` as text (``peer:name`` across a peering); empty when not authenticated."""
    reason: str
    """A :class:`proxy.model.CloseReason`; empty for connections that are still open."""
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


DURATION_BOUNDS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0
)  # fmt: skip
"""Upper bounds of the buckets that durations of requests are counted in, seconds."""


class RequestCount(msgspec.Struct, frozen=True, array_like=True):
    """Requests that have ended since the worker started, for one combination of labels."""

    service: str
    source: str
    """As of a :class:`Count`."""
    code_class: str
    """``2xx`` ...; ``none``: nothing was answered."""
    reason: str
    """A :class:`proxy.model.CloseReason`."""
    requests: int


class DurationCount(msgspec.Struct, frozen=True, array_like=True):
    """How long requests of one service took that were answered alike, since the worker started."""

    service: str
    code_class: str
    buckets: tuple[int, ...]
    """As many more than there are ``DURATION_BOUNDS_S``, by one: those that took longer than all of them. Each request
    is in one."""
    sum_s: float


class Counters(msgspec.Struct, frozen=True, tag="counters"):
    """Absolute totals of one worker; sent about once a second while they change."""

    counts: tuple[Count, ...]
    open_connections: int
    pending_handshakes: int
    accepted: int
    policy_closed: int = 0
    dials: tuple[DialCount, ...] = ()
    """Of services that had any trouble."""
    requests: tuple[RequestCount, ...] = ()
    durations: tuple[DurationCount, ...] = ()
    access_log_lines_dropped: int = 0
    log_lines_dropped: int = 0
    """Of the worker's own log, because standard error did not take them."""
    audit_log_lines_dropped: int = 0
    open_files: int = 0
    """File descriptors; 0 if that cannot be told."""
    most_files: int = 0
    """As many as it may have; 0 is no limit."""


class LiveRequest(msgspec.Struct, frozen=True):
    """A request under way, as shown to operators."""

    method: str
    path: str
    """Without the query, which may hold what is nobody's business."""
    authority: str
    protocol: str
    """``HTTP/1.1``, ``HTTP/2``."""
    opened_at_s: float
    """Unix time."""
    phase: str
    """``seeking``, ``asked`` or ``answering``."""
    endpoint: str = ""
    status: int = 0
    """Of the response, once it has begun."""
    bytes_received: int = 0
    """Of its body, from the client."""
    bytes_sent: int = 0
    intention: str = ""
    request_id: str = ""
    caller: str = ""
    """``peer:name`` of who asks, on the connection of a mesh gateway; otherwise it is that of the connection."""


MOST_LIVE_REQUESTS = 100
"""Of one connection that are shown."""


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
    caller: str = ""
    """As ``source`` of a :class:`Count`."""
    state: str = ""
    """A :class:`proxy.connection.State`."""
    quiet_s: float = 0.0
    """Seconds since a byte last moved, to about a second."""
    bytes_per_s: float = 0.0
    """Both ways together, over about the last second."""
    requests: int | None = None
    """Taken so far; ``None`` at layer 4."""
    live_requests: tuple[LiveRequest, ...] = ()
    """The oldest first, at most ``MOST_LIVE_REQUESTS``."""


class ConnectionPage(msgspec.Struct, frozen=True, tag="connections"):
    id: int
    connections: tuple[Connection, ...]
    more: bool


class Killed(msgspec.Struct, frozen=True, tag="killed"):
    id: int
    connections: tuple[Connection, ...]
    """As they were just before."""


class Recollection(msgspec.Struct, frozen=True, tag="recollection"):
    id: int
    records: tuple[str, ...]
    """Lines of the access log in its built-in form (JSON)."""
    left_out: tuple[str, ...] = ()
    """Endpoints of the service that get no connections for a while, because dialling them failed again and again."""


ToWorker = Start | Update | AccessLogTarget | AuditLogTarget | Drain | Query | Kill | Listen | Ping | Recall
ToControl = Hello | Applied | Counters | ConnectionPage | KeysWanted | Killed | Listening | Pong | Recollection
