"""What a policy answers: a permit, or a refusal that says why."""

from __future__ import annotations

from dataclasses import InitVar, dataclass

from proxy.http.policy.tokens import Accepted
from proxy.model import CloseReason, ServiceName
from proxy.policy.identity import Identity
from proxy.policy.intention_index import intention_text
from proxy.rules import Intention

SEAL = object()
"""Without it no Permit comes into being. Only the policy uses it (``tests/unit/project/test_architecture.py``)."""


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
        if seal is not SEAL:
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
    """What was wrong with the token that would have helped: the client may come back with a good one (401). Empty for
    one that is good and lacks a claim."""
    unknown_keys: tuple[str, ...] = ()
    """As of a :class:`proxy.http.policy.tokens.Rejected`."""


Decision = Permit | Refusal


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
