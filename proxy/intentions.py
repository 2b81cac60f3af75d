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

from collections.abc import Iterable
from dataclasses import InitVar, dataclass, replace

from proxy.http.message import RequestHead
from proxy.http.permissions import Asked, CompiledPermission, compile_permissions
from proxy.http.tokens import Accepted, Tokens
from proxy.identity import Identity
from proxy.intention_index import IntentionIndex, intention_text, source_text
from proxy.model import CloseReason, Mesh, PeerBundle, Service, ServiceName
from proxy.rules import Action, Intention, TokenProvider

_MOST_REMEMBERED = 10_000
"""Callers that one policy keeps at hand."""

_SEAL = object()
"""Held by this module alone: without it no Permit comes into being."""


@dataclass(frozen=True, slots=True)
class Permit:
    """Proof that policy lets ``identity`` connect to ``service``, or ask it what was asked."""

    seal: InitVar[object]
    service: ServiceName
    identity: Identity
    peer: str
    """The peer that the caller lives in; empty for this cluster."""
    intention: Intention | None
    """What allowed it; ``None``: the default action."""
    permission: int = 0
    """Which of its permissions, the first one being 1; 0: none."""
    by: str = ""
    """``intention`` and ``permission`` in words, when there is a permission: see :func:`describe`."""
    tokens: Accepted | None = None
    """Of the request, where tokens were asked for: what to add and remove, and until when the permit is good."""

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("only a Policy makes a Permit")


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: CloseReason
    """``denied``, ``policy_unknown`` or ``bad_identity``."""
    intention: Intention | None
    """What denied it; ``None``: the default action, or there was nothing to decide with."""
    sentence: str
    """For the log: what was refused, and by what."""
    permission: int = 0
    by: str = ""
    """As of a :class:`Permit`."""
    token: str = ""
    """What was wrong with the tokens that would have helped: the client should come back with another one (401)."""


Decision = Permit | Refusal


class Policy:
    """The intentions of one linked service, ready to decide."""

    __slots__ = (
        "_compiled",
        "_default_action",
        "_index",
        "_peers",
        "_providers",
        "_rules",
        "_service",
        "_trust_domain",
    )

    def __init__(
        self,
        *,
        service: ServiceName,
        trust_domain: str,
        default_action: Action | None,
        intentions: tuple[Intention, ...] | None,
        peer_bundles: Iterable[PeerBundle],
        token_providers: Iterable[TokenProvider] = (),
    ) -> None:
        self._service = service
        self._trust_domain = trust_domain
        self._default_action = default_action
        self._index = None if intentions is None else IntentionIndex(intentions)
        self._peers = {bundle.peer: bundle for bundle in peer_bundles}
        self._providers = {provider.name: provider for provider in token_providers}
        self._compiled: dict[Intention, tuple[CompiledPermission, ...]] = {}
        self._rules: dict[tuple[Identity, str], _Rules] = {}

    @classmethod
    def compile(cls, service: Service, mesh: Mesh) -> Policy:
        return cls(
            service=service.name,
            trust_domain=mesh.trust_domain,
            default_action=mesh.default_action,
            intentions=service.intentions,
            peer_bundles=mesh.peer_bundles,
            token_providers=mesh.token_providers,
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

        :param head: with its target in the one form (:func:`proxy.http.normalization.normalized`): what is decided
            about has to be what is forwarded.
        :param now_s: Unix time, for the validity of tokens.
        """
        rules = self._rules_for(identity, peer)
        return rules.connection if rules.request is None else rules.request.decide(head, now_s)

    def _rules_for(self, identity: Identity, peer: str) -> _Rules:
        # A policy never changes, so what it said it would say again; a change of intentions makes another policy.
        caller = (identity, peer)
        rules = self._rules.get(caller)
        if rules is None:
            if len(self._rules) >= _MOST_REMEMBERED:
                self._rules.clear()
            rules = self._rules[caller] = self._decide(identity, peer)
        return rules

    def _decide(self, identity: Identity, peer: str) -> _Rules:
        stranger = self.stranger(identity, peer)
        if stranger:
            return _Rules(Refusal(CloseReason.BAD_IDENTITY, None, stranger))
        if self._index is None:
            return _Rules(self._unknown(identity, peer, "its intentions are not known yet"))
        intention = self._index.first_match(identity, peer)
        if intention is None:
            return _Rules(self._by_default(identity, peer))
        if intention.layer7:
            why = "which has permissions or JWT requirements and therefore denies connections at layer 4"
            return _Rules(self._denied(identity, peer, intention, why), self._request_rules(identity, peer, intention))
        return _Rules(self._by_action(identity, peer, intention))

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

    def _by_action(self, identity: Identity, peer: str, intention: Intention) -> Decision:
        if intention.action is Action.ALLOW:
            return Permit(_SEAL, self._service, identity, peer, intention)
        return self._denied(identity, peer, intention)

    def _by_default(self, identity: Identity, peer: str, intention: Intention | None = None) -> Decision:
        """``intention``: the one that matched the caller, but none of whose permissions matched the request."""
        if self._default_action is Action.ALLOW:
            return Permit(_SEAL, self._service, identity, peer, None)
        nothing = "no intention" if intention is None else f"no permission of {intention_text(intention)}"
        if self._default_action is None:
            return self._unknown(identity, peer, f"{nothing} matches and the default action is not known yet")
        return self._refused(identity, peer, None, f"denied by the default, as {nothing} matches")

    def _denied(self, identity: Identity, peer: str, intention: Intention, why: str = "") -> Refusal:
        by = f"denied by intention {intention_text(intention)}{', ' if why else ''}{why}"
        return self._refused(identity, peer, intention, by)

    def _refused(self, identity: Identity, peer: str, intention: Intention | None, why: str) -> Refusal:
        sentence = f"{_caller_text(identity, peer)} may not connect to {self._service}: {why}"
        return Refusal(CloseReason.DENIED, intention, sentence)

    def _unknown(self, identity: Identity, peer: str, why: str) -> Refusal:
        sentence = f"{_caller_text(identity, peer)} may not connect to {self._service}: {why}"
        return Refusal(CloseReason.POLICY_UNKNOWN, None, sentence)

    # --- layer 7 -------------------------------------------------------------------------------------------------

    def _request_rules(self, identity: Identity, peer: str, intention: Intention) -> _RequestRules:
        if not intention.permissions and not intention.tokens:
            why = "whose permissions or JWT requirements are not known"
            return _RequestRules((), self._denied(identity, peer, intention, why), None, intention)
        compiled = self._compiled.get(intention)
        if compiled is None:
            compiled = self._compiled[intention] = compile_permissions(intention.permissions)
        if not compiled:
            otherwise = self._by_action(identity, peer, intention)
        else:
            otherwise = self._by_default(identity, peer, intention)
        return _RequestRules(
            tuple(self._step(identity, peer, intention, permission) for permission in compiled),
            otherwise,
            Tokens.compile(intention.tokens, self._providers),
            intention,
        )

    def _step(self, identity: Identity, peer: str, intention: Intention, permission: CompiledPermission) -> _Step:
        by = f"{intention_text(intention)}, {permission.name}"
        tokens = Tokens.compile(permission.permission.tokens, self._providers)
        outcome: Decision
        if permission.permission.action is Action.ALLOW and not permission.unusable:
            outcome = Permit(_SEAL, self._service, identity, peer, intention, permission.number, by)
        else:
            why = f", which cannot be evaluated: {permission.unusable}" if permission.unusable else ""
            sentence = f"{_caller_text(identity, peer)} may not ask this of {self._service}: denied by {by}{why}"
            outcome = Refusal(CloseReason.DENIED, intention, sentence, permission.number, by)
        return _Step(permission, outcome, tokens)


@dataclass(frozen=True, slots=True)
class _Rules:
    """What one caller is decided about by."""

    connection: Decision
    request: _RequestRules | None = None
    """``None``: requests are decided as connections are."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One permission, and what it means for one caller."""

    permission: CompiledPermission
    outcome: Decision
    tokens: Tokens | None


@dataclass(frozen=True, slots=True)
class _RequestRules:
    """What requests of one caller are decided by."""

    steps: tuple[_Step, ...]
    otherwise: Decision
    tokens: Tokens | None
    """Those that the intention itself asks for."""
    intention: Intention

    def decide(self, head: RequestHead, now_s: float) -> Decision:
        asked = Asked(head)
        decision, missed = self.otherwise, ""
        for step in self.steps:
            permission = step.permission
            if permission.unusable:
                return step.outcome
            if not permission.matches(asked):
                continue
            if step.tokens is None:
                decision = step.outcome
                break
            verdict = step.tokens.check(head, now_s)
            if isinstance(verdict, Accepted):
                decision = _with_tokens(step.outcome, verdict)
                break
            if verdict.unknown and isinstance(step.outcome, Refusal):
                # Nobody knows whether the token is one of those that are denied.
                return _because(step.outcome, verdict.why)
            missed = missed or f"{permission.name} would match with another token: {verdict.why}"
        if isinstance(decision, Refusal):
            return _because(decision, missed, token=missed) if missed else decision
        if self.tokens is None:
            return decision
        verdict = self.tokens.check(head, now_s)
        if isinstance(verdict, Accepted):
            return _with_tokens(decision, verdict)
        sentence = f"{_caller_text(decision.identity, decision.peer)} may not ask this of {decision.service}: "
        by = f"intention {intention_text(self.intention)} asks for a token: {verdict.why}"
        return Refusal(CloseReason.DENIED, self.intention, sentence + by, token=verdict.why)


def describe(decision: Decision) -> str:
    """Name what decided, for the log: ``web => db (precedence 9)``, ``default deny``, or the close reason.

    With a permission: ``web => api (precedence 9), permission 2 (GET /admin*)``.
    """
    if decision.by:
        return decision.by
    if decision.intention is not None:
        return intention_text(decision.intention)
    if isinstance(decision, Permit):
        return "default allow"
    return "default deny" if decision.reason is CloseReason.DENIED else decision.reason.value


def _with_tokens(decision: Decision, accepted: Accepted) -> Decision:
    if isinstance(decision, Refusal):
        return decision
    return replace(decision, seal=_SEAL, tokens=accepted.and_also(decision.tokens))


def _because(refusal: Refusal, why: str, *, token: str = "") -> Refusal:
    return replace(refusal, sentence=f"{refusal.sentence} ({why})", token=token)


def _caller_text(identity: Identity, peer: str) -> str:
    return source_text(peer, ServiceName(identity.service, identity.namespace, identity.partition))
