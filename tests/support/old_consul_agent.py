"""An agent of Consul 1.8, and an operator's way to write what newer ones keep differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from plugin.dev import locate
from plugin.dev.consul_agent import ConsulAgent

INTENTIONS = "/v1/connect/intentions"


class OldConsulAgent(ConsulAgent):
    """A :class:`ConsulAgent` of 1.8: intentions are no config entries there, and some settings have other names."""

    def __init__(self, work_dir: Path, **options: Any) -> None:
        super().__init__(work_dir, program=locate.old_consul(), **options)

    def _configuration(self) -> dict[str, Any]:
        configuration = super()._configuration()
        # TLS for gRPC came with peering.
        del configuration["ports"]["grpc_tls"]
        if self.acl:
            tokens = configuration["acl"]["tokens"]
            tokens["master"] = tokens.pop("initial_management")
        return configuration

    async def write_intention(self, source: str, destination: str, action: str = "allow") -> None:
        intention = {"SourceName": source, "DestinationName": destination, "SourceType": "consul", "Action": action}
        identifier = await self._intention_id(source, destination)
        if identifier:
            await self.api("PUT", f"{INTENTIONS}/{identifier}", intention)
        else:
            await self.api("POST", INTENTIONS, intention)

    async def delete_intention(self, source: str, destination: str) -> None:
        identifier = await self._intention_id(source, destination)
        if identifier:
            await self.api("DELETE", f"{INTENTIONS}/{identifier}")

    async def _intention_id(self, source: str, destination: str) -> str:
        """Empty when there is no such intention."""
        rows = await self.api("GET", INTENTIONS)
        found = (row["ID"] for row in rows if (row["SourceName"], row["DestinationName"]) == (source, destination))
        return next(found, "")
