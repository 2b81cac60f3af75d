"""Consul's answer about who may connect, as the data plane takes it.

Nothing is decided here. What this program does not understand becomes a denial, never an allowance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from plugin.assemble.permissions import permission, requirements
from plugin.consul.api import IntentionMatch
from plugin.consul.strict import NotUnderstood, shortened
from proxy.rules import Action, Intention, TokenRequirement

_TOLD = 5
"""Of the permissions of one intention that cannot be evaluated: the others are counted."""


@dataclass(frozen=True, slots=True)
class Decoded:
    intentions: tuple[Intention, ...]
    """The highest precedence first; Consul's order is kept among equals."""
    warnings: tuple[str, ...] = ()
    """Which of them deny because they cannot be evaluated, and how to mend it."""


def decode_intentions(matches: Iterable[IntentionMatch]) -> tuple[Intention, ...]:
    """As :func:`read_intentions`, without a word about those that cannot be evaluated."""
    return read_intentions(matches).intentions


def read_intentions(matches: Iterable[IntentionMatch]) -> Decoded:
    """Read the intentions of one destination. Source: ``GET /v1/connect/intentions/match?by=destination``."""
    intentions: list[Intention] = []
    warnings: list[str] = []
    for match in matches:
        intention, why = _decoded(match)
        intentions.append(intention)
        warnings += _warnings(intention, why)
    return Decoded(tuple(sorted(intentions, key=lambda intention: -intention.precedence)), tuple(warnings))


def named_providers(matches: Iterable[IntentionMatch]) -> frozenset[str]:
    """The jwt-provider entries whose tokens somebody needs."""
    with_tokens = [match for match in matches if match.jwt is not None or match.permissions]
    return frozenset(one.provider for intention in decode_intentions(with_tokens) for one in requirements_of(intention))


def requirements_of(intention: Intention) -> Iterator[TokenRequirement]:
    """Its own and those of its permissions."""
    yield from intention.tokens
    for one in intention.permissions:
        yield from one.tokens


def _warnings(intention: Intention, why: str) -> Iterator[str]:
    where, remedy = (
        f"the intention {intention.source} => {intention.destination}",
        "Correct the service-intentions entry",
    )
    if why:
        yield f"{where} denies whatever it says: {why}. {remedy}"
    unusable = [(number, one) for number, one in enumerate(intention.permissions, start=1) if one.unusable]
    for number, one in unusable[:_TOLD]:
        what = f"permission {number} of {where} cannot be evaluated, and what comes to it is denied"
        yield f"{what}: {one.unusable}. {remedy}"
    if len(unusable) > _TOLD:
        yield f"{len(unusable) - _TOLD} more permissions of {where} cannot be evaluated. {remedy}"


def _decoded(match: IntentionMatch) -> tuple[Intention, str]:
    """With why it denies whatever it says; empty when it does not."""
    plain = Intention(
        source=match.source_name,
        action=Action.ALLOW if match.action == "allow" else Action.DENY,
        precedence=match.precedence,
        source_namespace=match.source_ns or "default",
        source_partition=match.source_partition or "default",
        source_peer=match.source_peer,
        destination=match.destination_name,
        layer7=match.permissions not in (None, [], ()) or match.jwt is not None,
    )
    denied = msgspec.structs.replace(plain, action=Action.DENY)
    if match.source_sameness_group:
        # It stands for partitions and peers that only Consul Enterprise knows.
        return denied, f"its source is the sameness group {shortened(match.source_sameness_group)}"
    try:
        tokens = requirements(match.jwt) if match.jwt is not None else ()
    except NotUnderstood as error:
        return denied, str(error)
    if match.permissions is not None and not isinstance(match.permissions, list | tuple):
        return denied, "its Permissions are no list"
    permissions = tuple(map(permission, match.permissions or ()))
    if not permissions:
        return msgspec.structs.replace(plain, tokens=tokens), ""
    return msgspec.structs.replace(denied, permissions=permissions, tokens=tokens), ""
