"""What the requests of one caller are decided by: permissions in their order, then the tokens of the intention."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from proxy.http.message import RequestHead
from proxy.http.policy.asked import Asked
from proxy.http.policy.permissions import CompiledPermission
from proxy.http.policy.tokens import Accepted, Rejected, Tokens
from proxy.policy.decision import SEAL, Decision, Permit, Refusal, describe


@dataclass(frozen=True, slots=True)
class Step:
    """One permission, and what it means for the caller."""

    permission: CompiledPermission
    outcome: Decision
    """Of a request that it decides about; without the tokens of that request."""
    tokens: Tokens | None


@dataclass(frozen=True, slots=True)
class RequestRules:
    """Of one intention of layer 7."""

    steps: tuple[Step, ...]
    otherwise: Decision
    """When none of them decides."""
    tokens: Tokens | None
    """Those that the intention itself asks for, whatever its permissions say."""
    without_token: Refusal
    """When they are not there."""

    def decide(self, head: RequestHead, now_s: float) -> Decision:
        """``head`` and ``now_s`` as of :meth:`proxy.policy.intentions.Policy.authorize_request`."""
        decision, missed = self._by_permissions(head, now_s)
        if isinstance(decision, Refusal):
            return _because(decision, missed) if missed else decision
        if self.tokens is None:
            return decision
        verdict = self.tokens.check(head, now_s)
        if isinstance(verdict, Rejected):
            return _because(self.without_token, verdict)
        return _with_tokens(decision, verdict)

    def _by_permissions(self, head: RequestHead, now_s: float) -> tuple[Decision, Rejected | None]:
        """Also why the first permission that matched but for its token did not count."""
        asked, missed = Asked(head), None
        for step in self.steps:
            permission = step.permission
            if permission.unusable:
                return step.outcome, None
            if not permission.matches(asked):
                continue
            if step.tokens is None:
                return step.outcome, missed
            verdict = step.tokens.check(head, now_s)
            if isinstance(verdict, Accepted):
                return _with_tokens(step.outcome, verdict), missed
            if verdict.unknown and isinstance(step.outcome, Refusal):
                # Nobody knows whether the token is one of those that are denied.
                return step.outcome, verdict
            if missed is None:
                missed = replace(verdict, why=f"{permission.name} would match with another token: {verdict.why}")
        return self.otherwise, missed

    def trace(self, head: RequestHead, now_s: float) -> Iterator[str]:
        """One line for each thing that was looked at, the last one for what decided: for whoever asks why."""
        asked = Asked(head)
        for step in self.steps:
            permission = step.permission
            if permission.unusable:
                yield f"{permission.name}: cannot be evaluated, which denies: {permission.unusable}"
                break
            if not permission.matches(asked):
                yield f"{permission.name}: does not match"
                continue
            verdict = step.tokens.check(head, now_s) if step.tokens else None
            if not isinstance(verdict, Rejected):
                yield f"{permission.name}: matches"
                break
            yield f"{permission.name}: matches but for the token: {verdict.why}"
            if verdict.unknown and isinstance(step.outcome, Refusal):
                break
        decision = self.decide(head, now_s)
        yield decision.sentence if isinstance(decision, Refusal) else f"allowed by {describe(decision)}"


def _with_tokens(decision: Decision, accepted: Accepted) -> Decision:
    if isinstance(decision, Refusal):
        return decision
    # dataclasses.replace() takes three times as long.
    return Permit(
        SEAL,
        decision.service,
        decision.identity,
        decision.peer,
        decision.intention,
        decision.permission,
        decision.by,
        accepted.and_also(decision.tokens),
    )


def _because(refusal: Refusal, why: Rejected) -> Refusal:
    # Whoever has shown a good token need not be asked for one (RFC 6750 section 3.1: insufficient_scope is 403).
    helps = not why.unknown and not why.claims
    return replace(
        refusal,
        sentence=f"{refusal.sentence} ({why.why})",
        token=why.why if helps else "",
        unknown_keys=why.unknown_keys,
    )
