"""Who may connect to a linked service: the one place where that is decided.

Pure and fast: a :class:`Policy` is compiled when a service or the mesh changes, and answers from a table. Opening
an upstream takes a :class:`Permit`, which nothing but :meth:`Policy.authorize` can make, so no code path reaches
an external service without a decision. Whatever is not known denies, with a reason of its own.

The rule is Consul's: the intention of the highest precedence that matches the source decides, and the default
action when none does. At layer 4 an intention with permissions or JWT requirements denies. Source:
https://developer.hashicorp.com/consul/docs/secure-mesh/intention
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import InitVar, dataclass

from proxy.identity import Identity
from proxy.model import CloseReason, Mesh, PeerBundle, Service, ServiceName
from proxy.rules import Action, Intention

ANY = "*"

_MOST_REMEMBERED = 10_000
"""Decisions that one policy keeps at hand."""

_SEAL = object()
"""Held by this module alone: without it no Permit comes into being."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Proof that policy lets ``identity`` connect to ``service``."""

    seal: InitVar[object]
    service: ServiceName
    identity: Identity
    peer: str
    """The peer that the caller lives in; empty for this cluster."""
    intention: Intention | None
    """What allowed it; ``None``: the default action."""

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only Policy.authorize() makes a Permit")


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: CloseReason
    """``denied``, ``policy_unknown`` or ``bad_identity``."""
    intention: Intention | None
    """What denied it; ``None``: the default action, or there was nothing to decide with."""
    sentence: str
    """For the log: what was refused, and by what."""


Decision = Permit | Refusal

_Source = tuple[str, str, str, str]
"""Peer, partition, namespace, name."""


class Policy:
    """The intentions of one linked service, ready to decide."""

    __slots__ = ("_decided", "_default_action", "_intentions", "_peers", "_ranks", "_service", "_trust_domain")

    def __init__(
        self,
        *,
        service: ServiceName,
        trust_domain: str,
        default_action: Action | None,
        intentions: tuple[Intention, ...] | None,
        peer_bundles: Iterable[PeerBundle],
    ) -> None:
        self._service = service
        self._trust_domain = trust_domain
        self._default_action = default_action
        self._intentions = None if intentions is None else _by_precedence(intentions)
        self._ranks = _rank_by_source(self._intentions or ())
        self._peers = {bundle.peer: bundle for bundle in peer_bundles}
        self._decided: dict[tuple[Identity, str], Decision] = {}

    @classmethod
    def compile(cls, service: Service, mesh: Mesh) -> Policy:
        return cls(
            service=service.name,
            trust_domain=mesh.trust_domain,
            default_action=mesh.default_action,
            intentions=service.intentions,
            peer_bundles=mesh.peer_bundles,
        )

    def authorize(self, identity: Identity, peer: str = "") -> Decision:
        """Decide about a caller whose certificate was verified.

        ``peer`` says by whose roots: it is the ``peer`` of the server name that the caller asked for, empty for
        this cluster's own roots. A certificate counts only for the trust domain whose roots verified it, else a
        peer's authority could issue the identities of this cluster.
        """
        # A policy never changes, so what it said it would say again; a change of intentions makes another policy.
        caller = (identity, peer)
        decision = self._decided.get(caller)
        if decision is None:
            if len(self._decided) >= _MOST_REMEMBERED:
                self._decided.clear()
            decision = self._decided[caller] = self._decide(identity, peer)
        return decision

    def _decide(self, identity: Identity, peer: str) -> Decision:
        stranger = self.stranger(identity, peer)
        if stranger:
            return Refusal(CloseReason.BAD_IDENTITY, None, stranger)
        if self._intentions is None:
            return self._unknown(identity, peer, "its intentions are not known yet")
        intention = self._first_match(identity, peer)
        if intention is None:
            return self._by_default(identity, peer)
        if intention.layer7:
            why = "which has permissions or JWT requirements and therefore denies connections at layer 4"
            return self._denied(identity, peer, intention, why)
        if intention.action is not Action.ALLOW:
            return self._denied(identity, peer, intention)
        return Permit(_SEAL, self._service, identity, peer, intention)

    def stranger(self, identity: Identity, peer: str = "") -> str:
        """Say why the identity is of no mesh that may call here; empty when it is. See :meth:`authorize`."""
        if not peer:
            if identity.trust_domain == self._trust_domain:
                return ""
            known, where = self._trust_domain, "this cluster"
        else:
            bundle = self._peers.get(peer)
            if bundle is None:
                return f"the trust bundle of peer {peer!r} is not known, so nobody from there can be let in"
            if (identity.trust_domain, identity.partition) == (bundle.trust_domain, bundle.partition):
                return ""
            known, where = bundle.trust_domain, f"peer {peer!r} (partition {bundle.partition!r})"
        return (
            f"the caller {identity.service!r} is of trust domain {identity.trust_domain!r}, "
            f"partition {identity.partition!r}; that of {where} is {known!r}"
        )

    def _first_match(self, identity: Identity, peer: str) -> Intention | None:
        assert self._intentions is not None
        ranks = (self._ranks.get(source) for source in _sources_of(identity, peer))
        rank = min((rank for rank in ranks if rank is not None), default=None)
        return None if rank is None else self._intentions[rank]

    def _by_default(self, identity: Identity, peer: str) -> Decision:
        if self._default_action is None:
            return self._unknown(identity, peer, "no intention matches and the default action is not known yet")
        if self._default_action is Action.ALLOW:
            return Permit(_SEAL, self._service, identity, peer, None)
        return self._denied(identity, peer, None)

    def _denied(self, identity: Identity, peer: str, intention: Intention | None, why: str = "") -> Refusal:
        caller = _source_text(peer, ServiceName(identity.service, identity.namespace, identity.partition))
        by = "the default, as no intention matches" if intention is None else f"intention {_text(intention)}"
        sentence = f"{caller} may not connect to {self._service}: denied by {by}{', ' if why else ''}{why}"
        return Refusal(CloseReason.DENIED, intention, sentence)

    def _unknown(self, identity: Identity, peer: str, why: str) -> Refusal:
        caller = _source_text(peer, ServiceName(identity.service, identity.namespace, identity.partition))
        return Refusal(CloseReason.POLICY_UNKNOWN, None, f"{caller} may not connect to {self._service}: {why}")


def describe(decision: Decision) -> str:
    """Name what decided, for the log: ``web => db (precedence 9)``, ``default deny``, or the close reason."""
    if decision.intention is not None:
        return _text(decision.intention)
    if isinstance(decision, Permit):
        return "default allow"
    return "default deny" if decision.reason is CloseReason.DENIED else decision.reason.value


def _by_precedence(intentions: Iterable[Intention]) -> tuple[Intention, ...]:
    """The highest first; Consul's order is kept among equals."""
    return tuple(sorted(intentions, key=lambda intention: -intention.precedence))


def _rank_by_source(intentions: tuple[Intention, ...]) -> Mapping[_Source, int]:
    """Return the place of the first intention for each source."""
    ranks: dict[_Source, int] = {}
    for rank, intention in enumerate(intentions):
        # The partition of a peer's source is fixed by the peering, and checked with the trust domain.
        partition = ANY if intention.source_peer else intention.source_partition
        source = (intention.source_peer, partition, intention.source_namespace, intention.source)
        ranks.setdefault(source, rank)
    return ranks


def _sources_of(identity: Identity, peer: str) -> Iterator[_Source]:
    """Yield every way in which an intention may name this caller."""
    for partition in (ANY,) if peer else (identity.partition, ANY):
        for namespace in (identity.namespace, ANY):
            for name in (identity.service, ANY):
                yield peer, partition, namespace, name


def _text(intention: Intention) -> str:
    source = ServiceName(intention.source, intention.source_namespace, intention.source_partition)
    return (
        f"{_source_text(intention.source_peer, source)} => {intention.destination or ANY} "
        f"(precedence {intention.precedence})"
    )


def _source_text(peer: str, source: ServiceName) -> str:
    return f"{peer}:{source}" if peer else str(source)
