"""Consul's answer about who may connect, as the data plane takes it.

Nothing is decided here. What this program does not understand becomes a denial, never an allowance.
"""

from __future__ import annotations

from collections.abc import Iterable

from plugin.consul.api import IntentionMatch
from proxy.rules import Action, Intention


def decode_intentions(matches: Iterable[IntentionMatch]) -> tuple[Intention, ...]:
    """Return the intentions of one destination, the highest precedence first.

    Consul's order is kept among equals. Source: ``GET /v1/connect/intentions/match?by=destination``.
    """
    intentions = [_decoded(match) for match in matches]
    return tuple(sorted(intentions, key=lambda intention: -intention.precedence))


def _decoded(match: IntentionMatch) -> Intention:
    # A sameness group stands for partitions and peers that only Consul Enterprise knows.
    allowed = match.action == "allow" and not match.source_sameness_group
    return Intention(
        source=match.source_name,
        action=Action.ALLOW if allowed else Action.DENY,
        precedence=match.precedence,
        source_namespace=match.source_ns or "default",
        source_partition=match.source_partition or "default",
        source_peer=match.source_peer,
        destination=match.destination_name,
        layer7=bool(match.permissions) or match.jwt is not None,
    )
