"""Tells of each update of the workers what it changed, and from which of Consul's answers."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, field

from plugin.events.ring import MOST_CHANGES, Change
from plugin.events.words import mesh_differences, service_differences
from plugin.facts import MeshFacts, ServiceFacts
from proxy.logs import emit
from proxy.model import Mesh, Service, ServiceName

logger = logging.getLogger(__name__)

_MOST_TOLD = 5
"""Changes in the sentence of one update; all are in ``changes``."""


@dataclass(slots=True)
class UpdateStory:
    """Collects what is different until the update goes out."""

    _changes: list[Change] = field(default_factory=list)
    _left_out: int = 0

    def service(self, before: Service | None, after: Service, facts: ServiceFacts) -> None:
        """``before`` is ``None`` for one that was not served."""
        if self._full():
            return
        name = str(after.name)
        if before is None:
            self._changes.append(Change("served", name, facts.leaf.index))
            return
        indices = {
            "intentions": facts.intentions.index,
            "instances": facts.instances.index,
            "leaf": facts.leaf.index,
            "settings": max(facts.defaults.index, facts.resolver.index),
        }
        for kind, what in service_differences(before, after):
            self._changes.append(Change(what, name, indices.get(kind, 0)))

    def unlinked(self, name: ServiceName, index: int) -> None:
        """``index`` is that of the terminating-gateway entry."""
        if not self._full():
            self._changes.append(Change("no longer linked", str(name), index))

    def mesh(self, before: Mesh | None, after: Mesh, facts: MeshFacts) -> None:
        if before is None or before == after:
            return
        for kind, what in mesh_differences(before, after):
            fact = getattr(facts, kind, None)
            self._changes.append(Change(what, "", fact.index if fact is not None else 0))

    def tell(self, generation: int, names: Collection[ServiceName]) -> None:
        """The update has gone out."""
        changes, self._changes = self._changes, []
        left_out, self._left_out = self._left_out, 0
        if not changes:
            return
        told = [f"{one.service}: {one.what}" if one.service else one.what for one in changes[:_MOST_TOLD]]
        more = len(changes) - len(told) + left_out
        message = f"state {generation}: {'; '.join(told)}" + (f"; and {more} more changes" if more else "")
        emit(
            logger,
            logging.DEBUG,
            "state.updated",
            message,
            generation=generation,
            index=max(one.index for one in changes),
            services=tuple(map(str, sorted(names))),
            changes=tuple(changes),
        )

    def _full(self) -> bool:
        """Most updates have one change; those that have hundreds are not told one by one."""
        if len(self._changes) < MOST_CHANGES:
            return False
        self._left_out += 1
        return True
