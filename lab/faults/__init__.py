"""What the lab goes through, and what keeps working meanwhile: each fault says what was measured.

They expect web to be let in by both services, as the proofs leave it, and leave the lab whole and web let in.
"""

from __future__ import annotations

from lab.faults import servers, wan
from lab.proofs import Proof

FAULTS: dict[str, Proof] = {
    "the WAN is cut, and restored": wan.cut_and_restored,
    "a mesh gateway is killed": wan.a_mesh_gateway_is_killed,
    "the leader of the servers is lost": servers.the_leader_is_lost,
    "the callers' servers are away": servers.the_callers_servers_are_away,
    "the WAN is slow and loses frames": wan.slow_and_lossy,
}

__all__ = ["FAULTS"]
