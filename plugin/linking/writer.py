"""Reads what a plan needs, and carries a plan out, step by step.

Config entries are written with check-and-set: when somebody else was faster, the change is planned again on what they
wrote, so that neither edit is lost. What was done before a failure stays, and is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from plugin.consul import endpoints
from plugin.consul.api import Check, HealthEntry
from plugin.consul.client import ConsulClient, decode, decode_rows
from plugin.consul.endpoints import Params
from plugin.errors import ConsulError, ConsulForbidden, ConsulUnavailable, GatewayError, UnknownKind
from plugin.linking import entry, intentions
from plugin.linking.edit import Entry, is_marked
from plugin.linking.instances import CatalogNode
from plugin.linking.plan import SERVICES_RULE, EditStep, Found, Permission, Plan, RegisterStep, RemoveStep, Step
from plugin.linking.primary import place_of_entries

ATTEMPTS = 20
"""Of one check-and-set; each failure means that somebody else's edit came through."""
_AGENT_CHECK = "serfHealth"
_KIND_OF_1_11 = "exported-services"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    done: tuple[str, ...]
    left: tuple[str, ...] = ()
    """What was not done, the failed step first; empty when all is done."""
    problem: GatewayError | None = None


async def find(client: ConsulClient, service: str, gateway: str, node: str = "") -> Found:
    """:raises ConsulError, ConfigError: when anything that a decision needs cannot be read."""
    place = await place_of_entries(client)
    are_entries = await _knows_kind(client, intentions.KIND, service)
    gateways, all_gateways = await _gateways(client, place)
    return Found(
        entry=await _read_entry(client, entry.KIND, gateway, place),
        intentions=await _read_entry(client, intentions.KIND, service, place) if are_entries else None,
        intentions_are_entries=are_entries,
        deletes_safely=await _knows_kind(client, _KIND_OF_1_11),
        gateways=gateways,
        all_gateways=all_gateways,
        clashes=await _read_entry(client, "ingress-gateway", gateway, place) is not None,
        node=await _node(client, node) if node else None,
        instances=await _instances(client, endpoints.health(service), endpoints.NODE_READ_RULE),
        mesh=await _instances(
            client, endpoints.health_connect(service), f"{endpoints.NODE_READ_RULE}\n{SERVICES_RULE}"
        ),
    )


async def _read_entry(client: ConsulClient, kind: str, name: str, place: Params) -> Entry | None:
    path = endpoints.config(kind, name)
    reply = await client.blocking_get(path, place)
    return None if reply.status == 404 else decode(reply, dict[str, Any], path)


async def _knows_kind(client: ConsulClient, kind: str, name: str = "") -> bool:
    """:raises ConsulError: when Consul does not answer, or answers something else."""
    try:
        await client.blocking_get(endpoints.config(kind, name))
    except UnknownKind:
        return False
    return True


async def _gateways(client: ConsulClient, place: Params) -> tuple[tuple[Entry, ...], bool]:
    """The entries that the token may see, and whether these are all."""
    path = endpoints.config(entry.KIND)
    reply = await client.blocking_get(path, place)
    return decode_rows(reply, dict[str, Any], path), not reply.filtered


async def _instances(client: ConsulClient, path: str, rule: str) -> tuple[HealthEntry, ...]:
    """:raises ConsulForbidden: when some are hidden from the token: what they are would have to be guessed."""
    reply = await client.blocking_get(path)
    if reply.filtered:
        raise ConsulForbidden(f"Consul hides a part of {path} from this token; add to its policy: {rule}", rule)
    return decode_rows(reply, HealthEntry, path)


async def _node(client: ConsulClient, name: str) -> CatalogNode | None:
    path = endpoints.catalog_node(name)
    reply = await client.blocking_get(path)
    if reply.body.strip() == b"null":
        return None
    found = decode(reply, _NodeServices, path)
    checks_path = endpoints.health_node(name)
    checks = decode_rows(await client.blocking_get(checks_path), Check, checks_path)
    return CatalogNode(
        complete=not reply.filtered,
        address=found.node.address,
        meta=found.node.meta or {},
        has_agent=any(check.check_id == _AGENT_CHECK for check in checks),
        services=found.services or {},
    )


class _NodeHead(msgspec.Struct, frozen=True, rename="pascal"):
    address: str = ""
    meta: dict[str, str] | None = None


class _NodeServices(msgspec.Struct, frozen=True, rename="pascal"):
    node: _NodeHead
    services: dict[str, dict[str, Any]] | None = None


async def missing_rules(client: ConsulClient, wanted: Iterable[Permission]) -> tuple[str, ...]:
    """The ACL rules that the token lacks, asked at once, before anything is written.

    ``POST /v1/internal/acl/authorize`` answers it. It is what Consul's own pages use and not promised to others: an
    agent that does not answer it, or has no ACLs, leaves the question to the writes themselves.
    """
    asked = tuple(dict.fromkeys(wanted))
    if not asked:
        return ()
    denied = await _denied(client, asked)
    if denied is None:
        # Before 1.10 there was no rule for the mesh, and a resource that is not known spoils the whole question.
        operator = (replace(one, resource="operator") if one.resource == "mesh" else one for one in asked)
        denied = await _denied(client, tuple(operator))
    return tuple(endpoints.rule(one.resource, one.name, one.access) for one in denied or ())


async def _denied(client: ConsulClient, asked: tuple[Permission, ...]) -> list[Permission] | None:
    """``None`` when Consul does not tell."""
    body = [{"Resource": one.resource, "Access": one.access, "Segment": one.name} for one in asked]
    try:
        reply = await client.transport.request("POST", endpoints.AUTHORIZE_ACL, body=msgspec.json.encode(body))
        answers = decode(reply, tuple[_Authorization, ...], endpoints.AUTHORIZE_ACL)
    except ConsulError:
        return None
    if len(answers) != len(asked):
        return None
    return [one for one, answer in zip(asked, answers, strict=True) if not answer.allow]


class _Authorization(msgspec.Struct, frozen=True, rename="pascal"):
    allow: bool


async def callers_by_default(client: ConsulClient, service: str) -> bool:
    """Whether a service without an intention of its own may call ``service``; false when that cannot be asked."""
    params = (("source", "consul-tgw-nobody"), ("destination", service))
    try:
        return (await client.get(endpoints.INTENTIONS_CHECK, params, type=_Allowed)).allowed
    except ConsulError:
        return False


class _Allowed(msgspec.Struct, frozen=True, rename="pascal"):
    allowed: bool


async def carry_out(client: ConsulClient, plan: Plan) -> Outcome:
    """Stops at the first step that fails."""
    done: list[str] = []
    for number, step in enumerate(plan.steps):
        try:
            done += await _step(client, step)
        except GatewayError as error:
            left = tuple(phrase for later in plan.steps[number:] for phrase in later.todo)
            return Outcome(done=tuple(done), left=left, problem=error)
    return Outcome(done=tuple(done))


async def _step(client: ConsulClient, step: Step) -> tuple[str, ...]:
    if isinstance(step, EditStep):
        return await _write_edit(client, step)
    if isinstance(step, RegisterStep):
        await client.put(endpoints.CATALOG_REGISTER, step.body)
        return step.todo
    return await _remove(client, step)


async def _write_edit(client: ConsulClient, step: EditStep) -> tuple[str, ...]:
    """What was done; nothing when somebody else did it meanwhile.

    :raises Refused: when the entry has become one that must not be changed so.
    :raises ConsulUnavailable: when others edit it all the time.
    """
    edit = step.edit
    for _ in range(ATTEMPTS):
        if not edit.changed:
            return ()
        if await _write(client, edit.kind, edit.name, edit.after, edit.cas):
            return edit.todo
        # Asked anew each time: it may be this that was wrong.
        place = await place_of_entries(client)
        edit = step.revise(await _read_entry(client, edit.kind, edit.name, place))
    raise ConsulUnavailable(
        f"the {edit.kind} entry {edit.name} was changed by somebody else {ATTEMPTS} times in a row; try again"
    )


async def _write(client: ConsulClient, kind: str, name: str, content: Entry | None, cas: str) -> bool:
    params = (("cas", cas),)
    if content is not None:
        return (await client.put(endpoints.CONFIG, content, params)).strip() == b"true"
    path = endpoints.config(kind, name)
    return (await client.transport.request("DELETE", path, params)).body.strip() == b"true"


async def _remove(client: ConsulClient, step: RemoveStep) -> tuple[str, ...]:
    removal = step.removal
    await client.put(endpoints.CATALOG_DEREGISTER, removal.body)
    node = await _node(client, removal.node) if step.node_too else None
    if node is None or node.services or not node.complete or not is_marked(node.meta):
        return (removal.todo,)
    body: Mapping[str, str] = {"Node": removal.node}
    try:
        await client.put(endpoints.CATALOG_DEREGISTER, body)
    except ConsulError as error:
        return (
            removal.todo,
            f"leave the node {removal.node}, which has no service now and could not be removed: {error}",
        )
    return (removal.todo, f"remove the node {removal.node}, which has no service now")
