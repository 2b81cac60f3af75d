"""What the admin pages show, gathered from the parts of the control process at the moment somebody asks."""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass, field

from cryptography import x509

from plugin.access_log_sink import AccessLogSink
from plugin.admin.view import ConnectionList, WorkerConnection, shown
from plugin.answers.snapshot import redacted_json
from plugin.answers.status import (
    RegistrationStatus,
    ServiceStatus,
    Status,
    default_action,
    open_by_service,
    peer_statuses,
    service_status,
    watch_statuses,
    worker_status,
)
from plugin.audit.desk import AuditDesk
from plugin.definition import Definition
from plugin.errors import ConfigError
from plugin.events.keeper import EventKeeper
from plugin.gateway import Gateway
from plugin.health import Health
from plugin.observe.freshness import Freshness, oldest
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.process.life import Life
from plugin.registration import Registration
from plugin.saved_state.keeper import StateKeeper
from plugin.settings import GatewaySettings
from plugin.version import version_text
from plugin.workers.counters import Dials, Totals
from plugin.workers.pool import Workers
from plugin.workers.published import Published
from plugin.workers.worker import Worker, WorkerGone
from proxy import logs
from proxy.messages import Connection
from proxy.model import ServiceName

ANSWER_TIMEOUT_S = 5.0


@dataclass(slots=True, kw_only=True)
class ControlView:
    settings: GatewaySettings
    published: Published
    gateway: Gateway
    store: FactStore
    observer: Observer
    workers: Workers
    registration: Registration
    definition: Definition | None = None
    """Where somebody else registers the gateway."""
    health: Health
    access_log: AccessLogSink
    audit: AuditDesk
    life: Life
    freshness: Freshness
    saved_state: StateKeeper
    events: EventKeeper
    reloads: int = 0
    started_at_s: float = field(default_factory=time.time)
    _root_expiry: tuple[tuple[str, ...], float] = ((), 0.0)

    def not_ready(self) -> tuple[str, ...]:
        found = self.health.shortcomings()
        # With a saved state the gateway serves before the agent can take its registration.
        expected = self.settings.register and not (self.saved_state.unconfirmed_from_s and self.observer.away)
        if expected and not self.registration.registered:
            found += (self.registration.problem or f"{self.settings.service} is not registered with the agent yet",)
        return found

    def status(self) -> Status:
        mesh = self.published.mesh
        most_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        not_ready, ages_s = self.not_ready(), self.freshness.ages_s()
        return Status(
            service=self.settings.service,
            service_id=self.settings.id,
            address=str(self.settings.host_port),
            version=version_text(),
            pid=os.getpid(),
            started_at_s=self.started_at_s,
            ready=not not_ready,
            not_ready=not_ready,
            generation=self.published.generation,
            datacenter=mesh.datacenter if mesh else "",
            trust_domain=mesh.trust_domain if mesh else "",
            default_action=default_action(mesh),
            consul_version=self.store.mesh_facts().consul_version,
            registration=self._registration(),
            services=self._services(),
            workers=tuple(worker_status(worker) for worker in self.workers.all),
            watches=watch_statuses(self.observer.watch_states()),
            peers=peer_statuses(mesh, self.published.services.values()),
            worker_restarts=self.workers.restarts,
            root_expires_at_s=self._root_expires_at_s(),
            state_age_s=oldest(ages_s),
            fact_ages_s=ages_s,
            max_state_age_s=self.freshness.max_age_s,
            too_old=self.freshness.too_old,
            consul_away=self.observer.away,
            restored_from_s=self.saved_state.unconfirmed_from_s,
            warnings=(
                *self.gateway.mesh_warnings,
                *filter(None, (self.access_log.problem, self.audit.problem)),
                *filter(None, (self.saved_state.problem, self.events.problem)),
            ),
            phase=self.life.phase.value,
            open_files=_open_files(),
            most_files=0 if most_files == resource.RLIM_INFINITY else most_files,
            reloads=self.reloads,
        )

    def totals(self) -> Totals:
        totals = self.workers.totals()
        totals.log_lines_dropped += logs.dropped()
        totals.audit_log_lines_dropped += self.audit.journal.dropped
        return totals

    async def connections(self, after: str, limit: int) -> ConnectionList:
        """Oldest first within each worker. :raises ConfigError: when ``after`` is not one of our own."""
        pid, number = _cursor(after)
        found: list[WorkerConnection] = []
        problems: list[str] = []
        for worker in sorted(self.workers.all, key=lambda one: one.pid):
            if worker.pid < pid:
                continue
            try:
                page, more = await worker.connections(
                    number if worker.pid == pid else 0, limit - len(found), ANSWER_TIMEOUT_S
                )
            except WorkerGone as gone:
                problems.append(str(gone))
                continue
            found += shown(worker, page)
            if more or len(found) >= limit:
                return ConnectionList(tuple(found), _next(worker, page, number), tuple(problems))
        return ConnectionList(tuple(found), "", tuple(problems))

    def snapshot(self) -> bytes:
        return redacted_json(self.published.full())

    def _registration(self) -> RegistrationStatus:
        return RegistrationStatus(
            wanted=self.settings.register,
            registered=self.registration.registered,
            check=self.registration.check,
            problem=self.definition.problem if self.definition is not None else self.registration.problem,
        )

    def _services(self) -> tuple[ServiceStatus, ...]:
        live = open_by_service(worker.counters for worker in self.workers.all if worker.counters is not None)
        dials = self.totals().dials
        return tuple(
            self._service(name, live.get(str(name), 0), dials.get(str(name), Dials()))
            for name in sorted(self.store.linked())
        )

    def _service(self, name: ServiceName, open_connections: int, dials: Dials) -> ServiceStatus:
        reasons = self.gateway.problems_of(name)
        facts = self.store.service_facts(name)
        leaf = facts.leaf.value
        service = self.published.services.get(name)
        if service is not None:
            return service_status(
                service,
                reasons=reasons,
                warnings=self._warnings(name),
                from_wildcard=facts.from_wildcard,
                open_connections=open_connections,
                dials=dials,
            )
        return ServiceStatus(
            name=str(name),
            served=False,
            reasons=reasons,
            warnings=self._warnings(name),
            from_wildcard=facts.from_wildcard,
            intentions=len(facts.intentions.value or ()) if facts.intentions.known else None,
            leaf_expires_at_s=leaf.not_after_s if leaf else 0.0,
            open_connections=open_connections,
            dials=dials,
        )

    def _warnings(self, name: ServiceName) -> tuple[str, ...]:
        """Each once, even if every worker has it."""
        said = [worker.problems[name] for worker in self.workers.all if name in worker.problems]
        return tuple(dict.fromkeys((*said, *self.gateway.warnings_of(name))))

    def _root_expires_at_s(self) -> float:
        roots = self.published.mesh.roots_pem if self.published.mesh else ()
        if roots != self._root_expiry[0]:
            certificates = [each for pem in roots for each in x509.load_pem_x509_certificates(pem.encode())]
            first = min((each.not_valid_after_utc.timestamp() for each in certificates), default=0.0)
            self._root_expiry = (roots, first)
        return self._root_expiry[1]


def _open_files() -> int:
    """File descriptors of this process; 0 where there is no /proc."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1
    except OSError:
        return 0


def _cursor(after: str) -> tuple[int, int]:
    if not after:
        return 0, 0
    pid, separator, number = after.partition(":")
    if not separator or not pid.isdecimal() or not number.isdecimal():
        raise ConfigError(f"after={after!r} is not what an earlier page called next")
    return int(pid), int(number)


def _next(worker: Worker, page: tuple[Connection, ...], number: int) -> str:
    return f"{worker.pid}:{page[-1].number if page else number}"
