"""What is in force about one service, gathered from the control process for whoever explains or compares it."""

from __future__ import annotations

from dataclasses import dataclass

from plugin.consul.api import IntentionMatch, TerminatingGatewayEntry
from proxy.model import Mesh, Service, ServiceName


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    name: ServiceName
    gateway: str
    """The gateway's service name, which is that of its entry."""
    entry: TerminatingGatewayEntry | None = None
    links_known: bool = True
    linked: bool = True
    from_wildcard: bool = False
    others: tuple[str, ...] = ()
    """The other services that are linked."""
    service: Service | None = None
    """As the workers have it."""
    mesh: Mesh | None = None
    problems: tuple[str, ...] = ()
    """Why the newest state of the service, or of the mesh, cannot be served."""
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """Endpoints that get no connections for a while, by worker."""
    too_old: bool = False
    """Nothing new is let in: Consul has not confirmed the state for too long."""
    matches: tuple[IntentionMatch, ...] = ()
    """The intentions of the service as Consul told them."""
    open_connections: int = 0
    most_connections: int = 0
    """Of the service, at a time; 0: no limit."""
    generation: int = 0
