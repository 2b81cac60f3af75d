"""An agent that somebody else runs, driven like our own: for ``dev`` on an existing Consul.

What is written there is taken back in the end: entries that were there before get their former content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConfigError, ConsulRejected


class RemoteAgent(ConsulAgent):
    """The agent at ``CONSUL_HTTP_ADDR``. Starting checks that it answers; stopping leaves it alone."""

    def __init__(self, work_dir: Path, environment: Mapping[str, str] = os.environ) -> None:
        """:raises ConfigError: when the address is not plain HTTP on TCP: sidecars here need no more."""
        super().__init__(work_dir)
        address = environment["CONSUL_HTTP_ADDR"]
        parts = urlsplit(address if "://" in address else f"http://{address}")
        if parts.scheme != "http" or not parts.hostname:
            raise ConfigError(
                f"CONSUL_HTTP_ADDR is {address!r}: the demonstration needs a plain http:// address; unset it to get an"
                " agent of its own"
            )
        self._host = parts.hostname
        self.http_port = parts.port or 8500
        self._grpc_address = environment.get("CONSUL_GRPC_ADDR", "").removeprefix("http://")
        self.management_token = environment.get("CONSUL_HTTP_TOKEN", "")

    @property
    def http_address(self) -> str:
        return f"http://{self._host}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return self._grpc_address

    async def start(self) -> None:
        """:raises ConsulError: when it does not answer.
        :raises ConfigError: when it has no port for the sidecars' configuration.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        itself = await self.api("GET", "/v1/agent/self")
        self.datacenter = itself["Config"]["Datacenter"]
        if not self._grpc_address:
            port = ((itself.get("xDS") or {}).get("Ports") or {}).get("Plaintext", -1)
            if port <= 0:
                raise ConfigError(
                    f"the agent at {self.http_address} has no plaintext gRPC port for Envoy sidecars: set ports"
                    " { grpc = 8502 } in its configuration, or CONSUL_GRPC_ADDR to an agent that has one"
                )
            self._grpc_address = f"{self._host}:{port}"

    async def stop(self) -> None:
        """It is not ours."""

    async def config_entry(self, kind: str, name: str) -> dict[str, Any] | None:
        """``GET /v1/config/KIND/NAME``; ``None`` when there is none."""
        try:
            entry: dict[str, Any] = await self.api("GET", f"/v1/config/{quote(kind)}/{quote(name)}")
        except ConsulRejected as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return entry

    async def restore_config(self, kind: str, name: str, former: Mapping[str, Any] | None) -> None:
        """Bring back what :meth:`config_entry` had answered."""
        if former is None:
            await self.delete_config(kind, name)
        else:
            await self.write_config(former)
