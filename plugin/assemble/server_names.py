"""The TLS server names that Consul's sidecars and mesh gateways send for a linked service.

They are built exactly as Consul builds them and compared whole; they are never parsed, because ``a.b.default...``
is both subset ``a`` of ``b`` and the service ``a.b``. Everything is lower case, as TLS server names are compared
without case. Consul's own rule is in its ``agent/connect/sni.go``.
"""

from __future__ import annotations

from proxy.model import ServiceName


def service_sni(name: ServiceName, *, datacenter: str, trust_domain: str, subset: str = "") -> str:
    """Return the name for ``name``, or for one ``subset`` of its service-resolver."""
    parts = [subset] if subset else []
    parts += [name.name, name.namespace]
    if name.partition == "default":
        parts += [datacenter, "internal", trust_domain]
    else:
        parts += [name.partition, datacenter, "internal-v1", trust_domain]
    return ".".join(parts).lower()


def destination_sni(name: ServiceName, address: str, *, datacenter: str, trust_domain: str) -> str:
    """Return the name for one address of ``service-defaults.Destination``; each address has its own."""
    label = address.replace(".", "-").replace(":", "-")
    service = service_sni(name, datacenter=datacenter, trust_domain=trust_domain)
    return f"destination.{label}.{service}".lower()


def peer_sni(name: ServiceName, *, peer: str, trust_domain: str) -> str:
    """Return the name that an importing peer uses.

    ``peer`` is what this cluster calls the importer, ``trust_domain`` is this cluster's own.
    """
    return f"{name.name}.{name.namespace}.{name.partition}.{peer}.external.{trust_domain}".lower()
