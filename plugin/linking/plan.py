"""The whole of a link or unlink: its parts in the order in which they are written. Pure.

Linking goes entry, instance, intentions: a step opens nothing that the steps before it have not settled. With a ``*``
link, an instance that was there before its own link would be reached without the TLS that the link asks for; intentions
come last because they are what lets callers in. Unlinking goes the other way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from plugin.consul.api import HealthEntry
from plugin.linking import entry, intentions
from plugin.linking.edit import Edit, Entry, Refused
from plugin.linking.instances import (
    CatalogNode,
    Removal,
    check_outside_mesh,
    plan_registration,
    plan_removals,
)
from plugin.linking.request import LinkRequest, name_reasons

T = TypeVar("T")
SERVICES_RULE = 'service_prefix "" { policy = "read" }'
Revise = Callable[[Entry | None], Edit]


@dataclass(frozen=True, slots=True)
class Permission:
    """What the token must be allowed, in the words of Consul's ACL system."""

    resource: str
    access: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What Consul has about the service and the gateway."""

    entry: Entry | None
    intentions: Entry | None
    intentions_are_entries: bool = True
    """False before Consul 1.9."""
    deletes_safely: bool = True
    """False before Consul 1.11: entries are deleted without check-and-set there, and rows are hidden without a word."""
    gateways: tuple[Entry, ...] = ()
    """All terminating-gateway entries that the token may see."""
    all_gateways: bool = True
    """False when Consul says that it hides some (1.11 and later)."""
    clashes: bool = False
    """There is an ingress-gateway entry of the gateway's name."""
    node: CatalogNode | None = None
    instances: tuple[HealthEntry, ...] = ()
    mesh: tuple[HealthEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class EditStep:
    """Written with check-and-set; ``revise`` plans it again when somebody else was faster."""

    edit: Edit
    revise: Revise

    @property
    def todo(self) -> tuple[str, ...]:
        return self.edit.todo

    @property
    def permissions(self) -> tuple[Permission, ...]:
        if self.edit.kind == entry.KIND:
            return (Permission("mesh", "write"),)
        return (Permission("intention", "write", self.edit.name),)


@dataclass(frozen=True, slots=True)
class RegisterStep:
    body: Mapping[str, Any]
    todo: tuple[str, ...]

    @property
    def permissions(self) -> tuple[Permission, ...]:
        service = Permission("service", "write", self.body["Service"]["Service"])
        return (service, Permission("node", "write", self.body["Node"])) if "Address" in self.body else (service,)


@dataclass(frozen=True, slots=True)
class RemoveStep:
    removal: Removal
    service: str
    node_too: bool
    """The node goes with its last instance, when this program had created it."""

    @property
    def todo(self) -> tuple[str, ...]:
        return (self.removal.todo,)

    @property
    def permissions(self) -> tuple[Permission, ...]:
        return (Permission("service", "write", self.service),)


Step = EditStep | RegisterStep | RemoveStep


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    steps: tuple[Step, ...]
    """In the order in which they are carried out; empty when nothing has to change."""
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()
    """The config entries as they shall be, changed or not."""
    registration: Mapping[str, Any] | None = None

    @property
    def permissions(self) -> tuple[Permission, ...]:
        return tuple(one for step in self.steps for one in step.permissions)


def plan_link(request: LinkRequest, found: Found) -> Plan:
    """:raises Refused: with every reason that was found in what Consul has."""
    warnings = request.check()
    parts = _Parts(_contradictions(request, found))

    def link(current: Entry | None) -> Edit:
        return entry.with_link(current, request, other_gateways=_names(found.gateways))

    def allow(current: Entry | None) -> Edit:
        return intentions.with_sources(current, request.service, request.allow, replace=request.replace)

    parts.attempt(lambda: check_outside_mesh(request.service, found.instances, found.mesh))
    linked = parts.attempt(lambda: link(found.entry))
    registration = parts.attempt(lambda: plan_registration(request, found.node, found.instances))
    allowed = parts.attempt(lambda: allow(found.intentions))
    if parts.reasons or linked is None or registration is None or allowed is None:
        raise Refused(*parts.reasons)
    steps: list[Step] = [EditStep(linked, link)] if linked.changed else []
    if registration.body is not None:
        steps.append(RegisterStep(registration.body, registration.todo))
    if allowed.changed:
        steps.append(EditStep(allowed, allow))
    return Plan(
        steps=tuple(steps),
        kept=linked.kept + registration.kept + allowed.kept,
        notes=warnings + linked.notes + registration.notes + allowed.notes,
        entries=_entries(linked, allowed) if request.allow else _entries(linked),
        registration=registration.body,
    )


def _contradictions(request: LinkRequest, found: Found) -> Iterator[str]:
    if found.clashes:
        yield (
            f"an ingress-gateway entry is named {request.gateway}, and Consul takes no terminating-gateway entry of the"
            " same name; choose another --gateway"
        )
    if request.allow and not found.intentions_are_entries:
        yield (
            "this Consul keeps intentions one by one (before 1.9): leave --allow away and use `consul intention create"
            f" -allow {request.allow[0]} {request.service}`"
        )


def plan_unlink(service: str, gateway: str, found: Found, *, purge: bool) -> Plan:
    """:raises Refused: when the names are none, or an entry cannot be written as it would have to be."""
    if reasons := tuple(name_reasons(service, gateway)):
        raise Refused(*reasons)
    if purge and not found.all_gateways:
        raise Refused(
            f"some terminating-gateway entries are hidden from this token, and one of them may link {service} as well;"
            f" leave --purge away, or add to the token's policy: {SERVICES_RULE}"
        )

    def unlink(current: Entry | None) -> Edit:
        return entry.without_link(current, service, gateway, purge=purge and found.deletes_safely)

    def forbid(current: Entry | None) -> Edit:
        return intentions.without_ours(current, service, may_delete=found.deletes_safely)

    unlinked = unlink(found.entry)
    removals, left = plan_removals(service, found.instances)
    others = sorted(
        str(one["Name"]) for one in found.gateways if one["Name"] != gateway and entry.links_to(one, service)
    )
    ours = intentions.our_sources(found.intentions)
    steps: list[Step] = []
    notes: tuple[str, ...]
    if purge and not others:
        forbidden = forbid(found.intentions)
        steps += [EditStep(forbidden, forbid)] if forbidden.changed else []
        steps += [RemoveStep(removal, service, node_too=found.deletes_safely) for removal in removals]
        notes = forbidden.notes + left
    else:
        notes = tuple(_left(service, gateway, len(removals), ours, others)) + left
    steps += [EditStep(unlinked, unlink)] if unlinked.changed else []
    return Plan(
        steps=tuple(steps),
        kept=unlinked.kept,
        notes=unlinked.notes + notes,
        entries=_entries(unlinked),
    )


def _left(service: str, gateway: str, instances: int, sources: tuple[str, ...], others: list[str]) -> list[str]:
    """What ``unlink`` without ``--purge`` leaves behind, or may not touch."""
    parts = [f"{instances} registered instance(s)"] if instances else []
    parts += [f"the intentions that let in {', '.join(sources)}"] if sources else []
    if not parts:
        return []
    what = " and ".join(parts)
    if others:
        return [f"{what} of {service} stay: it is linked by {', '.join(others)} as well"]
    return [f"{what} of {service} stay; remove them with `consul-tgw unlink {service} --gateway {gateway} --purge`"]


def _entries(*edits: Edit) -> tuple[Entry, ...]:
    return tuple(edit.after for edit in edits if edit.after is not None)


def _names(gateways: tuple[Entry, ...]) -> list[str]:
    return [str(one["Name"]) for one in gateways]


class _Parts:
    """Collects what every part refuses, so that an operator hears all of it at once."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = list(reasons)

    def attempt(self, part: Callable[[], T]) -> T | None:
        try:
            return part()
        except Refused as refused:
            self.reasons += refused.reasons
            return None
