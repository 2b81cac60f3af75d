"""A real Consul agent on loopback, with ports of its own.

Talks to it as an operator does: the HTTP API and Consul's own command line. What the gateway itself asks of Consul is
``plugin/consul``, never this.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from plugin.dev import locate
from plugin.dev.processes import Child, Launcher, can_connect, free_ports, run
from plugin.errors import ConsulError, ConsulRejected, ConsulUnavailable

_REQUEST_TIMEOUT_S = 30.0
_MAX_CONNECTIONS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentTLS:
    """TLS for the agent's HTTP API: PEM files."""

    ca_file: Path
    certificate_file: Path
    key_file: Path
    verify_incoming: bool = False
    """Ask clients of the API for a certificate of ``ca_file``."""


class ConsulAgent(Launcher):
    """One agent that is server and client at once.

    By default a dev agent, which forgets everything when it ends; ``persistent`` keeps its state and its CA in
    ``work_dir``, so that it can be restarted.
    """

    def __init__(
        self,
        work_dir: Path,
        *,
        acl: bool = False,
        default_policy: str = "deny",
        default_intention_policy: str | None = None,
        extra_hcl: str = "",
        tls: AgentTLS | None = None,
        persistent: bool = False,
        peering: bool = False,
        datacenter: str = "dc1",
        node_name: str = "agent",
        program: Path | None = None,
    ) -> None:
        """``program`` is another Consul than the one of :mod:`plugin.dev.locate`."""
        self.work_dir = work_dir
        self.acl = acl
        self.persistent = persistent
        self.datacenter = datacenter
        self.node_name = node_name
        self.management_token = str(uuid.uuid4()) if acl else ""
        """May do everything; empty without ACLs."""
        self._default_policy = default_policy
        self._default_intention_policy = default_intention_policy
        self._extra_hcl = extra_hcl
        self._tls = tls
        self._program = program
        self.http_port, self.grpc_port, self.server_port, self.serf_port = free_ports(4)
        self.grpc_tls_port = free_ports(1)[0] if peering else -1
        self.https_port = free_ports(1)[0] if tls is not None else -1
        self.child: Child | None = None

    @property
    def http_address(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def https_address(self) -> str:
        """Only with ``tls``."""
        return f"https://127.0.0.1:{self.https_port}"

    @property
    def grpc_address(self) -> str:
        """``ip:port``, plaintext, for sidecars."""
        return f"127.0.0.1:{self.grpc_port}"

    async def start(self) -> None:
        """Start it and wait until it has a leader and a mesh CA. :raises StartError: with the log's tail."""
        program = self.program()
        files = self._write_configuration()
        mode = [] if self.persistent else ["-dev"]
        self.child = Child(
            f"Consul ({self.node_name})",
            [str(program), "agent", *mode, *(f"-config-file={file}" for file in files)],
            self.work_dir / "consul.log",
            environment=_clean_environment(),
            folder=self.work_dir,
        )
        await self.child.started(self._is_ready)

    def program(self) -> Path:
        """:raises StartError: when there is none."""
        return self._program or locate.consul()

    async def stop(self) -> None:
        if self.child is not None:
            await self.child.terminate()
            self.child = None

    async def kill(self) -> None:
        """As a crash ends it."""
        if self.child is not None:
            await self.child.kill()
            self.child = None

    async def restart(self) -> None:
        """On the same ports; with its state when ``persistent``, else empty."""
        await self.stop()
        await self.start()

    def pause(self) -> None:
        """Stop its process in place: connections stay open and nothing answers."""
        if self.child is not None:
            self.child.pause()

    def resume(self) -> None:
        if self.child is not None:
            self.child.resume()

    async def _is_ready(self) -> bool:
        try:
            leader = await self.api("GET", "/v1/status/leader")
            roots = await self.api("GET", "/v1/agent/connect/ca/roots")
        except ConsulError:
            return False
        return bool(leader) and bool(roots["Roots"]) and can_connect("127.0.0.1", self.grpc_port)

    def _write_configuration(self) -> list[Path]:
        self.work_dir.mkdir(parents=True, exist_ok=True)
        files = [self.work_dir / "agent.json"]
        files[0].write_text(json.dumps(self._configuration(), indent=2))
        if self._extra_hcl:
            files.append(self.work_dir / "extra.hcl")
            files[1].write_text(self._extra_hcl)
        return files

    def _configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = {
            "bind_addr": "127.0.0.1",
            "client_addr": "127.0.0.1",
            "advertise_addr": "127.0.0.1",
            "datacenter": self.datacenter,
            "node_name": self.node_name,
            "log_level": "warn",
            "disable_update_check": True,
            "connect": {"enabled": True},
            # Gateways come and go here, one after the other: the agent remembers the long polls of those that have
            # ended for up to a minute, and counts them.
            "limits": {"http_max_conns_per_client": _MAX_CONNECTIONS},
            "ports": {
                "http": self.http_port,
                "https": self.https_port,
                "grpc": self.grpc_port,
                "grpc_tls": self.grpc_tls_port,
                "server": self.server_port,
                "serf_lan": self.serf_port,
                "serf_wan": -1,
                "dns": -1,
            },
        }
        if self.persistent:
            configuration |= {
                "server": True,
                "bootstrap_expect": 1,
                "data_dir": str(self.work_dir / "data"),
                # One server on loopback: elections need not wait for a slow network.
                "performance": {"raft_multiplier": 1},
            }
        if self._default_intention_policy is not None:
            configuration["default_intention_policy"] = self._default_intention_policy
        if self.acl:
            configuration["acl"] = {
                "enabled": True,
                "default_policy": self._default_policy,
                "tokens": {"initial_management": self.management_token, "agent": self.management_token},
            }
        if self._tls is not None:
            configuration["tls"] = {
                "https": {
                    "ca_file": str(self._tls.ca_file),
                    "cert_file": str(self._tls.certificate_file),
                    "key_file": str(self._tls.key_file),
                    "verify_incoming": self._tls.verify_incoming,
                }
            }
        return configuration

    async def api(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, str] | None = None,
        token: str | None = None,
        timeout_s: float = _REQUEST_TIMEOUT_S,
    ) -> Any:
        """One request; the decoded JSON of the answer, or ``None`` when it is empty.

        ``token`` is the management token unless said otherwise.

        :raises ConsulRejected: with the answer's text, for a status of 400 and more.
        :raises ConsulUnavailable: when there is no answer within ``timeout_s`` seconds.
        """
        secret = self.management_token if token is None else token
        headers = {"X-Consul-Token": secret} if secret else {}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, self.http_address + path, json=body, params=params, headers=headers) as answer,
            ):
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ConsulUnavailable(f"{method} {path}: no answer from {self.http_address}: {error}") from error
        if answer.status >= 400:
            raise ConsulRejected(f"{method} {path}: HTTP {answer.status}: {text.strip()}", answer.status)
        return json.loads(text) if text.strip() else None

    def cli_environment(self, token: str | None = None) -> dict[str, str]:
        """With which Consul's own tools talk to this agent."""
        secret = self.management_token if token is None else token
        environment = _clean_environment()
        environment |= {"CONSUL_HTTP_ADDR": self.http_address, "CONSUL_GRPC_ADDR": self.grpc_address}
        if secret:
            environment["CONSUL_HTTP_TOKEN"] = secret
        return environment

    async def cli(self, *arguments: str, input_text: str = "", token: str | None = None) -> str:
        """Run ``consul ARGUMENTS`` and return what it prints. :raises StartError: with its output, when it fails."""
        program = await asyncio.to_thread(self.program)
        return await run(
            [str(program), *arguments],
            environment=self.cli_environment(token),
            folder=self.work_dir,
            input_text=input_text,
        )

    async def write_config(self, entry: str | Mapping[str, Any]) -> None:
        """Write a config entry: HCL or JSON text as operators keep it, or a mapping of the API's JSON."""
        if isinstance(entry, str):
            await self.cli("config", "write", "-", input_text=entry)
        else:
            await self.api("PUT", "/v1/config", dict(entry))

    async def delete_config(self, kind: str, name: str) -> None:
        await self.api("DELETE", f"/v1/config/{quote(kind)}/{quote(name)}")

    async def write_intention(self, source: str, destination: str, action: str = "allow") -> None:
        """Upsert one source of the destination's ``service-intentions``."""
        params = {"source": source, "destination": destination}
        await self.api("PUT", "/v1/connect/intentions/exact", {"Action": action}, params=params)

    async def delete_intention(self, source: str, destination: str) -> None:
        params = {"source": source, "destination": destination}
        await self.api("DELETE", "/v1/connect/intentions/exact", params=params)

    async def register_external(
        self,
        node: str,
        address: str,
        service: str,
        port: int,
        *,
        service_id: str | None = None,
        service_address: str = "",
        meta: Mapping[str, str] | None = None,
        tags: Sequence[str] = (),
        weights: Mapping[str, int] | None = None,
        check_status: str = "passing",
        check_output: str = "",
        proxy: Mapping[str, Any] | None = None,
    ) -> None:
        """Put an instance of an external service into the catalog, on a node that no agent runs on."""
        instance: dict[str, Any] = {
            "ID": service_id or f"{service}-{node}",
            "Service": service,
            "Address": service_address,
            "Port": port,
            "Meta": dict(meta or {}),
            "Tags": list(tags),
        }
        if weights is not None:
            instance["Weights"] = dict(weights)
        if proxy is not None:
            instance["Proxy"] = dict(proxy)
        await self.api(
            "PUT",
            "/v1/catalog/register",
            {
                "Datacenter": self.datacenter,
                "Node": node,
                "Address": address,
                "NodeMeta": {"external-node": "true", "external-probe": "false"},
                "Service": instance,
                "Check": {
                    "Node": node,
                    "CheckID": f"check-{instance['ID']}",
                    "Name": f"{service} answers",
                    "ServiceID": instance["ID"],
                    "Status": check_status,
                    "Output": check_output,
                },
            },
        )

    async def deregister_external(self, node: str, service_id: str | None = None) -> None:
        """Take an instance, or the node with all of its instances, out of the catalog."""
        body = {"Datacenter": self.datacenter, "Node": node}
        if service_id is not None:
            body["ServiceID"] = service_id
        await self.api("PUT", "/v1/catalog/deregister", body)

    async def register_service(self, definition: Mapping[str, Any]) -> None:
        """Register a service of this agent (``/v1/agent/service/register``)."""
        await self.api(
            "PUT", "/v1/agent/service/register", dict(definition), params={"replace-existing-checks": "true"}
        )

    async def deregister_service(self, service_id: str) -> None:
        await self.api("PUT", f"/v1/agent/service/deregister/{quote(service_id)}", timeout_s=5.0)

    async def create_token(self, rules: str = "", *, service: str = "") -> str:
        """The secret of a new token: with a policy of ``rules``, and the identity of ``service`` if named."""
        body: dict[str, Any] = {}
        if rules:
            policy = {"Name": f"policy-{uuid.uuid4()}", "Rules": rules}
            created = await self.api("PUT", "/v1/acl/policy", policy)
            body["Policies"] = [{"ID": created["ID"]}]
        if service:
            body["ServiceIdentities"] = [{"ServiceName": service}]
        token = await self.api("PUT", "/v1/acl/token", body)
        return str(token["SecretID"])


def _clean_environment() -> dict[str, str]:
    """Ours without anything that points Consul's programs at another Consul."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CONSUL_")}
