"""Tokens that requests carry (JWT, RFC 7519), against what intentions ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proxy.http.message import Headers, RequestHead
from proxy.rules import TokenProvider, TokenRequirement


@dataclass(frozen=True, slots=True)
class Accepted:
    """Valid tokens of one request, and what follows from them."""

    valid_until_s: float
    """Unix time at which the first of them is no longer good; infinity when none says."""
    removed: frozenset[bytes]
    """Headers that the external service does not get."""
    added: Headers
    """Headers that it gets, made from the tokens."""

    def and_also(self, other: Accepted | None) -> Accepted:
        if other is None:
            return self
        return Accepted(
            min(self.valid_until_s, other.valid_until_s),
            self.removed | other.removed,
            other.added + [header for header in self.added if header not in other.added],
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    why: str
    """A sentence that names the provider and what was wrong, never the token."""
    unknown: bool
    """Nobody can say, since the keys of a provider could not be had."""


class Tokens:
    """Any one of the requirements has to be met."""

    def __init__(self, requirements: Sequence[TokenRequirement], providers: Mapping[str, TokenProvider]) -> None:
        self._requirements = requirements

    @classmethod
    def compile(cls, requirements: Sequence[TokenRequirement], providers: Mapping[str, TokenProvider]) -> Tokens | None:
        """``None`` when nothing is required."""
        return cls(requirements, providers) if requirements else None

    def check(self, head: RequestHead, now_s: float) -> Accepted | Rejected:
        names = ", ".join(requirement.provider for requirement in self._requirements)
        return Rejected(f"the keys of {names} are not known", unknown=True)
