"""From the peerings that Consul lists to what verifies the callers of each. Pure.

Only a peering whose roots and trust domain are known counts, and neither is guessed: a certificate is accepted for the
trust domain of its peer alone. Consul's own roots have that domain as their only URI
(``spiffe://<cluster id>.consul``); those of another CA may have none, and then the side that dials knows it from the
name of the peer's servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from plugin.consul.api import Consumers, ExportedService, ExportedServicesEntry, Peering
from plugin.facts import MeshFacts, ServiceFacts
from proxy.model import PeerBundle, Service, ServiceName
from proxy.policy.intention_index import ANY

IN_FORCE = frozenset({"ESTABLISHING", "ACTIVE", "FAILING"})
"""A peering that fails is in force: the other cluster cannot be heard at the moment. No other state lets anybody in,
and neither does one that is not known here."""
_SCHEME = "spiffe://"
_UNREADABLE = (
    ValueError, TypeError, UnsupportedAlgorithm,
    x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Peers:
    bundles: tuple[PeerBundle, ...]
    problems: tuple[str, ...]
    """Why callers of others are refused, and which roots are left out."""


class _Unusable(Exception):
    pass


def _in_force(peering: Peering) -> bool:
    """A server that has started again calls a peering ``PENDING`` until the other cluster is heard, however long that
    takes, and no blocking query tells of the end of that: only one without roots has never been established."""
    return peering.state in IN_FORCE or (peering.state == "PENDING" and bool(peering.peer_ca_pems))


def read_peers(peerings: Iterable[Peering]) -> Peers:
    bundles: dict[str, PeerBundle] = {}
    problems: list[str] = []
    for peering in sorted(peerings, key=lambda one: one.name):
        if not peering.name or not _in_force(peering):
            continue
        try:
            bundles[peering.name] = _bundle(peering, problems)
        except _Unusable as why:
            problems.append(f"callers of peer {peering.name} are refused: {why}")
    return Peers(tuple(bundles.values()), tuple(problems))


def usable(mesh: MeshFacts) -> tuple[PeerBundle, ...]:
    """Without a peer whose roots claim this cluster's own trust domain: it would speak for callers of ours."""
    own = _own_domain(mesh)
    return tuple(bundle for bundle in mesh.peers.value or () if bundle.trust_domain != own)


def peer_warnings(mesh: MeshFacts) -> Iterable[str]:
    problem = mesh.peers.problem
    if mesh.peers_awaited and not mesh.peers.known and problem is not None:
        yield f"services are exported to peers, and callers of them are refused: {problem}"
    yield from mesh.unusable_peers
    for bundle in mesh.peers.value or ():
        if bundle.trust_domain == _own_domain(mesh):
            what = f"callers of peer {bundle.peer} are refused: its roots are of this cluster's own trust domain"
            yield f"{what}, {bundle.trust_domain}. Peer clusters that have different ones"


def importers(exports: Iterable[ExportedService]) -> dict[ServiceName, tuple[str, ...]]:
    """The peers that each service is exported to. A service that is in several rows is exported to those of each."""
    found: dict[ServiceName, set[str]] = {}
    for row in exports:
        name = ServiceName(row.service, row.namespace or "default", row.partition or "default")
        found.setdefault(name, set()).update(filter(None, row.consumers.peers or ()))
    return {name: tuple(sorted(peers)) for name, peers in found.items() if peers}


def rows_of(entries: Iterable[ExportedServicesEntry]) -> tuple[tuple[ExportedService, ...], tuple[str, ...]]:
    """What the exported-services entries come to, for a Consul that does not say, and what of them is not followed.

    ``*`` stays in the rows: see :func:`importers_among`.
    """
    rows: list[ExportedService] = []
    problems: list[str] = []
    for entry in entries:
        for row in entry.services or ():
            consumers = row.consumers or ()
            peers = tuple(peer for one in consumers for peer in (one.peer or one.peer_name,) if peer)
            partition = "" if entry.name == "default" else entry.name
            rows.append(ExportedService(row.name, row.namespace, partition, Consumers(peers)))
            groups = sorted({one.sameness_group for one in consumers if one.sameness_group})
            if groups:
                what = f"{row.name} is exported to sameness groups ({', '.join(groups)}), which Consul 1.17.2 and later"
                problems.append(f"{what} resolve and this one does not: name the peers in exported-services")
    return tuple(rows), tuple(problems)


def importers_among(found: Mapping[ServiceName, tuple[str, ...]], name: ServiceName) -> tuple[str, ...]:
    """The peers that ``name`` is exported to, by itself or by ``*``."""
    named = (name, ServiceName(ANY, name.namespace, name.partition), ServiceName(ANY, ANY, name.partition))
    return tuple(sorted({peer for one in named for peer in found.get(one, ())}))


def importing(facts: ServiceFacts, mesh: MeshFacts) -> tuple[str, ...]:
    """The peers whose callers may have the service, by export and roots."""
    return tuple(sorted({bundle.peer for bundle in usable(mesh)}.intersection(facts.exported_to)))


def importers_of(service: Service) -> tuple[str, ...]:
    """The peers whose callers may ask for it, by a name of their own or through mesh gateways of this cluster."""
    named = (one.peer for one in service.server_names if one.peer)
    return tuple(dict.fromkeys((*named, *service.importers)))


def _own_domain(mesh: MeshFacts) -> str:
    return mesh.roots.value.trust_domain.lower() if mesh.roots.value is not None else ""


def _bundle(peering: Peering, problems: list[str]) -> PeerBundle:
    if not peering.peer_ca_pems:
        raise _Unusable("Consul has no roots of it yet; it gets them when both clusters have met")
    domains: set[str] = set()
    roots: list[str] = []
    for number, pem in enumerate(peering.peer_ca_pems, 1):
        try:
            domains.update(_domains(pem))
            roots.append(pem.strip() + "\n")
        except _UNREADABLE:
            # The text of the error is left out: it may quote what was read.
            problems.append(f"root {number} of peer {peering.name} cannot be read and is left out; renew the peering")
    if not roots:
        raise _Unusable("none of its roots can be read; establish the peering anew")
    if not domains:
        domains.update(_domain_of_servers(peering.peer_server_name))
    if len(domains) != 1:
        said = f"name several trust domains ({', '.join(sorted(domains))})" if domains else "name no trust domain"
        raise _Unusable(f"its roots {said}; each root has to have the URI spiffe://<trust domain> of its cluster")
    return PeerBundle(peering.name, domains.pop(), tuple(roots), peering.remote.partition or "default")


def _domains(pem: str) -> set[str]:
    found: set[str] = set()
    for certificate in x509.load_pem_x509_certificates(pem.encode()):
        certificate.public_key()
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            continue
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
            scheme, domain = uri[: len(_SCHEME)].lower(), uri[len(_SCHEME) :].lower().rstrip("/")
            if scheme == _SCHEME:
                if not domain or set(domain) & set("/:@?#"):
                    raise ValueError("its URI is not that of a trust domain")
                found.add(domain)
    return found


def _domain_of_servers(name: str) -> set[str]:
    _, _, domain = name.lower().partition(".peering.")
    return {domain} - {""}
