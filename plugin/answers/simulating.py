"""Assembles the state as it would be with other config entries, and compares it with what is in force and alive.

Runs in the control process, which has the facts and can ask the workers. Nothing is written, to Consul or into the
store: what is assembled here is dropped with the answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from plugin.admin.view import WorkerConnection
from plugin.answers.control_view import ControlView
from plugin.answers.explaining import Explainer
from plugin.assemble.assembler import Unserved, assemble_mesh_with_warnings, assemble_with_warnings
from plugin.assemble.endpoints import hostnames
from plugin.assemble.intentions import decode_intentions
from plugin.consul import endpoints
from plugin.consul.api import HealthEntry, IntentionMatch
from plugin.consul.client import ConsulClient
from plugin.errors import ConfigError, ConsulError, FileUnreadable
from plugin.explain.caller import Caller, caller
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.observe.files import read_once
from plugin.simulate.answer import AccessChange, CutConnection, RequestChange, ServiceChange, Simulation
from plugin.simulate.compare import (
    Side,
    access_change,
    callers,
    cut,
    request_changes,
    service_change,
)
from plugin.simulate.entries import checked, name_of
from plugin.simulate.facts import Proposed, World, needed_files, new_services, propose
from proxy.messages import Recall
from proxy.model import Leaf, Mesh, Service, ServiceName
from proxy.policy.identity import Identity

MOST_CONNECTIONS_SHOWN = 1_000
_PAGE = 1_000
_SLICE = 50
"""Services assembled before the event loop gets its turn again."""
_RECENT = 1_000
_NO_LEAF = Leaf("", "", "", "", 0.0, 0.0)

Request = tuple[Caller, str, str, str]
"""Caller, method, path, authority."""


@dataclass(slots=True)
class _Alive:
    """Who calls, or has called lately, by service."""

    connections: dict[str, list[tuple[Caller, WorkerConnection]]] = field(default_factory=dict)
    requests: dict[str, list[Request]] = field(default_factory=dict)
    sources: dict[str, dict[str, Caller]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Simulator:
    view: ControlView
    explainer: Explainer
    client: ConsulClient
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def simulate(self, raw: Iterable[Any]) -> Simulation:
        """:raises ConfigError: when an entry is not what Consul would take, or nothing is in force yet."""
        entries = checked(raw)
        async with self._one_at_a_time:
            return await self._simulate(entries)

    async def _simulate(self, entries: tuple[dict[str, Any], ...]) -> Simulation:
        published, store = self.explainer.published, self.explainer.store
        if published.mesh is None or published.linked is None:
            raise ConfigError("nothing is in force yet that entries could be compared with; see consul-tgw status")
        world = World(
            services={name: store.service_facts(name) for name in store.linked()},
            mesh=store.mesh_facts(),
            gateway=self.explainer.settings.service,
            entry=store.entry.fact.value,
            rows=store.gateway_services.fact.value or (),
        )
        proposed = propose(world, entries)
        problems = await self._learn(proposed, entries)
        mesh, mesh_problems = self._mesh(proposed.world.mesh, proposed)
        alive = await self._alive()
        found = Simulation(
            entries=tuple(map(name_of, entries)),
            problems=(*problems, *mesh_problems, *alive.problems),
            remarks=tuple(dict.fromkeys(proposed.remarks)),
            generation=published.generation,
        )
        names = sorted(proposed.touched | proposed.unlinked)
        async for services, access, cuts, requests in self._compared(names, proposed, mesh, alive):
            found = msgspec.structs.replace(
                found,
                services=(*found.services, *services),
                access=(*found.access, *access),
                connections_cut=found.connections_cut + len(cuts),
                connections=(*found.connections, *cuts)[:MOST_CONNECTIONS_SHOWN],
                requests=(*found.requests, *requests),
            )
        return found.judged()

    def _mesh(self, facts: MeshFacts, proposed: Proposed) -> tuple[Mesh, tuple[str, ...]]:
        """As it would be, and what is wrong with it that was not."""
        now = self.explainer.published.mesh
        assert now is not None
        if not proposed.mesh_touched:
            return now, ()
        assembled = assemble_mesh_with_warnings(facts)
        fresh = tuple(one for one in assembled.warnings if one not in self.explainer.gateway.mesh_warnings)
        if isinstance(assembled.outcome, Unserved):
            return now, (*assembled.outcome.reasons, *fresh)
        return msgspec.structs.replace(assembled.outcome, stale=now.stale, max_state_age_s=now.max_state_age_s), fresh

    async def _learn(self, proposed: Proposed, entries: tuple[dict[str, Any], ...]) -> list[str]:
        """Read and ask what nobody needed until now; what could not be is returned."""
        problems: list[str] = []
        learned: dict[ServiceName, ServiceFacts] = {}
        for name in proposed.linked:
            try:
                learned[name] = await self._asked(proposed.world.services[name])
            except ConsulError as error:
                problems.append(f"{name} would be linked, but what it is cannot be asked: {error}")
        if learned:
            new_services(proposed, learned, entries)
        services = dict(proposed.world.services)
        files = needed_files(services[name] for name in proposed.touched if name in services)
        contents = {path: await asyncio.to_thread(read_once, path) for path in files}
        for name in proposed.touched & services.keys():
            facts = services[name]
            mine = {path: _fact(contents[path]) for path in needed_files((facts,))}
            services[name] = replace(facts, files={**facts.files, **mine})
            for host in sorted(hostnames(facts.instances.value or (), facts.defaults.value) - facts.addresses.keys()):
                proposed.remarks.append(f"{host} of {name} is resolved when the entry is written.")
        proposed.world = replace(proposed.world, services=services)
        return problems

    async def _asked(self, facts: ServiceFacts) -> ServiceFacts:
        """What Consul says of a service that is not linked yet. Its leaf is not asked for: that would make one.

        :raises ConsulError: when Consul does not say.
        """
        name, store = facts.name, self.explainer.store
        where = endpoints.tenancy(name)
        rows = await self.client.get(endpoints.health(name.name), where, type=tuple[HealthEntry, ...])
        asked = (("by", "destination"), ("name", name.name), *where)
        by_name = await self.client.get(
            endpoints.INTENTIONS_MATCH, asked, type=dict[str, tuple[IntentionMatch, ...] | None]
        )
        return replace(
            facts,
            instances=Fact[tuple[HealthEntry, ...]]().learned(rows),
            sidecars=Fact[tuple[HealthEntry, ...]]().learned(()),
            intentions=Fact[tuple[IntentionMatch, ...]]().learned(by_name.get(name.name) or ()),
            leaf=Fact[Leaf]().learned(_NO_LEAF),
            defaults=store.service_defaults.of(name),
            resolver=store.service_resolvers.of(name),
        )

    async def _compared(
        self, names: list[ServiceName], proposed: Proposed, mesh: Mesh, alive: _Alive
    ) -> AsyncIterator[tuple[list[ServiceChange], list[AccessChange], list[CutConnection], list[RequestChange]]]:
        """What changes for each service."""
        published, now_s = self.explainer.published, time.time()
        assert published.mesh is not None
        home = Identity(mesh.trust_domain, "", datacenter=mesh.datacenter)
        for number, name in enumerate(names, 1):
            if number % _SLICE == 0:
                await asyncio.sleep(0)
            had = published.services.get(name)
            before = Side.of(had, published.mesh, linked=name in (published.linked or ()))
            service, problems = self._service(name, proposed, had, now_s)
            after = Side.of(service, mesh, linked=name not in proposed.unlinked)
            change = service_change(name, before, after, problems)
            known = alive.sources.get(str(name), {}).values()
            sources = {(one.peer, one.name): one for side in (had, service) for one in callers(known, side, home)}
            access = (access_change(name, who, before, after) for who in sources.values())
            yield (
                [] if change is None else [change],
                [one for one in access if one is not None],
                list(_cuts(alive.connections.get(str(name), ()), before, after, now_s)),
                list(request_changes(name, alive.requests.get(str(name), ()), before, after, now_s)),
            )

    def _service(
        self, name: ServiceName, proposed: Proposed, had: Service | None, now_s: float
    ) -> tuple[Service | None, tuple[str, ...]]:
        """As it would be served, and what would be wrong with it that is not wrong now."""
        facts = proposed.world.services.get(name)
        if facts is None or name in proposed.unlinked:
            return None, ()
        assembled = assemble_with_warnings(facts, proposed.world.mesh, now_s=now_s)
        gateway = self.explainer.gateway
        linked = name not in proposed.linked
        known = {*gateway.problems_of(name), *gateway.warnings_of(name)} if linked else set()
        fresh = [one for one in assembled.warnings if one not in known]
        if isinstance(assembled.outcome, Service):
            return assembled.outcome, tuple(fresh)
        fresh += [one for one in assembled.outcome.reasons if one not in known]
        if had is not None:
            # As the gateway itself does: the last good state goes on, with the newest policy.
            fresh.append("until that is mended it goes on with its earlier state, under the new intentions")
            had = msgspec.structs.replace(had, intentions=decode_intentions(facts.intentions.value or ()))
        return had, tuple(fresh)

    async def _alive(self) -> _Alive:
        alive, mesh = _Alive(), self.explainer.published.mesh
        after = ""
        while True:
            page = await self.view.connections(after, _PAGE)
            for one in page.connections:
                for who, part in _by_caller(one, mesh):
                    service = one.connection.service
                    alive.connections.setdefault(service, []).append((who, part))
                    alive.sources.setdefault(service, {})[who.text] = who
            alive.problems += page.problems
            after = page.next
            if not after:
                break
        recent = await self.explainer.recent(Recall(0, limit=_RECENT), None)
        for record in recent.records:
            came = _caller(record.source, mesh)
            if came is not None and record.service:
                alive.sources.setdefault(record.service, {})[came.text] = came
                if record.event == "request" and record.method:
                    asked = (came, record.method, record.path, record.authority)
                    alive.requests.setdefault(record.service, []).append(asked)
        alive.problems = list(dict.fromkeys((*alive.problems, *recent.problems)))
        return alive


def _cuts(
    connections: Iterable[tuple[Caller, WorkerConnection]], before: Side, after: Side, now_s: float
) -> Iterable[CutConnection]:
    decided: dict[object, str] = {}
    for who, one in connections:
        shown = one.connection
        requests: list[tuple[str, str, str] | None] = (
            [None] if shown.requests is None else [(r.method, r.path, r.authority) for r in shown.live_requests]
        )
        if not after.linked:
            requests = [None]
        for request in requests:
            key = (who.spiffe_id, request)
            if key not in decided:
                decided[key] = cut(who, before, after, request, now_s)
            if why := decided[key]:
                yield CutConnection(
                    id=one.id,
                    service=shown.service,
                    source=who.text,
                    client=shown.client,
                    opened_at_s=shown.opened_at_s,
                    why=why,
                    request=f"{request[0]} {request[1]}" if request is not None else "",
                )


def _by_caller(one: WorkerConnection, mesh: Mesh | None) -> Iterator[tuple[Caller, WorkerConnection]]:
    """A connection for each of its callers: that of a mesh gateway has one for each request, and none while idle."""
    shown = one.connection
    who = _caller(shown.source, mesh)
    if who is not None:
        yield who, one
        return
    for text in dict.fromkeys(request.caller for request in shown.live_requests):
        if ":" in text and (who := _caller(text, mesh)) is not None:
            requests = tuple(request for request in shown.live_requests if request.caller == text)
            yield who, msgspec.structs.replace(one, connection=msgspec.structs.replace(shown, live_requests=requests))


def _caller(text: str, mesh: Mesh | None) -> Caller | None:
    """``text``: a SPIFFE ID, or ``peer:name``."""
    try:
        return caller(text, mesh) if ":" in text else None
    except ConfigError:
        return None


def _fact(content: bytes | str) -> Fact[bytes]:
    return (
        Fact[bytes]().learned(content) if isinstance(content, bytes) else Fact[bytes]().failed(FileUnreadable(content))
    )
