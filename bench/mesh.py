"""What Consul holds for the comparison: linked services, gateways, clients of the mesh and a sidecar.

The gateways link the same services, so that they present the same kind of leaf and decide by the same intentions.
What is reached through the sidecar is linked by one gateway alone: else the sidecar would choose between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.generator import Aim, Identity, Secure
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.envoy import Sidecar
from plugin.dev.pki import KeyPair
from plugin.dev.processes import free_ports

CLIENT = "bench-client"
"""Allowed, always."""
REVOKED_CLIENT = "bench-revoked"
"""Allowed, until the policy workload denies it."""
PROTOCOLS = {"http": "http", "http2": "http2", "grpc": "grpc"}
"""Of the behaviours that are carried request by request; the others are TCP."""
SIDECAR_BEHAVIOURS = ("source", "sink", "echo", "http", "http2", "grpc")

_ECHOES = tuple(f"echo-{number}" for number in range(1, 13))
"""Services behind the same echo: Envoy's gateway carries 1,024 connections to one, and more than 10,000 are wanted."""


def service(behaviour: str) -> str:
    """The linked service that the external service with ``behaviour`` stands behind."""
    return f"bench-{behaviour}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchMesh:
    agent: ConsulAgent
    folder: Path
    ports: Mapping[str, int]
    """Of the external services, by behaviour."""
    trust_domain: str
    roots: Path
    identities: Mapping[str, Identity]
    tls_max: str
    """``1.2`` or ``1.3``: the newest version that clients offer."""
    upstream_ports: dict[tuple[str, str], int] = field(default_factory=dict)
    """Where the sidecar listens, by the gateway's service name and behaviour."""

    @classmethod
    async def prepare(cls, agent: ConsulAgent, folder: Path, *, ports: Mapping[str, int], tls_max: str) -> BenchMesh:
        """Write services and intentions to ``agent``, and leaves and roots into ``folder``."""
        for behaviour, port in _direct(ports).items():
            await _external(agent, service(behaviour), port, PROTOCOLS.get(behaviour))
            await allow(agent, behaviour, revoked_client=True)
        answer = await agent.api("GET", "/v1/agent/connect/ca/roots")
        roots = folder / "roots.pem"
        roots.write_text("".join(root["RootCert"] for root in answer["Roots"]))
        identities = {name: await leaf(agent, folder, name) for name in (CLIENT, REVOKED_CLIENT)}
        return cls(
            agent=agent,
            folder=folder,
            ports=ports,
            trust_domain=answer["TrustDomain"],
            roots=roots,
            identities=identities,
            tls_max=tls_max,
        )

    async def link(self, gateway: str, *, sidecar: bool = False) -> None:
        """Link everything to ``gateway``; with ``sidecar`` also what a sidecar reaches through it alone."""
        linked = [service(behaviour) for behaviour in sorted(_direct(self.ports))]
        if sidecar:
            for behaviour in SIDECAR_BEHAVIOURS:
                name = f"{gateway}-{behaviour}"
                await _external(self.agent, name, self.ports[behaviour], PROTOCOLS.get(behaviour))
                await self.agent.write_intention(CLIENT, name)
                self.upstream_ports[gateway, behaviour] = free_ports(1)[0]
                linked.append(name)
        links = [{"Name": name} for name in linked]
        await self.agent.write_config({"Kind": "terminating-gateway", "Name": gateway, "Services": links})

    def sidecar(self) -> Sidecar:
        """One that reaches everything that was linked for it. It is not started."""
        upstreams = [(f"{gateway}-{behaviour}", port) for (gateway, behaviour), port in self.upstream_ports.items()]
        return Sidecar(self.agent, CLIENT, upstreams)

    def aim(self, address: str, behaviour: str, client: str = CLIENT, *, spread: bool = False) -> Aim:
        """At the gateway on ``address`` (``ip:port``), for one linked service; ``spread``: for all the echoes."""
        behaviours = _ECHOES if spread else (behaviour,)
        secure = Secure(
            services=[(self.server_name(one), self.spiffe_id(service(one))) for one in behaviours],
            roots=self.roots,
            client=self.identities[client],
            tls_max=self.tls_max,
        )
        return Aim(address=address, secure=secure)

    def aim_at_sidecar(self, gateway: str, behaviour: str) -> Aim:
        """At what the sidecar sends through ``gateway``, by its service name."""
        return Aim(address=f"127.0.0.1:{self.upstream_ports[gateway, behaviour]}", secure=None)

    def server_name(self, behaviour: str) -> str:
        return f"{service(behaviour)}.default.{self.agent.datacenter}.internal.{self.trust_domain}"

    def spiffe_id(self, name: str) -> str:
        return f"spiffe://{self.trust_domain}/ns/default/dc/{self.agent.datacenter}/svc/{name}"


async def allow(agent: ConsulAgent, behaviour: str, *, revoked_client: bool) -> None:
    """Write the service's intentions: ``CLIENT`` is allowed, ``REVOKED_CLIENT`` as said."""
    actions = {CLIENT: "allow", REVOKED_CLIENT: "allow" if revoked_client else "deny"}
    sources = [{"Name": name, "Action": action} for name, action in actions.items()]
    await agent.write_config({"Kind": "service-intentions", "Name": service(behaviour), "Sources": sources})


async def leaf(agent: ConsulAgent, folder: Path, name: str) -> Identity:
    """The leaf that Consul gives the service ``name``, in files of ``folder``."""
    answer = await agent.api("GET", f"/v1/agent/connect/ca/leaf/{name}")
    pair = KeyPair(answer["CertPEM"], answer["PrivateKeyPEM"])
    certificate, key = pair.write(folder, name)
    return Identity(certificate=certificate, key=key)


def _direct(ports: Mapping[str, int]) -> dict[str, int]:
    return {**ports, **dict.fromkeys(_ECHOES, ports["echo"])}


async def _external(agent: ConsulAgent, name: str, port: int, protocol: str | None) -> None:
    if protocol:
        await agent.write_config({"Kind": "service-defaults", "Name": name, "Protocol": protocol})
    await agent.register_external(f"{name}-node", "127.0.0.1", name, port)
