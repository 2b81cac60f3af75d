"""What is different between two states of a service, or of what all services share, in words. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from proxy.model import Endpoint, Mesh, Service, UpstreamTLS
from proxy.rules import Intention

MOST_INTENTIONS = 20
"""Of one service and update that are told one by one."""
_PLAIN = {
    "protocol": "protocol",
    "connect_timeout_s": "connect timeout",
    "idle_timeout_s": "idle timeout",
    "half_closed_timeout_s": "timeout of half-closed connections",
    "max_lifetime_s": "maximum lifetime",
    "max_connections": "maximum of connections",
}
_NAMED = {"balance": "load balancing", "keepalive": "TCP keepalive", "http": "HTTP settings"}

Told = tuple[str, str]
"""Which fact it comes from (``instances``, ``intentions``, ``leaf``, ``files`` ...), and what is different."""


def service_differences(before: Service, after: Service) -> Iterator[Told]:
    yield from (("intentions", text) for text in _intentions(before, after))
    yield from (("instances", text) for text in _instances(before, after))
    if before.leaf.serial_number != after.leaf.serial_number or (before.leaf != after.leaf):
        yield "leaf", f"leaf renewed, ends {_when(after.leaf.not_after_s)}"
    yield from (("files", text) for text in _upstream_tls(before.upstream_tls, after.upstream_tls))
    for field, name in _PLAIN.items():
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            yield "settings", f"{name} {_value(old)} -> {_value(new)}"
    for field, name in _NAMED.items():
        if getattr(before, field) != getattr(after, field):
            yield "settings", f"{name} changed"


def mesh_differences(before: Mesh, after: Mesh) -> Iterator[Told]:
    added = len(set(after.roots_pem) - set(before.roots_pem))
    removed = len(set(before.roots_pem) - set(after.roots_pem))
    if added or removed:
        yield "roots", f"roots {_plus_minus(added, removed)}"
    if before.default_action != after.default_action:
        yield "default_action", f"default {_value(before.default_action)} -> {_value(after.default_action)}"
    if before.peer_bundles != after.peer_bundles:
        peers = sorted({one.peer for one in (*before.peer_bundles, *after.peer_bundles)})
        yield "peers", f"trust bundles of peers changed: {', '.join(peers)}"
    if before.token_providers != after.token_providers:
        names = sorted(
            {one.name for one in (*before.token_providers, *after.token_providers)}
            - {one.name for one in before.token_providers if one in after.token_providers}
        )
        yield "providers", f"token providers changed: {', '.join(names)}"
    if before.stale != after.stale:
        yield "state", "too old: nobody new is let in" if after.stale else "young enough again: callers are let in"
    for field in ("tls_min_version", "tls_max_version"):
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            yield "mesh", f"{field} {old} -> {new}"
    for field, name in (("cipher_suites", "cipher suites"), ("normalization", "request normalization")):
        if getattr(before, field) != getattr(after, field):
            yield "mesh", f"{name} changed"
    if before.sanitize_client_cert_header != after.sanitize_client_cert_header:
        yield "mesh", f"sanitize x-forwarded-client-cert: {_value(after.sanitize_client_cert_header)}"
    if before.access_log != after.access_log:
        yield "proxy_defaults", "format of the access log changed"


def _intentions(before: Service, after: Service) -> Iterator[str]:
    if before.intentions is None or after.intentions is None:
        if before.intentions != after.intentions:
            known = after.intentions
            yield "intentions unknown: every caller is refused" if known is None else f"{len(known)} intentions known"
        return
    if before.intentions == after.intentions:
        return
    old = {_key(one): one for one in before.intentions}
    new = {_key(one): one for one in after.intentions}
    told = [
        text
        for key in dict.fromkeys((*new, *old))
        if (text := _intention(old.get(key), new.get(key), str(after.name))) is not None
    ]
    yield from told[:MOST_INTENTIONS]
    if len(told) > MOST_INTENTIONS:
        yield f"{len(told) - MOST_INTENTIONS} more intentions changed"


def _key(one: Intention) -> tuple[str, ...]:
    return (one.source_peer, one.source_partition, one.source_namespace, one.source, one.destination)


def _intention(old: Intention | None, new: Intention | None, service: str) -> str | None:
    one = new or old
    assert one is not None
    source = f"{one.source_peer}:{one.source}" if one.source_peer else one.source
    about = f"intention {source} => {one.destination or service}"
    if old is None or new is None:
        return f"{about}: {'removed, was ' if new is None else 'new, '}{_does(one)}"
    if _does(old) != _does(new):
        return f"{about}: {_does(old)} -> {_does(new)}"
    if (old.permissions, old.tokens) != (new.permissions, new.tokens):
        return f"{about}: other permissions"
    return f"{about}: precedence {old.precedence} -> {new.precedence}" if old.precedence != new.precedence else None


def _does(one: Intention) -> str:
    return f"{len(one.permissions)} permissions" if one.permissions else one.action.value


def _instances(before: Service, after: Service) -> Iterator[str]:
    names = {one.sni for one in before.server_names}, {one.sni for one in after.server_names}
    if names[0] != names[1]:
        yield f"server names {_plus_minus(len(names[1] - names[0]), len(names[0] - names[1]))}"
    old, new = _endpoints(before), _endpoints(after)
    added, removed = len(new.keys() - old.keys()), len(old.keys() - new.keys())
    if added or removed:
        yield f"instances {_plus_minus(added, removed)}, now {len(new)}"
    both = old.keys() & new.keys()
    worse = sum(old[key].healthy and not new[key].healthy for key in both)
    better = sum(new[key].healthy and not old[key].healthy for key in both)
    if worse:
        yield f"{worse} of {len(new)} instances no longer healthy"
    if better:
        yield f"{better} of {len(new)} instances healthy again"
    if any(old[key].weight != new[key].weight for key in both):
        yield "weights of instances changed"


def _endpoints(service: Service) -> dict[tuple[str, int, str, str], Endpoint]:
    every = (endpoint for name in service.server_names for endpoint in name.endpoints)
    return {(one.address, one.port, one.hostname, one.instance): one for one in every}


def _upstream_tls(before: UpstreamTLS | None, after: UpstreamTLS | None) -> Iterator[str]:
    if before is None or after is None:
        if before is not after:
            yield "TLS to the external service is off" if after is None else "TLS to the external service is on"
        return
    if before.ca_pem != after.ca_pem:
        yield "other authorities for the external service (CAFile)"
    if (before.certificate_chain_pem, before.private_key_pem) != (after.certificate_chain_pem, after.private_key_pem):
        yield "another client certificate for the external service (CertFile, KeyFile)"
    if before.server_name != after.server_name:
        yield f"SNI to the external service {_value(before.server_name)} -> {_value(after.server_name)}"


def _plus_minus(added: int, removed: int) -> str:
    return " ".join(f"{sign}{number}" for sign, number in (("+", added), ("-", removed)) if number)


def _value(value: Any) -> str:
    if value is None or value == "":
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "value", value))


def _when(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))
