"""The connections that are alive, findable by what a change of policy names: service and source."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from proxy.model import ServiceName
from proxy.policy.identity import Identity, MeshGateway

if TYPE_CHECKING:
    from proxy.carrier import Carrier

Source = tuple[Identity | MeshGateway, str]
"""A caller and the peer that it lives in (empty for this cluster): what one decision is about. The callers for whom a
mesh gateway asks are told with each request."""


@functools.lru_cache(maxsize=4_096)
def text_of(source: Source) -> str:
    """``peer:name``, or the name alone of a caller in this cluster."""
    identity, peer = source
    if isinstance(identity, MeshGateway):
        return f"mesh gateway of {identity.datacenter}"  # with spaces: no service has such a name
    name = str(ServiceName(identity.service, identity.namespace, identity.partition))
    return f"{peer}:{name}" if peer else name


class LiveConnections:
    """Every carrier of this worker, and those whose caller is known by (service, source)."""

    def __init__(self) -> None:
        self._all: dict[int, Carrier] = {}
        self._known: dict[ServiceName, dict[Source, dict[int, Carrier]]] = {}
        self._counts: dict[ServiceName, int] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Carrier]:
        """A snapshot, oldest first: carriers may end while it is walked."""
        return iter(list(self._all.values()))

    def count(self, service: ServiceName) -> int:
        """Connections to ``service`` whose callers have been let in."""
        return self._counts.get(service, 0)

    def add(self, carrier: Carrier) -> None:
        self._all[carrier.life.number] = carrier

    def let_in(self, service: ServiceName, source: Source, carrier: Carrier) -> None:
        """With a permit for the whole connection, or to be decided about request by request."""
        self._known.setdefault(service, {}).setdefault(source, {})[carrier.life.number] = carrier
        self._counts[service] = self._counts.get(service, 0) + 1

    def remove(self, carrier: Carrier) -> None:
        self._all.pop(carrier.life.number, None)
        service, source = carrier.service_name, carrier.source
        if service is None or source is None:
            return
        sources = self._known.get(service, {})
        carriers = sources.get(source, {})
        if carriers.pop(carrier.life.number, None) is None:
            return
        self._counts[service] -= 1
        if not carriers:
            sources.pop(source, None)
        if not sources:
            self._known.pop(service, None)
            self._counts.pop(service, None)

    def sources(self, service: ServiceName) -> list[Source]:
        """Every distinct source that is connected to ``service`` at the moment."""
        return list(self._known.get(service, ()))

    def of(self, service: ServiceName, source: Source) -> list[Carrier]:
        return list(self._known.get(service, {}).get(source, {}).values())

    def after(self, number: int, limit: int) -> tuple[list[Carrier], bool]:
        """At most ``limit`` carriers numbered above ``number``, and whether there are more."""
        page = [carrier for key, carrier in self._all.items() if key > number][: limit + 1]
        return page[:limit], len(page) > limit
