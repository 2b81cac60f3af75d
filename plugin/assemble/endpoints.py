"""Where the instances of an external service answer, as a worker dials them.

Instances come from Consul's health answer, destinations from service-defaults. Hostnames are replaced by all their
addresses, side by side with instances that have an IP address. Instances that are down stay in the list, marked:
what to do when all are down is the balancer's decision. Those in maintenance mode do not: nobody is to use them.
Pure: names are resolved in :mod:`plugin.observe.dns`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from plugin.consul.api import Destination, HealthEntry, ServiceDefaults
from plugin.facts import Fact
from proxy.model import Endpoint

Addresses = Mapping[str, Fact[tuple[str, ...]]]

_UP = frozenset({"passing", "warning"})
_MAINTENANCE = ("_node_maintenance", "_service_maintenance:")
"""How the IDs of the checks begin that ``consul maint`` makes, for a node and for a service."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    endpoints: tuple[Endpoint, ...]
    warnings: tuple[str, ...] = ()
    """Instances that cannot or must not be dialled, and why."""


def is_address(text: str) -> bool:
    """Say whether ``text`` is an IP address, with or without brackets; otherwise it is a hostname."""
    return _ip(text) is not None


def hostnames(entries: Iterable[HealthEntry], defaults: ServiceDefaults | None) -> frozenset[str]:
    """Return the names that must be resolved before these instances and destinations can be dialled."""
    hosts = [_host(entry) for entry in entries if not entry.service.kind]
    if defaults is not None and defaults.destination is not None:
        hosts += defaults.destination.addresses or ()
    return frozenset(host for host in hosts if host and not is_address(host))


def instance_endpoints(
    entries: Iterable[HealthEntry], addresses: Addresses, *, only_passing: bool = False
) -> Endpoints:
    """Return the endpoints of the instances, in Consul's order.

    Proxies and gateways that are registered under the service's name are not instances of it. A hostname with
    several addresses yields an endpoint for each, with the weight of the instance.
    """
    found: dict[Endpoint, None] = {}
    warnings: list[str] = []
    for entry in entries:
        if entry.service.kind:
            continue
        instance = f"{entry.node.node}/{entry.service.id}"
        if any(check.check_id.startswith(_MAINTENANCE) for check in entry.checks):
            warnings.append(f"the instance {instance} is in maintenance mode and not used; see `consul maint`")
            continue
        weight, healthy = _weight_and_health(entry, only_passing)
        try:
            for address, hostname in _resolved(_host(entry), entry.service.port, addresses):
                found[Endpoint(address, entry.service.port, hostname, weight, healthy, instance)] = None
        except _UndialableError as error:
            warnings.append(f"the instance {instance} {error}")
    return Endpoints(tuple(found), tuple(warnings))


def destination_endpoints(destination: Destination, host: str, addresses: Addresses) -> Endpoints:
    """Return the endpoints of one address of a destination."""
    try:
        resolved = list(_resolved(host, destination.port, addresses))
    except _UndialableError as error:
        return Endpoints((), (f"the destination {host}:{destination.port} {error}",))
    return Endpoints(tuple(Endpoint(address, destination.port, hostname) for address, hostname in resolved))


class _UndialableError(Exception):
    """Why an instance has no endpoint, as the end of a sentence."""


def _resolved(host: str, port: int, addresses: Addresses) -> Iterator[tuple[str, str]]:
    """Yield pairs of IP address and the hostname it came from."""
    if not 0 < port < 65_536:
        raise _UndialableError(f"has port {port} in the catalog, which cannot be dialled; register it with its port")
    if not host:
        raise _UndialableError("has no address in the catalog; register it with an address")
    address = _ip(host)
    if address is not None:
        yield address, ""
        return
    fact = addresses.get(host, Fact[tuple[str, ...]]())
    if not fact.known or not fact.value:
        why = fact.problem or ("it has no address" if fact.known else "the answer is still awaited")
        raise _UndialableError(f"has the hostname {host}, which is not resolved: {why}")
    for resolved in fact.value:
        yield resolved, host


def _host(entry: HealthEntry) -> str:
    return entry.service.address or entry.node.address


def _ip(text: str) -> str | None:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        return None


def _weight_and_health(entry: HealthEntry, only_passing: bool) -> tuple[int, bool]:
    """The checks of the whole node count like those of the instance; a weight of 0 takes it out, as in Consul."""
    statuses = {check.status for check in entry.checks}
    weights = entry.service.weights
    weight = weights.warning if "warning" in statuses else weights.passing
    acceptable = {"passing"} if only_passing else _UP
    healthy = weight >= 1 and statuses <= acceptable
    return max(weight, 1), healthy
