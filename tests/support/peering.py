"""Two real clusters that are peered."""

from __future__ import annotations

from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConsulError
from tests.support.eventually import eventually

PEER = "cloud"
"""What the cluster of the gateway calls the other one."""
BACK = "premises"
"""What the other one calls it."""


async def peer(own: ConsulAgent, far: ConsulAgent) -> None:
    """Peer them, and wait until each has the roots of the other."""
    token = (await own.api("POST", "/v1/peering/token", {"PeerName": PEER}))["PeeringToken"]

    async def established() -> bool:
        try:
            await far.api("POST", "/v1/peering/establish", {"PeerName": BACK, "PeeringToken": token})
        except ConsulError:
            return False
        return True

    await eventually(established, 30.0, what="the clusters are peered")

    async def known() -> bool:
        rows = [*await own.api("GET", "/v1/peerings"), *await far.api("GET", "/v1/peerings")]
        return all(row.get("PeerCAPems") for row in rows)

    await eventually(known, 30.0, what="each cluster has the roots of the other")


async def export(own: ConsulAgent, *services: str) -> None:
    """To ``PEER``, these and no others."""
    rows = [{"Name": name, "Consumers": [{"Peer": PEER}]} for name in services]
    await own.write_config({"Kind": "exported-services", "Name": "default", "Services": rows})
