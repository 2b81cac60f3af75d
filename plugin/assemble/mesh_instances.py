"""Which instances of a service a terminating gateway leaves to their sidecars.

An instance that is in the mesh is reached past its sidecar if the gateway dials it too. Pure: rows of Consul's health
answers in, rows out. It decides nothing about health, subsets or addresses.
"""

from __future__ import annotations

from collections.abc import Iterable

from plugin.consul.api import HealthEntry

_SIDECAR = "connect-proxy"


def could_be_mixed(instances: Iterable[HealthEntry]) -> bool:
    """Say whether some instances may be in the mesh and others not: only then it matters which have a sidecar."""
    natives = [_native(entry) for entry in instances if not entry.service.kind]
    return len(natives) > 1 and not all(natives)


def outside_mesh(instances: tuple[HealthEntry, ...], sidecars: Iterable[HealthEntry]) -> tuple[HealthEntry, ...]:
    """Return the instances that are not in the mesh; all of them if every one is.

    ``instances`` are those of ``/v1/health/service/:service``, ``sidecars`` those of ``/v1/health/connect/:service``.
    An instance is in the mesh when it is native, or when a proxy on its node names its service ID. Rows that are no
    instances (proxies and gateways under the service's name) neither count nor stay when others do.
    """
    proxied = {
        (entry.node.node, entry.service.proxy.destination_service_id)
        for entry in sidecars
        if entry.service.kind == _SIDECAR and entry.service.proxy is not None
    }
    outside = tuple(
        entry
        for entry in instances
        if not entry.service.kind and not _native(entry) and (entry.node.node, entry.service.id) not in proxied
    )
    return outside or instances


def _native(entry: HealthEntry) -> bool:
    return entry.service.connect is not None and entry.service.connect.native
