"""What Consul holds for the comparison: one linked service per behaviour, two gateways, two clients of the mesh.

Both gateways link the same services, so that they present the same kind of leaf and decide by the same intentions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.generator import Aim, Identity
from plugin.dev.consul_agent import ConsulAgent
from plugin.dev.pki import KeyPair

CLIENT = "bench-client"
"""Allowed, always."""
REVOKED_CLIENT = "bench-revoked"
"""Allowed, until the policy workload denies it."""
PROTOCOLS = {"http": "http", "http2": "http2"}
"""Of the behaviours that are carried request by request; the others are TCP."""


def service(behaviour: str) -> str:
    """The linked service that the external service with ``behaviour`` stands behind."""
    return f"bench-{behaviour}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchMesh:
    agent: ConsulAgent
    trust_domain: str
    roots: Path
    identities: Mapping[str, Identity]
    tls_max: str
    """``1.2`` or ``1.3``: the newest version that clients offer."""

    @classmethod
    async def prepare(
        cls,
        agent: ConsulAgent,
        folder: Path,
        *,
        ports: Mapping[str, int],
        gateways: Sequence[str],
        tls_max: str,
    ) -> BenchMesh:
        """Write everything to ``agent``, and leaves and roots into ``folder``. ``ports`` are by behaviour."""
        for behaviour, port in ports.items():
            await agent.register_external(f"{behaviour}-node", "127.0.0.1", service(behaviour), port)
            if protocol := PROTOCOLS.get(behaviour):
                await agent.write_config({"Kind": "service-defaults", "Name": service(behaviour), "Protocol": protocol})
            await allow(agent, behaviour, revoked_client=True)
        links = [{"Name": service(behaviour)} for behaviour in sorted(ports)]
        for name in gateways:
            await agent.write_config({"Kind": "terminating-gateway", "Name": name, "Services": links})
        answer = await agent.api("GET", "/v1/agent/connect/ca/roots")
        roots = folder / "roots.pem"
        roots.write_text("".join(root["RootCert"] for root in answer["Roots"]))
        identities = {name: await _leaf(agent, folder, name) for name in (CLIENT, REVOKED_CLIENT)}
        return cls(agent=agent, trust_domain=answer["TrustDomain"], roots=roots, identities=identities, tls_max=tls_max)

    def aim(self, address: str, behaviour: str, client: str = CLIENT) -> Aim:
        """At the gateway on ``address`` (``ip:port``), for one linked service."""
        name, datacenter = service(behaviour), self.agent.datacenter
        return Aim(
            address=address,
            server_name=f"{name}.default.{datacenter}.internal.{self.trust_domain}",
            spiffe_id=f"spiffe://{self.trust_domain}/ns/default/dc/{datacenter}/svc/{name}",
            roots=self.roots,
            client=self.identities[client],
            tls_max=self.tls_max,
        )


async def allow(agent: ConsulAgent, behaviour: str, *, revoked_client: bool) -> None:
    """Write the service's intentions: ``CLIENT`` is allowed, ``REVOKED_CLIENT`` as said."""
    actions = {CLIENT: "allow", REVOKED_CLIENT: "allow" if revoked_client else "deny"}
    sources = [{"Name": name, "Action": action} for name, action in actions.items()]
    await agent.write_config({"Kind": "service-intentions", "Name": service(behaviour), "Sources": sources})


async def _leaf(agent: ConsulAgent, folder: Path, name: str) -> Identity:
    leaf = await agent.api("GET", f"/v1/agent/connect/ca/leaf/{name}")
    pair = KeyPair(leaf["CertPEM"], leaf["PrivateKeyPEM"])
    certificate, key = pair.write(folder, name)
    return Identity(certificate=certificate, key=key)
