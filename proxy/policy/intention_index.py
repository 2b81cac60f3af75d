"""Which intention concerns a caller, and what it is called in a log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from proxy.model import ServiceName
from proxy.policy.identity import Identity
from proxy.rules import Intention

ANY = "*"

_Source = tuple[str, str, str, str]
"""Peer, partition, namespace, name."""


class IntentionIndex:
    """The intentions of one destination, the highest precedence first; Consul's order is kept among equals."""

    __slots__ = ("_intentions", "_ranks")

    def __init__(self, intentions: Iterable[Intention]) -> None:
        self._intentions = tuple(sorted(intentions, key=lambda intention: -intention.precedence))
        self._ranks = _rank_by_source(self._intentions)

    def matches(self, identity: Identity, peer: str) -> tuple[Intention, ...]:
        """Every intention that concerns this caller; the first one decides."""
        sources = frozenset(_sources_of(identity, peer))
        return tuple(one for one in self._intentions if _source_of(one) in sources)

    def first_match(self, identity: Identity, peer: str) -> Intention | None:
        ranks = (self._ranks.get(source) for source in _sources_of(identity, peer))
        rank = min((rank for rank in ranks if rank is not None), default=None)
        return None if rank is None else self._intentions[rank]


def intention_text(intention: Intention) -> str:
    """``web => db (precedence 9)``"""
    source = ServiceName(intention.source, intention.source_namespace, intention.source_partition)
    return (
        f"{source_text(intention.source_peer, source)} => {intention.destination or ANY} "
        f"(precedence {intention.precedence})"
    )


def source_text(peer: str, source: ServiceName) -> str:
    return f"{peer}:{source}" if peer else str(source)


def _rank_by_source(intentions: tuple[Intention, ...]) -> Mapping[_Source, int]:
    """Return the place of the first intention for each source."""
    ranks: dict[_Source, int] = {}
    for rank, intention in enumerate(intentions):
        ranks.setdefault(_source_of(intention), rank)
    return ranks


def _source_of(intention: Intention) -> _Source:
    # The partition of a peer's source is fixed by the peering, and checked with the trust domain.
    partition = ANY if intention.source_peer else intention.source_partition
    return intention.source_peer, partition, intention.source_namespace, intention.source


def _sources_of(identity: Identity, peer: str) -> Iterator[_Source]:
    """Yield every way in which an intention may name this caller."""
    for partition in (ANY,) if peer else (identity.partition, ANY):
        for namespace in (identity.namespace, ANY):
            for name in (identity.service, ANY):
                yield peer, partition, namespace, name
