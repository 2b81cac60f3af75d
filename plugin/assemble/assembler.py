"""From facts to what a worker is told: the one place where it is decided whether a linked service can be served.

Pure: facts in, a :class:`proxy.model.Service` or the reasons why not out; golden files test it. A service is served
only when its instances, leaf, intentions, resolver and defaults are all known; *known to be none* is known. A fact
that was known once stays in force when it cannot be learned again. One service never affects another: what one
cannot use is its own reason or its own warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plugin.assemble.access_logs import access_log_choice
from plugin.assemble.http_settings import HTTP_PROTOCOLS, http_settings
from plugin.assemble.intentions import read_intentions
from plugin.assemble.mesh_http import mesh_http
from plugin.assemble.mesh_tls import incoming_tls
from plugin.assemble.peers import importing, peer_warnings, usable
from plugin.assemble.proxy_config import UpstreamConfig, upstream_config
from plugin.assemble.resolver import (
    balance,
    connect_timeout,
    half_closed_timeout,
    idle_timeout,
    max_connections,
    max_lifetime,
)
from plugin.assemble.server_routes import server_routes
from plugin.assemble.token_providers import token_providers
from plugin.assemble.upstream_tls import GoodMaterial, upstream_material
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.known_keys import doubtful_keys
from proxy.model import Mesh, Service, ServiceName
from proxy.rules import Intention

_FALLBACK_CONNECT_TIMEOUT_S = 5.0
_PROTOCOLS = frozenset({"tcp"}) | HTTP_PROTOCOLS


@dataclass(frozen=True, slots=True)
class Unserved:
    """Why something cannot be served with the newest facts."""

    name: ServiceName | None
    """``None``: what all services share."""
    reasons: tuple[str, ...]
    """Sentences, each with its remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledService:
    outcome: Service | Unserved
    warnings: tuple[str, ...] = ()
    """What the service has to do without, and how to mend it."""
    good: GoodMaterial | None = None
    """The newest usable TLS material: hand it in the next time this service is assembled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssembledMesh:
    outcome: Mesh | Unserved
    warnings: tuple[str, ...] = ()


class Assembler:
    """Assembles services over time: remembers what is needed to survive a file that was good and no longer is.

    Without this memory a broken file would freeze the whole service, and with it the policy that is in force.
    """

    def __init__(self) -> None:
        self._good: dict[ServiceName, GoodMaterial] = {}

    def assemble(self, facts: ServiceFacts, mesh: MeshFacts, *, now_s: float | None = None) -> AssembledService:
        assembled = assemble_with_warnings(facts, mesh, good=self._good.get(facts.name), now_s=now_s)
        if assembled.good is not None:
            self._good[facts.name] = assembled.good
        elif isinstance(assembled.outcome, Service):
            self._good.pop(facts.name, None)
        return assembled

    def forget(self, name: ServiceName) -> None:
        """The service is no longer linked."""
        self._good.pop(name, None)


def assemble_service(facts: ServiceFacts, mesh: MeshFacts) -> Service | Unserved:
    """Return the service as a worker needs it, or why there is none."""
    return assemble_with_warnings(facts, mesh).outcome


def assemble_with_warnings(
    facts: ServiceFacts, mesh: MeshFacts, *, good: GoodMaterial | None = None, now_s: float | None = None
) -> AssembledService:
    """Like :func:`assemble_service`, and says what is not as it should be.

    ``good`` is that of an earlier call for this service; ``now_s`` is Unix time, for warnings about expiry.
    """
    material = upstream_material(facts.link, facts.files, good=good, now_s=now_s)
    reasons = (*_unknown(facts, mesh), *material.problems)
    roots, leaf = mesh.roots.value, facts.leaf.value
    if reasons or roots is None or leaf is None:
        return AssembledService(outcome=Unserved(facts.name, reasons), warnings=material.warnings, good=material.good)
    config = _upstream_config(mesh)
    protocol, protocol_warnings = _protocol(facts, mesh)
    routed = server_routes(facts, mesh, trust_domain=roots.trust_domain, protocol=protocol)
    balanced, timeout = balance(facts.resolver.value), connect_timeout(facts.resolver.value)
    idle, lifetime = idle_timeout(facts.defaults.value), max_lifetime(facts.defaults.value)
    half_closed = half_closed_timeout(facts.defaults.value)
    most = max_connections(facts.defaults.value)
    policy = read_intentions(facts.intentions.value or ())
    http = http_settings(protocol, facts.link, facts.defaults.value, facts.resolver.value)
    service = Service(
        name=facts.name,
        leaf=leaf,
        server_names=routed.server_names,
        intentions=policy.intentions,
        protocol=protocol,
        http=http.value,
        importers=importing(facts, mesh) if http.value is not None else (),
        upstream_tls=material.tls,
        balance=balanced.value,
        connect_timeout_s=timeout.value or config.connect_timeout_s or _FALLBACK_CONNECT_TIMEOUT_S,
        idle_timeout_s=idle.value,
        half_closed_timeout_s=half_closed.value,
        max_lifetime_s=lifetime.value,
        keepalive=config.keepalive,
        max_connections=most.value,
    )
    warnings = (
        *material.warnings,
        *routed.warnings,
        *balanced.warnings,
        *timeout.warnings,
        *idle.warnings,
        *half_closed.warnings,
        *lifetime.warnings,
        *most.warnings,
        *protocol_warnings,
        *http.warnings,
        *policy.warnings,
        *_of_the_wrong_layer(policy.intentions, protocol),
    )
    return AssembledService(outcome=service, warnings=warnings, good=material.good)


def assemble_mesh(facts: MeshFacts) -> Mesh | Unserved:
    """Return what all services share, or why no service can be served yet."""
    return assemble_mesh_with_warnings(facts).outcome


def assemble_mesh_with_warnings(facts: MeshFacts) -> AssembledMesh:
    """Like :func:`assemble_mesh`, and says which settings could not be used.

    The default action may be unknown: then callers that no intention names are refused, and the others are served.
    """
    reasons = tuple(_unknown_of_mesh(facts))
    roots = facts.roots.value
    if reasons or roots is None:
        return AssembledMesh(outcome=Unserved(None, reasons))
    entry = facts.mesh.value
    tls = incoming_tls(entry.tls.incoming if entry is not None and entry.tls is not None else None)
    shared = facts.proxy_defaults.value
    http = mesh_http(entry.http if entry is not None else None)
    tokens = token_providers(facts)
    access_log = access_log_choice(shared.access_logs if shared is not None else None)
    mesh = Mesh(
        trust_domain=roots.trust_domain.lower(),
        datacenter=facts.datacenter,
        roots_pem=tuple(root.root_cert.strip() + "\n" for root in roots.roots or ()),
        default_action=facts.default_action.value if facts.default_action.known else None,
        peer_bundles=usable(facts),
        tls_min_version=tls.minimum,
        tls_max_version=tls.maximum,
        cipher_suites=tls.cipher_suites,
        normalization=http.normalization,
        sanitize_client_cert_header=http.sanitize_client_cert_header,
        token_providers=tokens.providers,
        access_log=access_log.layout,
    )
    warnings = (
        *tls.warnings,
        *http.warnings,
        *tokens.warnings,
        *_upstream_config(facts).warnings,
        *doubtful_keys(facts.proxy_config, (shared.config or {}) if shared is not None else {}),
        *access_log.warnings,
        *peer_warnings(facts),
    )
    return AssembledMesh(outcome=mesh, warnings=warnings)


def _unknown(facts: ServiceFacts, mesh: MeshFacts) -> Iterator[str]:
    """Say what is not known yet, and why, as far as Consul said why."""
    for what, fact in (
        ("its instances", facts.instances),
        ("its leaf certificate", facts.leaf),
        ("its intentions", facts.intentions),
    ):
        # These have a value when they are known: nothing and nobody are empty, not absent.
        if not fact.known or fact.value is None:
            yield _not_known(what, fact)
    for what, entry in (("its service-resolver", facts.resolver), ("its service-defaults", facts.defaults)):
        if not entry.known:
            yield _not_known(what, entry)
    yield from _unknown_of_mesh(mesh)


def _unknown_of_mesh(mesh: MeshFacts) -> Iterator[str]:
    if not mesh.datacenter:
        yield "the datacenter of the agent is not known yet; it is learned with the first answer of the agent"
    if not mesh.roots.known or mesh.roots.value is None or not mesh.roots.value.roots:
        yield _not_known("the roots of the mesh", mesh.roots)
    for what, fact in (("the mesh entry", mesh.mesh), ("proxy-defaults", mesh.proxy_defaults)):
        if not fact.known:
            yield _not_known(what, fact)


def _not_known(what: str, fact: Fact[Any]) -> str:
    return f"{what}: {fact.problem or 'no answer from Consul yet'}"


def _of_the_wrong_layer(intentions: Iterable[Intention], protocol: str) -> Iterator[str]:
    for intention in intentions if protocol not in HTTP_PROTOCOLS else ():
        if intention.layer7:
            where = f"the intention {intention.source} => {intention.destination}"
            what = f"{where} has permissions or JWT requirements, and denies every connection of protocol {protocol}"
            yield f"{what}. Set Protocol of service-defaults to http, http2 or grpc, or give it an Action alone"


def _upstream_config(mesh: MeshFacts) -> UpstreamConfig:
    return upstream_config(mesh.proxy_config, _shared_config(mesh))


def _shared_config(mesh: MeshFacts) -> Mapping[str, object]:
    shared = mesh.proxy_defaults.value
    return shared.config or {} if shared is not None else {}


def _protocol(facts: ServiceFacts, mesh: MeshFacts) -> tuple[str, tuple[str, ...]]:
    """service-defaults, else proxy-defaults, else tcp; what Consul does not know is carried as tcp, as Consul does."""
    own = facts.defaults.value.protocol if facts.defaults.value is not None else ""
    protocol = str(own or _shared_config(mesh).get("protocol") or "tcp").lower()
    if protocol in _PROTOCOLS:
        return protocol, ()
    where = "service-defaults" if own else "proxy-defaults"
    known = ", ".join(sorted(_PROTOCOLS))
    return "tcp", (f"the protocol {protocol!r} in {where} is none of {known}; it is carried as tcp",)
