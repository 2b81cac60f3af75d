"""The state of one gateway as operators see it: the answer of ``/api/status``, typed.

The command line decodes exactly these types, the metrics are computed from them. Nothing secret is in them. This module
only gathers; it decides nothing and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from plugin.assemble.peers import importers_of
from plugin.workers.counters import Dials
from proxy.messages import Counters
from proxy.model import Mesh, Service

if TYPE_CHECKING:
    from plugin.consul.poller import WatchState
    from plugin.workers.worker import Worker


class EndpointStatus(msgspec.Struct, frozen=True):
    address: str
    """``ip:port``."""
    hostname: str = ""
    healthy: bool = True
    weight: int = 1
    instance: str = ""


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    served: bool
    """Connections are carried, with the newest or with an earlier good state."""
    reasons: tuple[str, ...] = ()
    """What keeps it from being served with the newest state; empty when all is well."""
    warnings: tuple[str, ...] = ()
    """What a worker could not use, and files or watches whose newest read failed."""
    from_wildcard: bool = False
    protocol: str = ""
    server_names: tuple[str, ...] = ()
    endpoints: tuple[EndpointStatus, ...] = ()
    upstream_tls: bool = False
    intentions: int | None = None
    """``None`` while they are not known: every caller is refused."""
    leaf_expires_at_s: float = 0.0
    """Unix time, seconds; 0 without a leaf."""
    open_connections: int = 0
    dials: Dials = Dials()
    """What went wrong towards the external service since the gateway started."""


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A cluster peer whose callers can be verified."""

    name: str
    trust_domain: str
    partition: str
    roots: int
    services: tuple[str, ...]
    """The served ones that its callers may ask for."""


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    pid: int
    generation: int
    """The newest that it has in force."""
    adopted: bool
    draining: bool
    connected: bool
    started_at_s: float
    """When this control process started or adopted it, Unix time."""
    open_connections: int = 0
    open_files: int = 0
    """File descriptors at its last report; 0 while that is not known."""
    most_files: int = 0
    """As many as it may have; 0 is not known, or no limit."""
    code: str = ""
    """What its modules run as: compiled by what, or interpreted and why."""
    problems: tuple[str, ...] = ()


class WatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    known: bool
    index: int = 0
    age_s: float = 0.0
    """Seconds since the answer was last confirmed."""
    problem: str = ""
    note: str = ""
    """Why there is no value although nothing is wrong: the agent's Consul is too old to have one."""


class RegistrationStatus(msgspec.Struct, frozen=True, kw_only=True):
    wanted: bool
    registered: bool
    check: str = ""
    """``passing`` or ``critical``, as last reported to the agent."""
    problem: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    service_id: str
    address: str
    version: str
    consul_version: str = ""
    """Of the agent; empty while not known, which it stays for tokens without ``agent:read``."""
    pid: int
    started_at_s: float
    ready: bool
    not_ready: tuple[str, ...]
    generation: int
    datacenter: str
    trust_domain: str
    default_action: str
    """``allow``, ``deny``, or empty while not known (then callers without an intention are refused)."""
    registration: RegistrationStatus
    services: tuple[ServiceStatus, ...]
    workers: tuple[WorkerStatus, ...]
    watches: tuple[WatchStatus, ...]
    peers: tuple[PeerStatus, ...] = ()
    worker_restarts: int = 0
    root_expires_at_s: float = 0.0
    """When the first of the trusted roots ends, Unix time."""
    warnings: tuple[str, ...] = ()
    """Settings that all services share and that could not be used (mesh, proxy-defaults, Proxy.Config)."""
    phase: str = ""
    """Of the gateway's life (:class:`plugin.process.life.Phase`)."""
    state_age_s: float | None = None
    """Seconds since Consul last confirmed the state as a whole; ``None`` while nothing is known."""
    fact_ages_s: dict[str, float] = msgspec.field(default_factory=dict)
    """The same for each kind of fact; leaves and the default action, which are asked for rarely, are only here."""
    max_state_age_s: float = 0.0
    """``--max-state-age``; 0 is none."""
    too_old: bool = False
    """Older than that: new connections are denied."""
    restored_from_s: float = 0.0
    """Unix time at which the state was saved that this start began with, until Consul has confirmed it; else 0."""
    consul_away: str = ""
    """Why Consul is not asked at the moment, except whether it is back."""
    open_files: int = 0
    """File descriptors of the control process; 0 if that cannot be told."""
    most_files: int = 0
    """As many as it may have; 0 is no limit."""
    reloads: int = 0
    """How often all processes were replaced since the first start."""


def open_by_service(counters: Iterable[Counters]) -> dict[str, int]:
    """Live connections by service, over all workers."""
    result: dict[str, int] = {}
    for one in counters:
        for count in one.counts:
            if not count.reason:
                result[count.service] = result.get(count.service, 0) + count.connections
    return result


def service_status(
    service: Service,
    *,
    reasons: tuple[str, ...],
    warnings: tuple[str, ...],
    from_wildcard: bool,
    open_connections: int,
    dials: Dials,
) -> ServiceStatus:
    """Of a service that the workers have."""
    endpoints = dict.fromkeys(endpoint for name in service.server_names for endpoint in name.endpoints)
    return ServiceStatus(
        name=str(service.name),
        served=True,
        reasons=reasons,
        warnings=warnings,
        from_wildcard=from_wildcard,
        protocol=service.protocol,
        server_names=tuple(name.sni for name in service.server_names),
        endpoints=tuple(
            EndpointStatus(_host_port(one.address, one.port), one.hostname, one.healthy, one.weight, one.instance)
            for one in endpoints
        ),
        upstream_tls=service.upstream_tls is not None,
        intentions=None if service.intentions is None else len(service.intentions),
        leaf_expires_at_s=service.leaf.not_after_s,
        open_connections=open_connections,
        dials=dials,
    )


def peer_statuses(mesh: Mesh | None, services: Iterable[Service]) -> tuple[PeerStatus, ...]:
    imported = {(peer, str(service.name)) for service in services for peer in importers_of(service)}
    return tuple(
        PeerStatus(
            name=bundle.peer,
            trust_domain=bundle.trust_domain,
            partition=bundle.partition,
            roots=len(bundle.roots_pem),
            services=tuple(sorted(name for peer, name in imported if peer == bundle.peer)),
        )
        for bundle in (mesh.peer_bundles if mesh is not None else ())
    )


def worker_status(worker: Worker) -> WorkerStatus:
    return WorkerStatus(
        index=worker.index,
        pid=worker.pid,
        generation=worker.applied,
        adopted=worker.adopted,
        draining=worker.draining,
        connected=worker.connected,
        started_at_s=worker.started_at_s,
        open_connections=worker.counters.open_connections if worker.counters else 0,
        open_files=worker.counters.open_files if worker.counters else 0,
        most_files=worker.counters.most_files if worker.counters else 0,
        code=worker.code,
        problems=tuple(f"{service or 'mesh'}: {message}" for service, message in worker.problems.items()),
    )


def watch_statuses(states: Iterable[WatchState]) -> tuple[WatchStatus, ...]:
    return tuple(
        WatchStatus(
            name=one.name,
            known=one.age_s is not None,
            index=one.index,
            age_s=one.age_s or 0.0,
            problem=one.problem,
            note=one.note,
        )
        for one in states
    )


def default_action(mesh: Mesh | None) -> str:
    return mesh.default_action.value if mesh is not None and mesh.default_action is not None else ""


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
