"""A token whose policy a test changes while a gateway runs with it."""

from __future__ import annotations

import uuid
from typing import Self

from plugin.dev.consul_agent import ConsulAgent

NODES = 'node_prefix "" { policy = "read" }'


def write(*services: str) -> str:
    return "\n".join(f'service "{name}" {{ policy = "write" }}' for name in services)


class Rights:
    """Of one token with one policy."""

    def __init__(self, agent: ConsulAgent, policy_id: str, secret: str, accessor: str) -> None:
        self._agent = agent
        self._policy_id = policy_id
        self.secret = secret
        self.accessor = accessor

    @classmethod
    async def of(cls, agent: ConsulAgent, rules: str) -> Self:
        policy = await agent.api("PUT", "/v1/acl/policy", {"Name": f"rights-{uuid.uuid4()}", "Rules": rules})
        token = await agent.api("PUT", "/v1/acl/token", {"Policies": [{"ID": policy["ID"]}]})
        return cls(agent, policy["ID"], token["SecretID"], token["AccessorID"])

    async def become(self, rules: str) -> None:
        """Replace the rules of the policy; the token stays the same."""
        path = f"/v1/acl/policy/{self._policy_id}"
        known = await self._agent.api("GET", path)
        await self._agent.api("PUT", path, {"ID": self._policy_id, "Name": known["Name"], "Rules": rules})

    async def revoke(self) -> None:
        """Delete the token."""
        await self._agent.api("DELETE", f"/v1/acl/token/{self.accessor}")
