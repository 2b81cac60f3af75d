"""Who may connect to a linked service, and who may ask it what: the one place where that is decided.

Pure and fast: a :class:`Policy` is compiled when a service or the mesh changes, and answers from a table. Opening
an upstream takes a :class:`Permit`, which nothing but a policy can make, so no code path reaches an external service
without a decision. Whatever is not known denies, with a reason of its own.

The rule is Consul's: the intention of the highest precedence that matches the source decides, and the default
action when none does. At layer 4 an intention with permissions or JWT requirements denies. At layer 7 its permissions
are asked in order: the first one that matches the request decides, and the default action when none does, never
another intention. Source: https://developer.hashicorp.com/consul/docs/secure-mesh/intention
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from proxy.http.message import RequestHead
from proxy.http.policy.permissions import CompiledPermission, compile_permissions
from proxy.http.policy.request_rules import RequestRules, Step
from proxy.http.policy.tokens import Tokens, forward_headers
from proxy.http.policy.told import ADDED
from proxy.model import CloseReason, Mesh, PeerBundle, Service, ServiceName
from proxy.policy.decision import SEAL, Decision, Permit, Refusal, describe
from proxy.policy.identity import Identity, IdentityError, MeshGateway
from proxy.policy.intention_index import IntentionIndex, intention_text, source_text
from proxy.rules import Action, Intention, TokenProvider, TokenRequirement

__all__ = ["Decision", "Permit", "Policy", "Refusal", "describe"]

_MOST_REMEMBERED = 10_000
"""Decisions that one policy keeps at hand; a caller needs one for each permission."""


class Policy:
    """The intentions of one linked service, ready to decide."""

    __slots__ = (
        "_compiled",
        "_default_action",
        "_index",
        "_peers",
        "_providers",
        "_remembered",
        "_rules",
        "_service",
        "_trust_domain",
        "decisive_headers",
        "importers",
        "reserved_headers",
        "sees_what_is_added",
    )
    importers: tuple[str, ...]
    """The peers for whose callers a mesh gateway may ask."""
    reserved_headers: frozenset[bytes]
    """Names under which the gateway passes on what tokens say: a client's own headers of that name never are."""
    decisive_headers: frozenset[bytes]
    """Names that some permission looks at: no trailer has them, since a server may put trailers among the headers."""

    sees_what_is_added: bool
    """Requests have to be shown to it as they are told to the external service (:mod:`proxy.http.policy.told`)."""

    def __init__(
        self,
        *,
        service: ServiceName,
        trust_domain: str,
        default_action: Action | None,
        intentions: tuple[Intention, ...] | None,
        peer_bundles: Iterable[PeerBundle],
        token_providers: Iterable[TokenProvider] = (),
        importers: Iterable[str] = (),
    ) -> None:
        self._service = service
        self._trust_domain = trust_domain
        self._default_action = default_action
        self._index = None if intentions is None else IntentionIndex(intentions)
        self._peers = {bundle.peer: bundle for bundle in peer_bundles}
        self.importers = tuple(importers)
        self._providers = {provider.name: provider for provider in token_providers}
        named = _providers_of(intentions or ())
        self.reserved_headers = forward_headers(one for name, one in self._providers.items() if name in named)
        self.decisive_headers = _headers_asked_for(intentions or ())
        self.sees_what_is_added = not ADDED.isdisjoint(self.decisive_headers)
        self._compiled: dict[Intention, tuple[tuple[CompiledPermission, Tokens | None], ...]] = {}
        self._rules: dict[tuple[Identity, str], _Rules] = {}
        self._remembered = 0

    @classmethod
    def compile(cls, service: Service, mesh: Mesh) -> Policy:
        return cls(
            service=service.name,
            trust_domain=mesh.trust_domain,
            default_action=mesh.default_action,
            intentions=service.intentions,
            peer_bundles=mesh.peer_bundles,
            token_providers=mesh.token_providers,
            importers=service.importers if service.http is not None else (),
        )

    def authorize(self, identity: Identity, peer: str = "") -> Decision:
        """Decide about a connection of a caller whose certificate was verified.

        ``peer`` says by whose roots: it is the ``peer`` of the server name that the caller asked for, empty for
        this cluster's own roots. A certificate counts only for the trust domain whose roots verified it, else a
        peer's authority could issue the identities of this cluster.
        """
        return self._rules_for(identity, peer).connection

    def authorize_request(self, identity: Identity, peer: str, head: RequestHead, now_s: float) -> Decision:
        """Decide about a request of such a caller.

        :param head: with its target in the one form (:func:`proxy.http.policy.normalization.normalized`): what is
            decided about has to be what is forwarded.
        :param now_s: Unix time, for the validity of tokens.
        """
        rules = self._rules_for(identity, peer)
        return rules.connection if rules.request is None else rules.request.decide(head, now_s)

    def matching(self, identity: Identity, peer: str) -> tuple[Intention, ...]:
        """Every intention that concerns this caller, the one that decides first; none while they are not known."""
        return () if self._index is None else self._index.matches(identity, peer)

    def explain_request(self, identity: Identity, peer: str, head: RequestHead, now_s: float) -> Iterator[str]:
        """Say in lines of text how :meth:`authorize_request` comes to its decision."""
        rules = self._rules_for(identity, peer)
        if rules.request is not None:
            yield from rules.request.trace(head, now_s)
        elif isinstance(rules.connection, Refusal):
            yield rules.connection.sentence
        else:
            yield f"allowed by {describe(rules.connection)}"

    def _rules_for(self, identity: Identity, peer: str) -> _Rules:
        # A policy never changes, so what it said it would say again; a change of intentions makes another policy.
        caller = (identity, peer)
        rules = self._rules.get(caller)
        if rules is None:
            rules = self._decide(_Caller(self._service, identity, peer))
            decisions = 1 + (len(rules.request.steps) if rules.request else 0)
            if self._remembered + decisions > _MOST_REMEMBERED:
                self._rules.clear()
                self._remembered = 0
            self._rules[caller] = rules
            self._remembered += decisions
        return rules

    def _decide(self, caller: _Caller) -> _Rules:
        stranger = self.stranger(caller.identity, caller.peer)
        if stranger:
            return _Rules(Refusal(CloseReason.BAD_IDENTITY, None, stranger))
        if self._index is None:
            return _Rules(caller.unknown("its intentions are not known yet"))
        intention = self._index.first_match(caller.identity, caller.peer)
        if intention is None:
            return _Rules(self._by_default(caller, "no intention"))
        if intention.layer7:
            why = "which has permissions or JWT requirements and therefore denies connections at layer 4"
            return _Rules(caller.denied_by(intention, why), self._request_rules(caller, intention))
        return _Rules(_by_action(caller, intention))

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

    def objection_to(self, gateway: MeshGateway, peer: str = "") -> str:
        """Say why a mesh gateway may not ask for services of peers; empty when it may.

        :param peer: as of :meth:`authorize`.
        """
        who = f"a mesh gateway of {gateway.datacenter}"
        if (gateway.trust_domain, gateway.partition, peer) != (self._trust_domain, self._service.partition, ""):
            where = f"trust domain {gateway.trust_domain!r}, partition {gateway.partition!r}"
            return f"{who} is of {where}: only those of this cluster and the service's partition may ask for peers"
        if not self.importers:
            return f"{who} may ask for services of peers alone, and {self._service} is exported to no peer over HTTP"
        return ""

    def importer_of(self, identity: Identity) -> str:
        """The peer that a caller lives in for whom a mesh gateway asks.

        :raises IdentityError: when it is of no peer that the service is exported to, or nobody can say of which one.
        """
        if identity.trust_domain == self._trust_domain:
            raise IdentityError(f"a mesh gateway asks for {identity.service!r} of this cluster, not of a peer")
        home = (identity.trust_domain, identity.partition)
        found = [one for one in self._peers.values() if (one.trust_domain, one.partition) == home]
        peers = [one.peer for one in found if one.peer in self.importers]
        if len(peers) == 1:
            return peers[0]
        caller = f"the caller {identity.service!r} of trust domain {identity.trust_domain!r}"
        if peers:
            raise IdentityError(f"{caller} may be of any of the peers {', '.join(peers)}: which one is not known")
        if not found:
            raise IdentityError(f"{caller}, partition {identity.partition!r}, is of no known peer")
        names = ", ".join(one.peer for one in found)
        raise IdentityError(f"{caller} is of peer {names}, to which {self._service} is not exported")

    def _by_default(self, caller: _Caller, nothing: str) -> Decision:
        """``nothing`` matches."""
        if self._default_action is Action.ALLOW:
            return caller.permitted(None)
        if self._default_action is None:
            return caller.unknown(f"{nothing} matches and the default action is not known yet")
        return caller.denied(None, f"denied by the default, as {nothing} matches")

    def _request_rules(self, caller: _Caller, intention: Intention) -> RequestRules:
        asks = f"denied by intention {intention_text(intention)}, which asks for a token"
        without_token = caller.denied(intention, asks, by=f"{intention_text(intention)}, JWT")
        if not intention.permissions and not intention.tokens:
            unknown = caller.denied_by(intention, "whose permissions or JWT requirements are not known")
            return RequestRules((), unknown, None, without_token)
        if intention.permissions:
            otherwise = self._by_default(caller, f"no permission of {intention_text(intention)}")
        else:
            otherwise = _by_action(caller, intention)
        steps = tuple(_step(caller, intention, *compiled) for compiled in self._compile(intention))
        return RequestRules(steps, otherwise, self._tokens(intention.tokens), without_token)

    def _compile(self, intention: Intention) -> tuple[tuple[CompiledPermission, Tokens | None], ...]:
        """Once for all callers."""
        found = self._compiled.get(intention)
        if found is None:
            compiled = compile_permissions(intention.permissions)
            found = tuple((one, self._tokens(one.permission.tokens)) for one in compiled)
            self._compiled[intention] = found
        return found

    def _tokens(self, requirements: tuple[TokenRequirement, ...]) -> Tokens | None:
        return Tokens(requirements, self._providers) if requirements else None


@dataclass(frozen=True, slots=True)
class _Rules:
    """What one caller is decided about by."""

    connection: Decision
    request: RequestRules | None = None
    """``None``: requests are decided as connections are."""


@dataclass(frozen=True, slots=True)
class _Caller:
    """Whom a decision is about, in front of which service."""

    service: ServiceName
    identity: Identity
    peer: str

    def permitted(self, intention: Intention | None, permission: int = 0, by: str = "") -> Permit:
        return Permit(SEAL, self.service, self.identity, self.peer, intention, permission, by)

    def denied(self, intention: Intention | None, why: str, permission: int = 0, by: str = "") -> Refusal:
        return Refusal(CloseReason.DENIED, intention, self._sentence(why), permission, by)

    def denied_by(self, intention: Intention, why: str = "") -> Refusal:
        return self.denied(intention, f"denied by intention {intention_text(intention)}{', ' if why else ''}{why}")

    def unknown(self, why: str) -> Refusal:
        return Refusal(CloseReason.POLICY_UNKNOWN, None, self._sentence(why))

    def _sentence(self, why: str) -> str:
        name = ServiceName(self.identity.service, self.identity.namespace, self.identity.partition)
        return f"{source_text(self.peer, name)} may not connect to {self.service}: {why}"


def _step(caller: _Caller, intention: Intention, compiled: CompiledPermission, tokens: Tokens | None) -> Step:
    by = f"{intention_text(intention)}, {compiled.name}"
    outcome: Decision
    if compiled.unusable:
        why = f"denied by {by}, which cannot be evaluated: {compiled.unusable}"
        outcome = caller.denied(intention, why, compiled.number, by)
    elif compiled.permission.action is Action.ALLOW:
        outcome = caller.permitted(intention, compiled.number, by)
    else:
        outcome = caller.denied(intention, f"denied by {by}", compiled.number, by)
    return Step(compiled, outcome, tokens)


def _by_action(caller: _Caller, intention: Intention) -> Decision:
    return caller.permitted(intention) if intention.action is Action.ALLOW else caller.denied_by(intention)


def _headers_asked_for(intentions: Iterable[Intention]) -> frozenset[bytes]:
    permissions = (permission for one in intentions for permission in one.permissions)
    return frozenset(header.name.lower().encode() for permission in permissions for header in permission.headers)


def _providers_of(intentions: Iterable[Intention]) -> frozenset[str]:
    """Whose tokens some of them ask for."""
    of_intentions = (one.tokens for one in intentions)
    of_permissions = (permission.tokens for one in intentions for permission in one.permissions)
    return frozenset(one.provider for asked in (*of_intentions, *of_permissions) for one in asked)
