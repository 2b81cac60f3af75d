"""What is known about Consul's state, and how well.

A :class:`Fact` keeps the last good value next to the newest problem: a fault never erases what was known, and
*not known yet* (``known`` is false) is never mistaken for *known to be empty*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from plugin.consul.api import (
    ExportedService,
    HealthEntry,
    IntentionMatch,
    LinkedService,
    MeshEntry,
    ProxyDefaults,
    Roots,
    ServiceDefaults,
    ServiceResolver,
)
from plugin.errors import GatewayError
from plugin.jwks.provider import KeptKeys
from proxy.model import Leaf, PeerBundle, ServiceName
from proxy.rules import Action

T = TypeVar("T")


# Not with slots: Python 3.11 and 3.12 then fail at Fact[bytes](), where typing tries to set __orig_class__.
@dataclass(frozen=True)
class Fact(Generic[T]):
    value: T | None = None
    """The last good answer. ``None`` can be a good answer too (no such config entry): see ``known``."""
    known: bool = False
    problem: GatewayError | None = None
    """Why the newest attempt to learn it failed; cleared by the next success."""
    index: int = 0
    """Consul's index of ``value``; 0 where there is none (files, DNS)."""
    as_of_s: float = 0.0
    """Unix time in seconds at which ``value`` was last confirmed."""

    def learned(self, value: T | None, *, index: int = 0, at_s: float = 0.0) -> Fact[T]:
        return Fact(value, True, None, index, at_s)

    def failed(self, problem: GatewayError) -> Fact[T]:
        return Fact(self.value, self.known, problem, self.index, self.as_of_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFacts:
    """Everything that decides how one linked service is served."""

    name: ServiceName
    link: LinkedService
    """From the terminating-gateway entry: the explicit link if there is one, else the one of ``*``."""
    from_wildcard: bool = False
    instances: Fact[tuple[HealthEntry, ...]] = field(default_factory=Fact)
    sidecars: Fact[tuple[HealthEntry, ...]] = field(default_factory=Fact)
    """The proxies that stand for instances of the service; read only when it has several instances."""
    intentions: Fact[tuple[IntentionMatch, ...]] = field(default_factory=Fact)
    leaf: Fact[Leaf] = field(default_factory=Fact)
    defaults: Fact[ServiceDefaults] = field(default_factory=Fact)
    """``value`` is ``None`` when the service has no entry."""
    resolver: Fact[ServiceResolver] = field(default_factory=Fact)
    files: Mapping[str, Fact[bytes]] = field(default_factory=dict)
    """By path: those of ``link.ca_file``, ``link.cert_file`` and ``link.key_file`` that are set."""
    addresses: Mapping[str, Fact[tuple[str, ...]]] = field(default_factory=dict)
    """IP addresses by hostname, for instances and destinations whose address is a name."""
    exported_to: tuple[str, ...] = ()
    """The peers that import the service, by the names that this cluster gave them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshFacts:
    """What all services share."""

    datacenter: str = ""
    """The agent's own; empty while not known."""
    consul_version: str = ""
    """The agent's own; empty while not known, which it stays for tokens without ``agent:read``."""
    roots: Fact[Roots] = field(default_factory=Fact)
    mesh: Fact[MeshEntry] = field(default_factory=Fact)
    proxy_defaults: Fact[ProxyDefaults] = field(default_factory=Fact)
    default_action: Fact[Action] = field(default_factory=Fact)
    proxy_config: Mapping[str, object] = field(default_factory=dict)
    """``Proxy.Config`` of the gateway's own registration."""
    providers: Fact[tuple[Any, ...]] = field(default_factory=Fact)
    """The jwt-provider entries, as JSON. Asked for only when an intention names one; ``None`` where Consul is too old
    to have any."""
    wanted_providers: frozenset[str] = frozenset()
    """The providers that intentions of linked services name."""
    keys: Mapping[KeptKeys, Fact[str]] = field(default_factory=dict)
    """Of wanted providers whose entries do not hold them, as :class:`proxy.rules.TokenProvider` has them."""
    peers: Fact[tuple[PeerBundle, ...]] = field(default_factory=Fact)
    """What verifies the callers of each cluster peer; not known is as good as none, for callers of peers alone."""
    unusable_peers: tuple[str, ...] = ()
    """Why callers of other peerings cannot be verified, a sentence with its remedy for each."""
    exports: Fact[tuple[ExportedService, ...]] = field(default_factory=Fact)
    """``None`` where Consul is too old to tell, or has no peering: nothing is exported then."""
    exports_awaited: bool = False
    """Somebody asks for ``exports``, and for ``peers`` once a linked service is exported to one."""
    peers_awaited: bool = False
    """A linked service is exported to one."""
