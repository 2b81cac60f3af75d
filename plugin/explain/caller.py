"""Whom a name means: ``web``, ``ns/web``, ``partition/ns/web``, ``peer:web`` or a SPIFFE ID. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from plugin.errors import ConfigError
from proxy.model import Mesh, ServiceName
from proxy.policy.identity import Identity, IdentityError, parse_spiffe_id

_UNENCODED = "$&+,:;=@"
"""As Consul leaves it in the segment of a path: see :mod:`proxy.policy.identity`."""


@dataclass(frozen=True, slots=True)
class Caller:
    identity: Identity
    peer: str = ""
    """The peer that it lives in; empty for this cluster."""

    @property
    def name(self) -> ServiceName:
        return ServiceName(self.identity.service, self.identity.namespace, self.identity.partition)

    @property
    def text(self) -> str:
        return f"{self.peer}:{self.name}" if self.peer else str(self.name)

    @property
    def spiffe_id(self) -> str:
        one = self.identity
        partition = "" if one.partition == "default" else f"/ap/{quote(one.partition, safe=_UNENCODED)}"
        segments = (("ns", one.namespace), ("dc", one.datacenter or "*"), ("svc", one.service))
        path = "".join(f"/{key}/{quote(value, safe=_UNENCODED + '*')}" for key, value in segments)
        return f"spiffe://{one.trust_domain}{partition}{path}"


def service_name(text: str) -> ServiceName:
    """``name``, ``namespace/name`` or ``partition/namespace/name``. :raises ConfigError: for anything else."""
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(part and part.isprintable() and part != "*" for part in parts):
        raise ConfigError(f"{text!r} names no service: write NAME, NAMESPACE/NAME or PARTITION/NAMESPACE/NAME")
    name, namespace, partition = (*reversed(parts), *("default",) * (3 - len(parts)))
    return ServiceName(name, namespace.lower(), partition.lower())


def caller(text: str, mesh: Mesh | None) -> Caller:
    """:raises ConfigError: when it names nobody, or a peer that is not known."""
    if text.startswith("spiffe:"):
        try:
            identity = parse_spiffe_id(text)
        except IdentityError as error:
            raise ConfigError(str(error)) from error
        return Caller(identity, _peer_of(identity, mesh))
    peer, colon, rest = text.partition(":")
    if not colon:
        name = service_name(text)
        home = (mesh.trust_domain, mesh.datacenter) if mesh is not None else ("", "")
        return Caller(Identity(home[0], name.name, name.namespace, name.partition, home[1]))
    bundles = {bundle.peer: bundle for bundle in mesh.peer_bundles} if mesh is not None else {}
    if peer not in bundles:
        known = f"known are {', '.join(sorted(bundles))}" if bundles else "no peer is known"
        raise ConfigError(f"the trust bundle of peer {peer!r} is not known to this gateway ({known})")
    name = service_name(rest)
    return Caller(Identity(bundles[peer].trust_domain, name.name, name.namespace, bundles[peer].partition), peer)


def _peer_of(identity: Identity, mesh: Mesh | None) -> str:
    """By whose roots a certificate of that trust domain is verified."""
    if mesh is None or identity.trust_domain == mesh.trust_domain:
        return ""
    return next((one.peer for one in mesh.peer_bundles if one.trust_domain == identity.trust_domain), "")
