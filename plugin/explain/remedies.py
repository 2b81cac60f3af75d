"""What would let a caller in: commands, ready to be pasted. Pure.

Intentions are written as the whole entry of the service, since ``consul intention create`` refuses to touch what was
written as an entry. Made from what Consul said about the service's intentions: what it did not say is not in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from plugin.consul.api import IntentionMatch
from plugin.explain.caller import Caller
from plugin.explain.standing import Standing
from plugin.linking.hcl import to_hcl
from proxy.http.message import RequestHead
from proxy.model import CloseReason, ServiceName
from proxy.policy.decision import Refusal
from proxy.rules import Action, Intention

Remedies = tuple[tuple[str, ...], tuple[str, ...]]
"""Remedies and remarks."""


def of_link(standing: Standing) -> Remedies:
    """To link the service: the whole entry, with the links that there are."""
    before = standing.entry
    kept: list[dict[str, Any]] = [] if before is None else [_filled(one) for one in before.services or ()]
    entry: dict[str, Any] = {
        **_named("terminating-gateway", standing.gateway, before.namespace if before is not None else ""),
        "Services": [*kept, _in_namespace({"Name": standing.name.name}, standing.name.namespace)],
    }
    if before is not None and before.meta:
        entry["Meta"] = before.meta
    return (
        (_write(entry),),
        (
            "The gateway's token needs"
            f' service "{standing.name.name}" {{ policy = "write", intentions = "read" }} for it;'
            " `consul-tgw check` says what else is missing.",
        ),
    )


def of_refusal(
    standing: Standing, caller: Caller, refusal: Refusal, deciding: Sequence[Intention], head: RequestHead | None
) -> Remedies:
    """To let the caller in that policy denies. ``deciding`` is the intention that concerns it, or none is; ``head`` is
    the request at layer 7."""
    if refusal.reason is not CloseReason.DENIED:
        return (), ()
    if refusal.token:
        return (), (f"No entry has to change: a request with a good token is let in. Now: {refusal.token}.",)
    rows = [_source(one) for one in standing.matches if one.destination_name == standing.name.name]
    tokens = next((one.jwt for one in standing.matches if one.destination_name == standing.name.name), None)
    own = next((row for row in rows if _is_of(row, caller)), None)
    if own is None:
        own = _in_namespace({"Name": caller.name.name}, caller.name.namespace)
        own |= {"Peer": caller.peer} if caller.peer else {}
        rows.append(own)
    else:
        own.pop("Action", None)
    remarks = []
    if head is None:
        if own.pop("Permissions", None):
            remarks.append("The permissions of its intention are not in it: they mean nothing to a service of tcp.")
        own["Action"] = "allow"
        remarks.append(f"It allows every connection of {caller.text} to {standing.name}, and nobody else.")
    else:
        own["Permissions"] = _permissions(standing, own.get("Permissions") or (), refusal.permission, head)
        remarks.append(
            "It allows this caller, this method and this path, no more; the first permission that matches decides."
            ' Action = "allow" in the place of Permissions would allow every request.'
        )
    remarks += _care(standing, refusal)
    entry = {**_named("service-intentions", standing.name.name, standing.name.namespace), "Sources": rows}
    return (_write(entry | ({"JWT": _filled(tokens)} if tokens else {})),), tuple(remarks)


def _care(standing: Standing, refusal: Refusal) -> list[str]:
    remarks = [
        "An exact source is better than `*`, which allows everybody.",
        "It takes the place of the whole entry, and has no Description and no Meta: compare it with"
        f" `consul config read -kind service-intentions -name {standing.name.name}`.",
    ]
    if refusal.intention is not None and refusal.intention.destination != standing.name.name:
        remarks.append("The intention that denies is about every service; it stays, and the exact one goes before it.")
    return remarks


def _permissions(standing: Standing, before: Sequence[Any], denying: int, head: RequestHead) -> list[dict[str, Any]]:
    """``before`` with one that allows the request, in front of the one that denies it now (1 is the first, 0 none)."""
    permissions = list(before)
    permissions.insert(denying - 1 if 0 < denying <= len(permissions) else len(permissions), _permission(head))
    if not before and (standing.mesh is None or standing.mesh.default_action is not Action.DENY):
        # What matches none is up to the default action, not to the intention that has denied until now.
        permissions.append({"Action": "deny", "HTTP": {"PathPrefix": "/"}})
    return permissions


def _permission(head: RequestHead) -> dict[str, Any]:
    path = head.target.partition(b"?")[0].decode("utf-8", "replace")
    return {"Action": "allow", "HTTP": {"PathExact": path, "Methods": [head.method.decode()]}}


def _source(match: IntentionMatch) -> dict[str, Any]:
    """As in an entry."""
    row: dict[str, Any] = _in_namespace({"Name": match.source_name}, match.source_ns)
    if match.source_partition not in ("", "default"):
        row["Partition"] = match.source_partition
    row |= {"Peer": match.source_peer, "SamenessGroup": match.source_sameness_group}
    row["Permissions"] = _filled(match.permissions)
    row["Action"] = "" if match.permissions else match.action
    return {key: value for key, value in row.items() if value}


def _is_of(row: Mapping[str, Any], caller: Caller) -> bool:
    name: ServiceName = caller.name
    place = row.get("Namespace", "default"), row.get("Peer", ""), row.get("SamenessGroup", "")
    return bool(row["Name"] == name.name and place == (name.namespace, caller.peer, ""))


def _named(kind: str, name: str, namespace: str) -> dict[str, Any]:
    return _in_namespace({"Kind": kind, "Name": name}, namespace)


def _in_namespace(entry: dict[str, Any], namespace: str) -> dict[str, Any]:
    return entry if namespace in ("", "default") else entry | {"Namespace": namespace}


def _filled(value: Any) -> Any:
    """Without what is empty, which an entry need not say."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        found = {key: _filled(inner) for key, inner in value.items()}
        return {key: inner for key, inner in found.items() if inner not in ("", None, False, [], {}, 0)}
    if isinstance(value, list | tuple):
        return [_filled(inner) for inner in value]
    return value


def _write(entry: dict[str, Any]) -> str:
    return f"consul config write - <<'EOF'\n{to_hcl(entry)}EOF"
