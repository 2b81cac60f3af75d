"""The smallest ACL policy that a gateway's token needs for the links of the moment.

Which rights are asked for is decided by what ``observe`` and ``registration`` ask; here they are only written down, in
Consul's policy language or as the JSON that Consul takes for the same. It reads Consul and writes nothing.

Some rights come with ``service:write`` and need no rule: intentions and config entries of that service, and, with any
such right, jwt-provider entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from plugin.assemble.links import WILDCARD, linked_services
from plugin.assemble.peers import importers, importers_among, rows_of
from plugin.consul import endpoints
from plugin.consul.api import (
    ExportedService,
    ExportedServicesEntry,
    GatewayService,
    IntentionMatch,
    TerminatingGatewayEntry,
)
from plugin.consul.client import ConsulClient, decode, decode_rows
from plugin.errors import ConsulForbidden, ConsulRejected, ConsulUnavailable
from plugin.observe.default_action import reaches_everyone
from proxy.model import ServiceName

_DEFAULT_NAMESPACE = "default"
_NAMELESS = frozenset({"mesh", "peering"})


@dataclass(frozen=True, slots=True)
class Rule:
    resource: str
    """``service``, ``service_prefix``, ``node_prefix`` or ``agent_prefix``; ``mesh`` and ``peering`` have no names."""
    name: str
    access: str
    reason: str
    namespace: str = _DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Policy:
    gateway: str
    entry_exists: bool
    rules: tuple[Rule, ...]

    def hcl(self) -> str:
        """Each rule on a line of its own, after a comment that says what it is for."""
        lines = [f"# What the token of the gateway {self.gateway} needs for the services that are linked now."]
        if not self.entry_exists:
            lines.append(f"# There is no terminating-gateway entry {self.gateway} yet: nothing is linked.")
        for namespace, rules in self._by_namespace().items():
            inner = [text for rule in rules for text in ("", f"# {rule.reason}", _hcl(rule))]
            lines += inner if namespace == _DEFAULT_NAMESPACE else _in_namespace(namespace, inner)
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        """As ``consul acl policy create -rules`` takes it, too."""
        spaces = {namespace: _json(rules) for namespace, rules in self._by_namespace().items()}
        body = spaces.pop(_DEFAULT_NAMESPACE, {})
        if spaces:
            body["namespace"] = spaces
        return json.dumps(body, indent=2) + "\n"

    def _by_namespace(self) -> dict[str, list[Rule]]:
        found: dict[str, list[Rule]] = {}
        for rule in self.rules:
            found.setdefault(rule.namespace, []).append(rule)
        return found


async def read_policy(client: ConsulClient, gateway: str) -> Policy:
    """:raises ConsulError: when the links or intentions cannot be read; the text names the rule that it takes."""
    entry = await _entry(client, gateway)
    path = endpoints.gateway_services(gateway)
    rows = decode_rows(await client.blocking_get(path), GatewayService, path) if _links_all(entry) else ()
    linked = tuple(linked_services(entry, rows))
    hidden = await _default_is_hidden(client, (ServiceName(gateway), *linked))
    rules = (*_rules(gateway, entry, linked, default_is_hidden=hidden), *(await _rules_of_peers(client, linked)))
    return Policy(gateway, entry is not None, rules)


async def _rules_of_peers(client: ConsulClient, linked: Iterable[ServiceName]) -> tuple[Rule, ...]:
    """None unless a linked service is exported to a peer; who may not ask is taken for one that has no peers."""
    try:
        found = importers(await _exported(client))
    except (ConsulForbidden, ConsulRejected):
        return ()
    if not any(importers_among(found, name) for name in linked):
        return ()
    return (
        Rule("mesh", "", "read", "Which services are exported to which peers."),
        Rule("peering", "", "read", "The roots of the peers that linked services are exported to."),
    )


async def _exported(client: ConsulClient) -> tuple[ExportedService, ...]:
    path = endpoints.EXPORTED_SERVICES
    reply = await client.blocking_get(path, endpoints.EXPORTED_SERVICES_PARAMS)
    if reply.status == 200:
        return decode_rows(reply, ExportedService, path)
    path = endpoints.config("exported-services")
    reply = await client.blocking_get(path, endpoints.DEFAULT_NAMESPACE)
    return rows_of(decode_rows(reply, ExportedServicesEntry, path))[0] if reply.status == 200 else ()


async def _entry(client: ConsulClient, gateway: str) -> TerminatingGatewayEntry | None:
    path = endpoints.config("terminating-gateway", gateway)
    reply = await client.blocking_get(path)
    return None if reply.status == 404 else decode(reply, TerminatingGatewayEntry, path)


def _links_all(entry: TerminatingGatewayEntry | None) -> bool:
    return any(link.name == WILDCARD for link in (entry.services if entry else None) or ())


def _rules(
    gateway: str, entry: TerminatingGatewayEntry | None, linked: Iterable[ServiceName], *, default_is_hidden: bool
) -> Iterable[Rule]:
    spaces_of_wildcard = {
        link.namespace or (entry.namespace if entry else "") or _DEFAULT_NAMESPACE
        for link in (entry.services if entry else None) or ()
        if link.name == WILDCARD
    }
    for namespace in sorted(spaces_of_wildcard):
        reason = (
            "* is linked, and which services that will be is not known: the gateway asks for the certificate of each."
            " It includes its own registration."
        )
        yield Rule("service_prefix", "", "write", reason, namespace)
    own = ServiceName(gateway)
    if own.namespace not in spaces_of_wildcard:
        yield Rule("service", gateway, "write", "Its registration and its terminating-gateway entry.")
    named = [name for name in sorted(linked) if name.namespace not in spaces_of_wildcard and name != own]
    for name in named:
        reason = f"The certificate that lets the gateway be {name.name}, its intentions, instances and config entries."
        yield Rule("service", name.name, "write", reason, name.namespace)
    for namespace in sorted({_DEFAULT_NAMESPACE, *spaces_of_wildcard, *(name.namespace for name in named)}):
        reason = "The addresses and checks of the nodes on which instances are registered."
        yield Rule("node_prefix", "", "read", reason, namespace)
    if default_is_hidden:
        reason = "What applies when no intention matches: intentions from * hide it from who may not read the agent."
        yield Rule("agent_prefix", "", "read", reason)


async def _default_is_hidden(client: ConsulClient, names: Iterable[ServiceName]) -> bool:
    """Whether every service has an intention from ``*``, which would answer in the default's place."""
    for name in names:
        params = (("by", "destination"), ("name", name.name), *endpoints.tenancy(name))
        reply = await client.blocking_get(endpoints.INTENTIONS_MATCH, params)
        found = decode(reply, dict[str, tuple[IntentionMatch, ...] | None], endpoints.INTENTIONS_MATCH)
        if name.name not in found:
            raise ConsulUnavailable(f"Consul's answer about the intentions of {name} leaves it out")
        if not any(map(reaches_everyone, found[name.name] or ())):
            return False
    return True


def _hcl(rule: Rule) -> str:
    # A JSON string is one of the policy language, too: both quote alike.
    if rule.resource in _NAMELESS:
        return f'{rule.resource} = "{rule.access}"'
    return f'{rule.resource} {json.dumps(rule.name)} {{ policy = "{rule.access}" }}'


def _in_namespace(namespace: str, lines: Iterable[str]) -> Iterable[str]:
    indented = [f"  {line}" if line else "" for line in lines]
    return ["", f"namespace {json.dumps(namespace)} {{", *indented[1:], "}"]


def _json(rules: Iterable[Rule]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for rule in rules:
        if rule.resource in _NAMELESS:
            found[rule.resource] = rule.access
            continue
        found.setdefault(rule.resource, {})[rule.name] = {"policy": rule.access}
    return found
