"""Looks at everything a gateway needs, without being one: what works, what is missing, and how to mend it.

It reads Consul with the same variables, the same watches and the same assembling as a running gateway, on the host
where that will run (files are part of it). It registers nothing and binds nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from plugin.addresses import HostPort
from plugin.assemble.peers import importers_of
from plugin.consul import endpoints
from plugin.consul.api import HealthEntry
from plugin.consul.client import ConsulClient
from plugin.consul.poller import WatchState
from plugin.errors import ConsulForbidden, ConsulUnavailable, GatewayError
from plugin.facts import Fact
from plugin.gateway import PATIENCE_S, Gateway, facts_of
from plugin.observe.needs import Needs
from plugin.observe.observer import Observer
from plugin.observe.store import FactStore
from plugin.process.tasks import spawn
from plugin.settings import ConsulSettings
from plugin.workers.published import Published
from proxy.model import Leaf, Mesh, Service, ServiceName
from proxy.rules import Action


class Finding(msgspec.Struct, frozen=True):
    level: str
    """``ok``, ``warning`` (it works, but) or ``missing`` (it does not)."""
    text: str
    rule: str = ""
    """The ACL rule that is missing, in Consul's policy language."""


class ServiceReport(msgspec.Struct, frozen=True):
    name: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.level != "missing" for finding in self.findings)


class Report(msgspec.Struct, frozen=True):
    gateway: str
    consul: str
    findings: tuple[Finding, ...]
    """About what all services share."""
    services: tuple[ServiceReport, ...]

    @property
    def ok(self) -> bool:
        return all(one.level != "missing" for one in self.findings) and all(service.ok for service in self.services)


async def check_gateway(
    settings: ConsulSettings,
    gateway_name: str,
    *,
    patience_s: float = PATIENCE_S,
    dns_servers: Sequence[HostPort] = (),
) -> Report:
    """Observe until every answer has come, or for ``patience_s``.

    :param dns_servers: resolve the hostnames of external services; empty: those of /etc/resolv.conf.
    :raises ConsulUnavailable: when Consul does not answer.
    """
    store, published = FactStore(), Published()
    needs = Needs(store, dns_servers)
    async with ConsulClient(settings) as client:
        gateway = Gateway(store, published, lambda names, *, mesh: None, needs=needs.changed)
        observer = Observer(client, store, gateway_name)
        parts = [
            spawn(part, name=name)
            for name, part in (("observer", observer.run()), ("gateway", gateway.run()), ("needs", needs.run()))
        ]
        try:
            await _settle(store, published, parts, patience_s)
            registered = await _registration(client, gateway_name)
            hidden = await _hidden(client, published)
            consul = tuple(_about_consul(await _version(client), observer.watch_states()))
            return _report(store, published, gateway, gateway_name, settings.address, consul, registered, hidden)
        finally:
            for part in parts:
                part.cancel()
            await asyncio.wait(parts, timeout=5.0)


async def _settle(
    store: FactStore, published: Published, parts: Iterable[asyncio.Task[None]], patience_s: float
) -> None:
    """:raises ConsulUnavailable: when nothing at all is known in the end."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + patience_s
    while not published.complete and loop.time() < deadline_s:
        if isinstance(store.entry.fact.problem, ConsulForbidden):
            return
        await asyncio.wait(parts, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
    problem = store.entry.fact.problem or store.roots.fact.problem
    if not store.entry.fact.known and isinstance(problem, ConsulUnavailable):
        raise problem


async def _registration(client: ConsulClient, gateway_name: str) -> tuple[HealthEntry, ...] | GatewayError:
    try:
        return await client.get(endpoints.health(gateway_name), type=tuple[HealthEntry, ...])
    except GatewayError as error:
        return error


async def _version(client: ConsulClient) -> str:
    """Empty when the token may not ask, or the agent does not say."""
    try:
        answer = await client.get(endpoints.AGENT_SELF, type=dict[str, Any])
    except GatewayError:
        return ""
    version = (answer.get("Config") or {}).get("Version")
    return version if isinstance(version, str) else ""


async def _hidden(client: ConsulClient, published: Published) -> frozenset[ServiceName]:
    """Services without an endpoint of which Consul says that the token may not see everything (1.11 and later)."""
    found = set()
    for name, service in published.services.items():
        if not any(server_name.endpoints for server_name in service.server_names):
            reply = await client.blocking_get(endpoints.health(name.name), endpoints.tenancy(name))
            if reply.filtered:
                found.add(name)
    return frozenset(found)


def _report(
    store: FactStore,
    published: Published,
    gateway: Gateway,
    gateway_name: str,
    address: str,
    consul: tuple[Finding, ...],
    registered: tuple[HealthEntry, ...] | GatewayError,
    hidden: frozenset[ServiceName],
) -> Report:
    shared = (
        *consul,
        *_about_entry(store, gateway_name),
        *_about_mesh(store, published, gateway),
        *_about_registration(registered, gateway_name),
    )
    services = tuple(
        ServiceReport(str(name), tuple(_about_service(name, store, published, gateway, hidden)))
        for name in sorted(store.linked())
    )
    return Report(gateway_name, address, shared, services)


def _about_consul(version: str, watches: Iterable[WatchState]) -> Iterable[Finding]:
    if version:
        yield Finding("ok", f"Consul {version}")
    else:
        yield Finding("ok", "the version of Consul is not told to this token", 'agent_prefix "" { policy = "read" }')
    for watch in watches:
        if watch.note:
            yield Finding("ok", f"{watch.name} is taken for absent: {watch.note}")


def _about_entry(store: FactStore, gateway_name: str) -> Iterable[Finding]:
    fact = store.entry.fact
    if fact.problem is not None:
        yield _missing(fact.problem)
    elif fact.value is None:
        yield Finding(
            "missing",
            f"there is no terminating-gateway entry named {gateway_name}; write one with `consul config write`",
        )
    else:
        yield Finding("ok", f"the terminating-gateway entry {gateway_name} links {len(store.linked())} services")


def _about_mesh(store: FactStore, published: Published, gateway: Gateway) -> Iterable[Finding]:
    if published.mesh is None:
        yield from (Finding("missing", reason) for reason in gateway.mesh_problems)
        return
    mesh = published.mesh
    yield Finding("ok", f"the mesh is {mesh.trust_domain} in {mesh.datacenter}, with {len(mesh.roots_pem)} root(s)")
    if mesh.default_action is None:
        text = "whether callers without an intention are allowed is not known: they are refused"
        problem = store.default_action.fact.problem
        yield Finding("warning", f"{text}: {problem}" if problem else text, _rule(problem))
    else:
        word = "allowed" if mesh.default_action is Action.ALLOW else "refused"
        yield Finding("ok", f"callers without an intention are {word}")
    entries = store.providers.fact.problem
    if entries is not None and store.mesh_facts().wanted_providers:
        yield _missing(entries)
    for provider in mesh.token_providers:
        if not provider.problem:
            yield Finding("ok", f"the jwt-provider {provider.name} has keys")
    yield from _about_peers(store, mesh)
    told = [str(one) for one in (entries, store.peers.fact.problem) if one is not None]
    for warning in gateway.mesh_warnings:
        if not any(text in warning for text in told):
            yield Finding("warning", warning)


def _about_peers(store: FactStore, mesh: Mesh) -> Iterable[Finding]:
    exports, peers = store.exports.fact.problem, store.peers.fact.problem
    if exports is not None:
        yield Finding("warning", f"what is exported to peers is not known: {exports}", _rule(exports))
    if store.is_any_exported() and peers is not None:
        yield _missing(peers)
    elif store.is_any_exported() and not store.peers.fact.known:
        text = "the peerings are not told yet: callers of peers are refused; Consul takes seconds to refuse them"
        yield Finding("warning", text, endpoints.rule("peering", "", "read"))
    for bundle in mesh.peer_bundles:
        what = f"callers of peer {bundle.peer} are of {bundle.trust_domain}, with {len(bundle.roots_pem)} root(s)"
        yield Finding("ok", what)


def _about_registration(found: tuple[HealthEntry, ...] | GatewayError, gateway_name: str) -> Iterable[Finding]:
    if isinstance(found, GatewayError):
        yield _missing(found)
        return
    gateways = [entry for entry in found if entry.service.kind == "terminating-gateway"]
    for entry in gateways:
        failing = [check.name or check.check_id for check in entry.checks if check.status != "passing"]
        where = f"{entry.service.id} on {entry.node.node}"
        if failing:
            yield Finding("warning", f"{where} is registered, but not passing: {', '.join(failing)}")
        else:
            yield Finding("ok", f"{where} is registered and passing")
    if not gateways:
        yield Finding(
            "warning",
            f"no gateway {gateway_name} is registered (or the token cannot see it); start one with `consul-tgw run"
            f" --service {gateway_name}`; its token needs the rule below",
            f'service "{gateway_name}" {{ policy = "write" }}',
        )


def _about_service(
    name: ServiceName, store: FactStore, published: Published, gateway: Gateway, hidden: frozenset[ServiceName]
) -> Iterable[Finding]:
    facts = store.service_facts(name)
    forbidden = [fact.problem for fact in facts_of(facts) if isinstance(fact.problem, ConsulForbidden)]
    yield from dict.fromkeys(_missing(problem) for problem in forbidden)
    told = {str(problem) for problem in forbidden}
    for reason in gateway.problems_of(name):
        if not any(text in reason for text in told):
            yield Finding("missing", reason)
    for warning in gateway.warnings_of(name):
        if not any(text in warning for text in told):
            yield Finding("warning", warning)
    service = published.services.get(name)
    if service is not None:
        yield from _about_served(service, hidden=name in hidden)
        yield from _empty_subsets(service, gateway.warnings_of(name))
    yield from (Finding("ok", text) for text in _known(facts.leaf, facts.instances))


def _about_served(service: Service, *, hidden: bool) -> Iterable[Finding]:
    ends = {endpoint for server_name in service.server_names for endpoint in server_name.endpoints}
    healthy = sum(endpoint.healthy for endpoint in ends)
    if not ends and hidden:
        text = f"the token may not see the nodes on which {service.name} is registered"
        yield Finding("missing", text, endpoints.NODE_READ_RULE)
    elif not ends:
        yield Finding("missing", f"{service.name} has no instance that can be reached: register one in the catalog")
    else:
        yield Finding("ok" if healthy else "warning", f"{healthy} of {len(ends)} endpoints are healthy")
    how = "TLS" if service.upstream_tls else "plain TCP"
    layer = "each request is decided about" if service.http is not None else "each connection is decided about"
    yield Finding("ok", f"it is reached by {how}, protocol {service.protocol}: {layer}")
    yield Finding("ok", f"{len(service.intentions or ())} intention(s) concern it")
    for peer in importers_of(service):
        through = " through mesh gateways of this cluster" if peer in service.importers else ""
        yield Finding("ok", f"callers of peer {peer} may ask for it{through}")


def _empty_subsets(service: Service, warnings: Iterable[str]) -> Iterable[Finding]:
    """Subsets that no instance is in, where there are instances; those whose filter is none are told of already."""
    told = " ".join(warnings)
    empty = [one.subset for one in service.server_names if one.subset and not one.endpoints]
    if len(empty) < len(service.server_names):
        for subset in (one for one in empty if f"the subset {one!r} " not in told):
            yield Finding(
                "warning",
                f"no instance of {service.name} is in the subset {subset!r}: who asks for it is refused; correct its"
                " Filter in the service-resolver, or Meta and Tags of the instances",
            )


def _known(leaf: Fact[Leaf], instances: Fact[tuple[HealthEntry, ...]]) -> Iterable[str]:
    if leaf.known:
        yield "its leaf certificate can be had"
    if instances.known and instances.value:
        yield f"{len(instances.value)} instance(s) in the catalog"


def _missing(problem: GatewayError) -> Finding:
    return Finding("missing", str(problem), _rule(problem))


def _rule(problem: GatewayError | None) -> str:
    return problem.rule if isinstance(problem, ConsulForbidden) else ""
