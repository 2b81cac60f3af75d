"""A URI that is accepted is one service, the same that an independent reading finds, and the only way to write it."""

from __future__ import annotations

from urllib.parse import quote, unquote

from proxy.policy.identity import Identity, IdentityError, parse_spiffe_id

CODE = ("proxy.policy.identity",)


def run(data: bytes) -> None:
    check(data.decode("utf-8", "surrogateescape"))


def check(uri: str) -> None:
    try:
        identity = parse_spiffe_id(uri)
    except IdentityError:
        return
    assert identity == independently(uri)
    assert same_but_for_tenancy_case(uri, written(identity))
    assert all(part and part not in {"*", ".", ".."} and "/" not in part for part in names(identity))


def independently(uri: str) -> Identity:
    """By splitting, without a pattern."""
    scheme, empty, trust_domain, *segments = uri.split("/")
    assert (scheme, empty) == ("spiffe:", "")
    keys, values = segments[0::2], [unquote(value, errors="strict") for value in segments[1::2]]
    assert keys in (["ns", "dc", "svc"], ["ap", "ns", "dc", "svc"])
    partition = values.pop(0) if keys[0] == "ap" else "default"
    namespace, datacenter, service = values
    return Identity(trust_domain, service, namespace.lower(), partition.lower(), datacenter)


def written(identity: Identity) -> str:
    """As Consul writes it."""
    namespace, partition, datacenter, service = (
        quote(name, safe="$&+,:;=@")
        for name in (identity.namespace, identity.partition, identity.datacenter, identity.service)
    )
    where = "" if partition == "default" else f"/ap/{partition}"
    return f"spiffe://{identity.trust_domain}{where}/ns/{namespace}/dc/{datacenter}/svc/{service}"


def same_but_for_tenancy_case(uri: str, canonical: str) -> bool:
    """Consul does not tell the letter cases of namespaces and partitions apart."""
    head, separator, tail = uri.partition("/dc/")
    return head.lower() + separator + tail == canonical and head.startswith("spiffe://")


def names(identity: Identity) -> tuple[str, ...]:
    return identity.partition, identity.namespace, identity.datacenter, identity.service
