"""From facts to workers: assembles what changed, compares it with what was sent, and publishes the difference.

Keeps the reasons why a service is not served. A service that cannot be assembled any more goes on with its last good
state until it is unlinked; no service waits for another. It asks nobody: facts arrive in the store, and what it needs
from files and DNS it only names.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from plugin.assemble.assembler import AssembledService, Assembler, Unserved, assemble_mesh_with_warnings
from plugin.assemble.endpoints import hostnames
from plugin.assemble.intentions import decode_intentions, requirements_of
from plugin.assemble.links import WILDCARD
from plugin.assemble.token_providers import answered, token_providers
from plugin.consul.api import AccessLogs
from plugin.errors import ConsulBusy
from plugin.events.updates import UpdateStory
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.observe.store import Changes, FactStore
from plugin.workers.published import Published
from proxy.logs import emit
from proxy.model import Service, ServiceName

logger = logging.getLogger(__name__)

GAP_S = 0.003
"""Between two updates: what changes in a burst goes out together; the first change after quiet goes out at once."""
SLICE = 200
"""Services assembled before the event loop gets its turn again."""
PATIENCE_S = 10.0
"""How long the first state waits for answers about single services before workers begin without them: since another
service was served, for Consul signs no more than so many leaves a second."""
LONGEST_PATIENCE_S = 300.0
PATIENCE_AFTER_RESTORE_S = 0.5
"""The same when there is a saved state: what it lacks was not known before, either."""


class _Shared(enum.Enum):
    """What has become of the settings that all services share."""

    SAME = enum.auto()
    PROVIDERS = enum.auto()
    """Token providers alone, new keys above all: no service is another one because of them."""
    OTHER = enum.auto()


class Publish(Protocol):
    def __call__(self, names: Collection[ServiceName], *, mesh: bool) -> None: ...


class Gateway:
    """Consumes the store's changes for one set of workers."""

    def __init__(
        self,
        store: FactStore,
        published: Published,
        publish: Publish,
        *,
        needs: Callable[[ServiceName, ServiceFacts | None], None] = lambda name, facts: None,
        access_logs: Callable[[AccessLogs | None], None] = lambda settings: None,
        max_state_age_s: float = 0.0,
    ) -> None:
        """``needs`` is called with the newest facts of each changed service (``None``: unlinked), so that somebody
        reads the files and resolves the names in them; ``access_logs`` with those of proxy-defaults.
        ``max_state_age_s`` is for workers that are left alone."""
        self._store = store
        self._published = published
        self._publish = publish
        self._needs = needs
        self._access_logs = access_logs
        self._assembler = Assembler()
        self._max_state_age_s = max_state_age_s
        self._stale = False
        self.patience_s = PATIENCE_S
        self._links_known_at_s: float | None = None
        self._progress_at_s = 0.0
        """Monotonic time at which another service was served."""
        self._awaited: list[ServiceName] = []
        """Of the links in ``_awaited_of``, those that were not looked at, or had not been answered when they were."""
        self._awaited_of: frozenset[ServiceName] | None = None
        self._links_published: frozenset[ServiceName] | None = None
        self._mesh_facts: MeshFacts | None = None
        self._problems: dict[ServiceName, tuple[str, ...]] = {}
        self._warnings: dict[ServiceName, tuple[str, ...]] = {}
        self._story = UpdateStory()
        self.mesh_problems: tuple[str, ...] = ("the mesh is not known yet",)
        """Why no service can be served yet."""
        self.mesh_warnings: tuple[str, ...] = ()
        """Settings that all services share and that could not be used."""

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                changes = await asyncio.wait_for(self._store.changed(), self._patience_left_s())
            except TimeoutError:
                self._begin()
                continue
            await self.take(changes)
            await asyncio.sleep(GAP_S)

    async def take(self, changes: Changes) -> None:
        """Publish everything that ``changes`` makes different."""
        shared = self._take_mesh() if changes.mesh else _Shared.SAME
        self._unlink(changes.removed)
        names = list(changes.updated)
        if shared is _Shared.OTHER:
            # What all services share is in all of them: names, default protocol, timeouts.
            names += [name for name in self._store.linked() if name not in changes.updated]
        self._commit_assembled(names[:SLICE], removed=changes.removed, mesh=shared is not _Shared.SAME)
        for start in range(SLICE, len(names), SLICE):
            await asyncio.sleep(0)
            self._commit_assembled(names[start : start + SLICE])
        if not self._published.complete and self._settled():
            self._begin()

    def set_stale(self, stale: bool) -> None:
        """Let nobody new in, or let them in again: the state is too old, or no longer."""
        self._stale = stale
        if self._published.mesh is not None:
            before = self._published.mesh
            self._published.mesh = msgspec.structs.replace(before, stale=stale)
            self._story.mesh(before, self._published.mesh, self._store.mesh_facts())
            self._commit(frozenset(), mesh=True)

    def problems_of(self, name: ServiceName) -> tuple[str, ...]:
        """Why the newest facts of a linked service cannot be served; it may still be served with earlier ones."""
        return self._problems.get(name, ())

    def warnings_of(self, name: ServiceName) -> tuple[str, ...]:
        """What a linked service has to do without, and facts that could not be read anew."""
        facts = self._store.service_facts(name)
        stale = [str(fact.problem) for fact in facts_of(facts) if fact.known and fact.problem is not None]
        return tuple(dict.fromkeys((*self._warnings.get(name, ()), *stale, *self._without_tokens(name))))

    def _without_tokens(self, name: ServiceName) -> Iterator[str]:
        """Which providers that its intentions name have no keys, so that none of their tokens is valid."""
        service, mesh = self._published.services.get(name), self._published.mesh
        if service is None or mesh is None:
            return
        named = {one.provider for intention in service.intentions or () for one in requirements_of(intention)}
        for provider in mesh.token_providers:
            if provider.name in named and provider.problem:
                what = f"whoever needs a token of the jwt-provider {provider.name} is refused"
                yield f"{what}: {provider.problem}"

    def _take_mesh(self) -> _Shared:
        """Whether the settings that all services share have changed."""
        self._published.linked = self._linked()
        if self._published.linked is not None and self._links_known_at_s is None:
            self._links_known_at_s = time.monotonic()
        facts = self._store.mesh_facts()
        if facts.proxy_defaults.known:
            self._access_logs(facts.proxy_defaults.value.access_logs if facts.proxy_defaults.value else None)
        assembled = assemble_mesh_with_warnings(facts)
        for warning in assembled.warnings:
            if warning not in self.mesh_warnings:
                emit(logger, logging.WARNING, "mesh.problem", warning)
        self.mesh_warnings = assembled.warnings
        if isinstance(assembled.outcome, Unserved):
            self.mesh_problems = assembled.outcome.reasons
            return _Shared.SAME
        self.mesh_problems = ()
        # Services depend on settings that the mesh they are sent does not show (proxy-defaults).
        mesh = msgspec.structs.replace(assembled.outcome, stale=self._stale, max_state_age_s=self._max_state_age_s)
        before, alike = self._published.mesh, _same_values(facts, self._mesh_facts)
        self._mesh_facts = facts
        self._published.mesh = mesh
        self._story.mesh(before, mesh, facts)
        if before is None or not alike:
            return _Shared.OTHER
        if mesh == before:
            return _Shared.SAME
        others = msgspec.structs.replace(mesh, token_providers=before.token_providers)
        return _Shared.PROVIDERS if others == before else _Shared.OTHER

    def _linked(self) -> frozenset[ServiceName] | None:
        """``None`` while the links are not known; ``*`` alone says nothing before Consul has expanded it."""
        entry = self._store.entry.fact
        wildcard = any(link.name == WILDCARD for link in (entry.value.services if entry.value else None) or ())
        if not entry.known or (wildcard and not self._store.gateway_services.fact.known):
            return None
        return frozenset(self._store.linked())

    def _unlink(self, names: Iterable[ServiceName]) -> None:
        for name in names:
            self._published.services.pop(name, None)
            self._problems.pop(name, None)
            self._warnings.pop(name, None)
            self._assembler.forget(name)
            self._needs(name, None)
            self._story.unlinked(name, self._store.entry.fact.index)
            emit(logger, logging.INFO, "service.unlinked", f"{name} is no longer linked", service=str(name))

    def _assembled(self, names: Iterable[ServiceName]) -> frozenset[ServiceName]:
        """Assemble each; returns those whose state is now another than the workers have."""
        return frozenset(name for name in names if self._assemble(name))

    def _assemble(self, name: ServiceName) -> bool:
        try:
            facts = self._store.service_facts(name)
        except KeyError:
            # Unlinked since the change was noted: the removal is on its way.
            return False
        try:
            self._needs(name, facts)
            assembled = self._assembler.assemble(facts, self._store.mesh_facts(), now_s=time.time())
        except Exception as error:
            # Facts that we fail to understand concern this service alone; the others must go on.
            logger.exception("%s cannot be assembled by a mistake of this program", name)
            mistake = f"its facts are not understood ({type(error).__name__}): please report the log of the gateway"
            assembled = AssembledService(outcome=Unserved(name, (mistake,)))
        self._warnings[name] = assembled.warnings
        had = self._published.services.get(name)
        if isinstance(assembled.outcome, Unserved):
            self._note_problems(name, assembled.outcome.reasons)
            now = had and with_newest_policy(had, facts)
        else:
            self._note_problems(name, ())
            now = assembled.outcome
        if now is None or now == had or self._published.mesh is None:
            return False
        self._published.services[name] = now
        self._story.service(had, now, facts)
        if had is None:
            self._progress_at_s = time.monotonic()
            emit(logger, logging.INFO, "service.served", f"{name} is served", service=str(name))
        return True

    def _note_problems(self, name: ServiceName, reasons: tuple[str, ...]) -> None:
        if reasons == self._problems.get(name, ()):
            return
        if reasons:
            self._problems[name] = reasons
        else:
            del self._problems[name]
        # While the first answers are on their way, everything is missing something.
        if reasons and self._published.complete:
            kept = "goes on with its last good state" if name in self._published.services else "is not served"
            emit(logger, logging.WARNING, "service.problem", f"{name} {kept}: {'; '.join(reasons)}", service=str(name))

    def _commit_assembled(
        self, names: Iterable[ServiceName], *, removed: frozenset[ServiceName] = frozenset(), mesh: bool = False
    ) -> None:
        changed = self._assembled(names) | removed
        self._commit(changed, mesh=self._take_wanted_providers() or mesh)

    def _take_wanted_providers(self) -> bool:
        """Intentions that name a provider go out together with it; all else about the mesh waits for its turn."""
        mesh, facts = self._published.mesh, self._store.mesh_facts()
        if mesh is None or facts.wanted_providers == frozenset(one.name for one in mesh.token_providers):
            return False
        self._published.mesh = msgspec.structs.replace(mesh, token_providers=token_providers(facts).providers)
        self._story.mesh(mesh, self._published.mesh, facts)
        return True

    def _commit(self, names: frozenset[ServiceName], *, mesh: bool) -> None:
        """Give the change a number and hand it out.

        Newly known links count too, for workers that were taken over."""
        links = self._published.linked
        if not names and not mesh and links == self._links_published:
            return
        self._links_published = links
        self._published.generation += 1
        self._publish(names, mesh=mesh)
        self._story.tell(self._published.generation, names)

    def _settled(self) -> bool:
        """Every answer that the first state needs has come, good or bad."""
        if self._published.linked is None or self._published.mesh is None:
            return False
        if not _shared_answered(self._store.mesh_facts()):
            return False
        if self._awaited_of != self._published.linked:
            self._awaited_of, self._awaited = self._published.linked, list(self._published.linked)
        # What was answered once stays so: each service is looked at once, and the one that is awaited again and again.
        while self._awaited and self._is_answered(self._awaited[-1]):
            self._awaited.pop()
        return not self._awaited

    def _is_answered(self, name: ServiceName) -> bool:
        if name in self._published.services:
            return True
        try:
            return _answered(self._store.service_facts(name))
        except KeyError:
            # Unlinked meanwhile: the new links are on their way.
            return True

    def _patience_left_s(self) -> float | None:
        if self._published.complete or self._links_known_at_s is None or self._published.mesh is None:
            return None
        newest_s = max(self._links_known_at_s, self._progress_at_s)
        over_s = min(newest_s + self.patience_s, self._links_known_at_s + LONGEST_PATIENCE_S)
        return max(0.0, over_s - time.monotonic())

    def _begin(self) -> None:
        """Let workers that have nothing yet start with what there is."""
        self._published.complete = True
        self._published.generation += 1
        self._publish((), mesh=False)
        linked, served = len(self._published.linked or ()), len(self._published.services)
        emit(logger, logging.INFO, "gateway.complete", f"{served} of {linked} linked services are served")
        for name, reasons in self._problems.items():
            emit(
                logger,
                logging.WARNING,
                "service.problem",
                f"{name} is not served: {'; '.join(reasons)}",
                service=str(name),
            )


def with_newest_policy(service: Service, facts: ServiceFacts) -> Service:
    """Whatever else is broken, who may connect is what Consul says now."""
    names = tuple(one for one in service.server_names if not one.peer or one.peer in facts.exported_to)
    importers = tuple(peer for peer in service.importers if peer in facts.exported_to)
    exported = service
    if (names, importers) != (service.server_names, service.importers):
        exported = msgspec.structs.replace(service, server_names=names, importers=importers)
    if not facts.intentions.known:
        return exported
    return msgspec.structs.replace(exported, intentions=decode_intentions(facts.intentions.value or ()))


def _shared_answered(facts: MeshFacts) -> bool:
    """Whether everything that some service may need has come, good or bad: live connections of peers would end if the
    first state lacked their names."""
    asked = ((facts.exports, facts.exports_awaited), (facts.peers, facts.exports_awaited and facts.peers_awaited))
    return answered(facts) and all(fact.known or fact.problem is not None for fact, awaited in asked if awaited)


def facts_of(facts: ServiceFacts) -> tuple[Fact[Any], ...]:
    """Every single fact that a service depends on."""
    own = (facts.instances, facts.intentions, facts.leaf, facts.defaults, facts.resolver)
    return (*own, *facts.files.values(), *facts.addresses.values())


def _answered(facts: ServiceFacts) -> bool:
    paths = {path for path in (facts.link.ca_file, facts.link.cert_file, facts.link.key_file) if path}
    names = hostnames(facts.instances.value or (), facts.defaults.value)
    complete = paths <= facts.files.keys() and names <= facts.addresses.keys()
    # A signature that has to wait for its turn is on its way.
    return complete and all(
        fact.known or not (fact.problem is None or isinstance(fact.problem, ConsulBusy)) for fact in facts_of(facts)
    )


def _same_values(new: MeshFacts, old: MeshFacts | None) -> bool:
    if old is None:
        return False
    return (new.datacenter, new.proxy_config, new.proxy_defaults.value, new.proxy_defaults.known, new.mesh.known) == (
        old.datacenter,
        old.proxy_config,
        old.proxy_defaults.value,
        old.proxy_defaults.known,
        old.mesh.known,
    )
