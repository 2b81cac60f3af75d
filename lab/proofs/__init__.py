"""What the lab proves, one after the other: each proof says what it has seen, or what was not as it should be.

They build on each other in the order of :data:`PROOFS`, and leave the lab with web let in by both services.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from lab.actors import Actors
from lab.proofs import failover, identity, isolation, policy
from lab.proofs.proof import Disproved

Proof = Callable[[Actors], Awaitable[str]]

PROOFS: dict[str, Proof] = {
    "only gateways meet": isolation.only_gateways_meet,
    "refused without an intention": policy.refused_without_an_intention,
    "works with an intention": policy.works_with_an_intention,
    "the gateway sees who calls": identity.the_gateway_sees_who_calls,
    "a header makes nobody another": identity.a_header_makes_nobody_another,
    "a live connection ends on deny": policy.a_live_connection_ends_on_deny,
    "another terminating gateway takes over": failover.another_terminating_gateway_takes_over,
    "another mesh gateway takes over": failover.another_mesh_gateway_takes_over,
}

__all__ = ["PROOFS", "Disproved", "Proof"]
