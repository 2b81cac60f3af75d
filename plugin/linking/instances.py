"""The instances of a service outside the mesh in Consul's catalog: what to register, what to take out. Pure.

A node that exists is never changed, and one that a Consul agent runs on is never used: the agent takes out of the
catalog what it did not register itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plugin.consul.api import HealthEntry
from plugin.linking.edit import MARK_KEY, MARK_VALUE, Refused, is_marked
from plugin.linking.request import LinkRequest

_MARK = {MARK_KEY: MARK_VALUE}
NODE_META = {"external-node": "true", "external-probe": "true", **_MARK}
"""The first two are those by which consul-esm finds nodes to watch."""
_COMPUTED = ("CreateIndex", "ModifyIndex", "PeerName")


@dataclass(frozen=True, slots=True)
class CatalogNode:
    """The answer of ``GET /v1/catalog/node/:node``."""

    address: str
    meta: Mapping[str, str]
    has_agent: bool
    services: Mapping[str, Mapping[str, Any]]
    """By ID, decoded JSON."""
    complete: bool = True
    """False when Consul hides services of the node from the token (1.11 and later say so)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    body: Mapping[str, Any] | None
    """Of ``PUT /v1/catalog/register``; ``None`` when nothing has to be registered."""
    todo: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """``PUT /v1/catalog/deregister`` of one instance."""

    node: str
    service_id: str
    todo: str

    @property
    def body(self) -> dict[str, str]:
        return {"Node": self.node, "ServiceID": self.service_id}


def check_outside_mesh(service: str, instances: Iterable[HealthEntry], mesh: Iterable[HealthEntry]) -> None:
    """``mesh`` is the answer of ``GET /v1/health/connect/:service``.

    :raises Refused: when every instance there is has a sidecar, or speaks mutual TLS itself.
    """
    plain, covered = list(instances), set()
    for entry in mesh:
        if entry.service.kind == "connect-proxy" and entry.service.proxy is not None:
            covered.add((entry.node.node, entry.service.proxy.destination_service_id or service))
        elif entry.service.connect is not None and entry.service.connect.native:
            covered.add((entry.node.node, entry.service.id))
    if covered and all((entry.node.node, entry.service.id) in covered for entry in plain):
        raise Refused(
            f"{service} is in the mesh: each of its instances has a sidecar or is connect-native, and callers reach"
            " them without a gateway; give the service outside the mesh a name of its own"
        )


def plan_registration(request: LinkRequest, node: CatalogNode | None, instances: Iterable[HealthEntry]) -> Registration:
    """:raises Refused: when the node or the ID is taken by something else."""
    rows = [entry for entry in instances if not entry.service.kind]
    same = next((entry for entry in rows if _is_same(entry, request)), None)
    notes = tuple(_about_others(rows, request))
    if same is not None:
        where = f"{same.service.id} on node {same.node.node}"
        kept = (f"{request.service} is registered at {request.address} ({where})",)
        return Registration(body=None, kept=kept, notes=notes)
    if node is not None and node.has_agent:
        raise Refused(
            f"the node {request.node_name} runs a Consul agent, which removes from the catalog what it did not register"
            " itself; register the service with that agent, or choose another --node"
        )
    existing = node.services.get(request.instance_id) if node is not None else None
    service = _service(request, existing)
    body: dict[str, Any] = {"Node": request.node_name, "Service": service}
    if node is None:
        body |= {"Address": request.host, "NodeMeta": dict(NODE_META)}
    else:
        body["SkipNodeUpdate"] = True
        notes += tuple(_about_node(request, node))
    where = f"{request.instance_id} on {'the new' if node is None else 'the'} external node {request.node_name}"
    if existing is not None:
        was = _at(str(existing.get("Address") or (node.address if node else "")), int(existing.get("Port") or 0))
        return Registration(
            body=body, todo=(f"move the instance {where} from {was} to {request.address}",), notes=notes
        )
    return Registration(body=body, todo=(f"register {request.service} at {request.address} ({where})",), notes=notes)


def _service(request: LinkRequest, existing: Mapping[str, Any] | None) -> dict[str, Any]:
    wanted = {"ID": request.instance_id, "Service": request.service, "Address": request.host, "Port": request.port}
    if existing is None:
        return {**wanted, "Meta": dict(_MARK)}
    if existing.get("Service") != request.service or existing.get("Kind"):
        raise Refused(
            f"the ID {request.instance_id} on node {request.node_name} is that of an instance of"
            f" {existing.get('Service')}; choose another --id"
        )
    if not request.replace:
        at = _at(str(existing.get("Address") or ""), int(existing.get("Port") or 0))
        raise Refused(
            f"{request.instance_id} on node {request.node_name} is registered at {at}, not {request.address};"
            " --replace moves it, another --id adds an instance"
        )
    kept = {key: value for key, value in existing.items() if key not in _COMPUTED and value is not None}
    # They belong to the former address; the virtual ones are Consul's own and come back.
    kept.pop("TaggedAddresses", None)
    return kept | wanted


def _is_same(entry: HealthEntry, request: LinkRequest) -> bool:
    if (entry.service.address or entry.node.address).lower() != request.host or entry.service.port != request.port:
        return False
    return request.node in ("", entry.node.node) and request.id in ("", entry.service.id)


def _about_others(rows: Iterable[HealthEntry], request: LinkRequest) -> Iterator[str]:
    for entry in rows:
        replaced = (entry.node.node, entry.service.id) == (request.node_name, request.instance_id)
        if not replaced and not _is_same(entry, request):
            at = _at(entry.service.address or entry.node.address, entry.service.port)
            where = f"{entry.service.id} on node {entry.node.node}"
            yield f"{request.service} has another instance, at {at} ({where}): both carry traffic"


def _about_node(request: LinkRequest, node: CatalogNode) -> Iterator[str]:
    if node.address.lower() != request.host:
        yield (
            f"the node {request.node_name} has the address {node.address} and keeps it; the instance has its own,"
            f" {request.host}"
        )
    if node.meta.get("external-node") != "true":
        yield f"the node {request.node_name} has no external-node=true in its Meta: consul-esm does not watch it"


def plan_removals(service: str, instances: Iterable[HealthEntry]) -> tuple[tuple[Removal, ...], tuple[str, ...]]:
    """The instances that this program had registered, and a sentence for each that it had not."""
    removals, notes = [], []
    for entry in instances:
        where = f"{entry.service.id} on node {entry.node.node}"
        at = _at(entry.service.address or entry.node.address, entry.service.port)
        if is_marked(entry.service.meta):
            todo = f"deregister {service} at {at} ({where})"
            removals.append(Removal(node=entry.node.node, service_id=entry.service.id, todo=todo))
        else:
            notes.append(f"{service} stays registered at {at} ({where}), which consul-tgw did not register")
    return tuple(removals), tuple(notes)


def _at(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
