"""The way from the gateway to the external service, in sentences: endpoints, TLS, limits. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from plugin.explain.answer import State
from plugin.explain.standing import Standing
from proxy.model import BalancePolicy, Endpoint, ServerName, Service

_MOST_SHOWN = 20
_POLICIES = {
    BalancePolicy.ROUND_ROBIN: "each in turn, by weight (round_robin)",
    BalancePolicy.RANDOM: "one by chance, by weight (random)",
    BalancePolicy.LEAST_REQUEST: "the least busy of {choices} drawn by chance (least_request)",
    BalancePolicy.RING_HASH: "by a hash (ring_hash)",
    BalancePolicy.MAGLEV: "by a hash (maglev)",
}


def endpoints(standing: Standing, service: Service, name: ServerName) -> Iterator[str]:
    found = name.endpoints
    healthy = [one for one in found if one.healthy]
    policy = _POLICIES[service.balance.policy].format(choices=max(2, service.balance.choice_count))
    what = "requests" if service.http is not None else "connections"
    yield f"{len(healthy)} of {len(found)} endpoints are healthy; {what} go to {policy}."
    if service.balance.policy in (BalancePolicy.RING_HASH, BalancePolicy.MAGLEV):
        hashed = [one.source.value + (f" {one.name}" if one.name else "") for one in service.balance.hash_policies]
        yield f"Hashed: {', '.join(hashed)}." if hashed else "Nothing is hashed, so the choice is by chance."
    if not healthy:
        yield "None is healthy, so all of them are used: Consul may be wrong, and refusing everybody helps nobody."
    for one in found[:_MOST_SHOWN]:
        yield _endpoint(one, some_are_healthy=bool(healthy))
    if len(found) > _MOST_SHOWN:
        yield f"and {len(found) - _MOST_SHOWN} more."
    for left_out in standing.left_out:
        yield f"Left out for a while: {left_out}; dialling it failed again and again."
    yield f"An attempt may take {service.connect_timeout_s:g} s, and three endpoints are tried at most."


def upstream_tls(service: Service) -> tuple[State, str]:
    tls = service.upstream_tls
    if tls is None:
        return State.NOTE, "None: bytes go to the external service as they are, because the link has no CAFile."
    if tls.server_name:
        names = f"{tls.server_name} is sent as the server name, and has to be a name of its certificate"
    else:
        names = "no server name is sent, and the names of its certificate are not looked at (the link has no SNI)"
    client = (
        "the gateway shows its client certificate" if tls.certificate_chain_pem else "no client certificate is shown"
    )
    return (
        State.GOOD if tls.server_name else State.NOTE,
        f"TLS, verified with the CAFile of the link: {names}; {client}.",
    )


def limits(standing: Standing, service: Service) -> tuple[State, str]:
    most, is_open = standing.most_connections, standing.open_connections
    source = "MaxInboundConnections" if service.max_connections is not None else "--max-service-connections"
    if not most:
        return State.GOOD, f"{is_open} connections are open; there is no limit."
    text = f"{is_open} of at most {most} connections are open ({source}; each worker has its share)."
    if is_open >= most:
        return State.NOTE, f"{text} A new one is refused until one ends (over_limit)."
    return State.GOOD, text


def _endpoint(one: Endpoint, *, some_are_healthy: bool) -> str:
    weight = f", weight {one.weight}" if one.weight != 1 else ""
    health = "healthy" if one.healthy else "not healthy, not used" if some_are_healthy else "not healthy"
    instance = f" ({one.instance})" if one.instance else ""
    return f"{one}{instance}: {health}{weight}"
