"""An agent that somebody else runs, driven like our own: for ``dev`` on an existing Consul."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from plugin.dev.consul_agent import ConsulAgent
from plugin.errors import ConfigError


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
        self._grpc_address = environment.get("CONSUL_GRPC_ADDR", f"{self._host}:8502").removeprefix("http://")
        self.management_token = environment.get("CONSUL_HTTP_TOKEN", "")

    @property
    def http_address(self) -> str:
        return f"http://{self._host}:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return self._grpc_address

    async def start(self) -> None:
        """:raises ConsulError: when it does not answer."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.datacenter = (await self.api("GET", "/v1/agent/self"))["Config"]["Datacenter"]

    async def stop(self) -> None:
        """It is not ours."""
