"""What two states of a service mean for those who call it: pure. What decides here decides in the workers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from plugin.assemble.peers import importers_of
from plugin.explain.caller import Caller
from plugin.explain.request import as_decided
from plugin.simulate.answer import Access, AccessChange, RequestChange, ServiceChange
from proxy.http.errors import BadRequest
from proxy.http.message import RequestHead, Version
from proxy.http.policy.normalization import Elsewhere, normalized
from proxy.http.policy.permissions import described
from proxy.model import Mesh, Service, ServiceName
from proxy.policy.identity import Identity
from proxy.policy.intention_index import ANY, intention_text
from proxy.policy.intentions import Permit, Policy, Refusal, describe
from proxy.rules import Intention

_RANK = {"none": 0, "denied": 0, "by_request": 1, "allowed": 2}


@dataclass(frozen=True, slots=True)
class Side:
    """One service before or after."""

    service: Service | None
    mesh: Mesh | None
    linked: bool = True
    policy: Policy | None = None

    @classmethod
    def of(cls, service: Service | None, mesh: Mesh | None, *, linked: bool = True) -> Side:
        ready = service is not None and mesh is not None
        return cls(service, mesh, linked, Policy.compile(service, mesh) if ready and service and mesh else None)

    @property
    def state(self) -> str:
        return "served" if self.service is not None else "not served" if self.linked else "not linked"


def access(side: Side, who: Caller) -> Access:
    if side.policy is None or side.service is None:
        return Access("none", side.state)
    if not_exported := _not_exported(side.service, who):
        return Access("none", not_exported)
    if side.policy.stranger(who.identity, who.peer):
        return Access("denied", "bad_identity")
    matching = side.policy.matching(who.identity, who.peer)
    if side.service.http is not None and matching and matching[0].layer7:
        return Access("by_request", _rules(matching[0]))
    decision = side.policy.authorize(who.identity, who.peer)
    return Access("allowed" if isinstance(decision, Permit) else "denied", describe(decision))


def _not_exported(service: Service, who: Caller) -> str:
    return f"not exported to peer {who.peer}" if who.peer and who.peer not in importers_of(service) else ""


def access_change(name: ServiceName, who: Caller, before: Side, after: Side) -> AccessChange | None:
    """``None`` when nothing changes for the caller."""
    then, now = access(before, who), access(after, who)
    ranks = _RANK[then.kind], _RANK[now.kind]
    if ranks == (0, 0) or (then.kind == now.kind and (then.kind != "by_request" or _same_rules(before, after, who))):
        return None
    effect = "gains" if ranks[0] < ranks[1] else "loses" if ranks[0] > ranks[1] else "changes"
    return AccessChange(service=str(name), source=who.text, effect=effect, before=then, after=now)


def _same_rules(before: Side, after: Side, who: Caller) -> bool:
    def rules(side: Side) -> tuple[object, ...]:
        assert side.policy is not None
        assert side.mesh is not None
        (first, *_) = side.policy.matching(who.identity, who.peer)
        providers = {one.provider for asked in (first.tokens, *(p.tokens for p in first.permissions)) for one in asked}
        known = tuple(one for one in side.mesh.token_providers if one.name in providers)
        return first.permissions, first.tokens, first.action, known, side.mesh.default_action

    return rules(before) == rules(after)


def _rules(intention: Intention) -> str:
    shown = [f"{one.action.value}: {described(one)}" for one in intention.permissions[:5]]
    more = f", and {len(intention.permissions) - 5} more" if len(intention.permissions) > 5 else ""
    asks = f", token of {' or '.join(one.provider for one in intention.tokens)}" if intention.tokens else ""
    return f"{intention_text(intention)}{': ' if shown else ''}{'; '.join(shown)}{more}{asks}"


def callers(sources: Iterable[Caller], service: Service | None, home: Identity) -> tuple[Caller, ...]:
    """``sources``, those that the intentions of ``service`` name, and everybody else (``*``)."""
    named = [
        Caller(Identity(home.trust_domain, one.source, one.source_namespace, one.source_partition, home.datacenter))
        for one in (service.intentions if service is not None else None) or ()
        if not one.source_peer and ANY not in (one.source, one.source_namespace, one.source_partition)
    ]
    anybody = Caller(Identity(home.trust_domain, ANY, "default", "default", home.datacenter))
    return tuple({(one.peer, one.name): one for one in (*sources, *named, anybody)}.values())


def request_changes(
    name: ServiceName, requests: Iterable[tuple[Caller, str, str, str]], before: Side, after: Side, now_s: float
) -> Iterator[RequestChange]:
    """``requests`` are callers, methods, paths and authorities. Headers are not remembered, so what needs one, or a
    token, counts as without."""
    for (who, method, path, authority), number in Counter(requests).items():
        then, now = (_decided(side, who, method, path, authority, now_s) for side in (before, after))
        if then is None or now is None or then[0] == now[0]:
            continue
        yield RequestChange(
            service=str(name),
            source=who.text,
            request=f"{method} {path}",
            requests=number,
            before=then[1],
            after=now[1],
            effect="gains" if now[0] else "loses",
        )


def _decided(side: Side, who: Caller, method: str, path: str, authority: str, now_s: float) -> tuple[bool, str] | None:
    """Whether it is let in, and by what; ``None``: its connections would not be of layer 7."""
    if side.policy is None or side.service is None or side.mesh is None or side.service.http is None:
        return None
    try:
        target = normalized(path.encode("latin-1", "replace"), side.mesh.normalization)
    except BadRequest as error:
        return False, f"refused as {error.status}: {error}"
    except Elsewhere:
        return False, "sent to the path in its one form (307)"
    if not_exported := _not_exported(side.service, who):
        return False, not_exported
    head = RequestHead(method.encode(), target, authority.encode("latin-1", "replace"), Version.HTTP_1_1)
    head = as_decided(side.policy, side.service, side.mesh, who, head)
    decision = side.policy.authorize_request(who.identity, who.peer, head, now_s)
    return isinstance(decision, Permit), describe(decision)


def cut(who: Caller, before: Side, after: Side, request: tuple[str, str, str] | None, now_s: float) -> str:
    """Why a live connection, or a request on one, would be ended; empty when it would go on.

    ``request`` is method, path and authority; ``None``: the connection is carried whole.
    """
    if not after.linked:
        return "the service is no longer linked"
    if after.policy is None or after.service is None or before.policy is None:
        return ""
    if request is not None:
        decided = _decided(after, who, *request, now_s)
        return "" if decided is None or decided[0] else f"the request is denied: {decided[1]}"
    if not_exported := _not_exported(after.service, who):
        return not_exported
    decision = after.policy.authorize(who.identity, who.peer)
    return decision.sentence if isinstance(decision, Refusal) else ""


def service_change(name: ServiceName, before: Side, after: Side, problems: tuple[str, ...]) -> ServiceChange | None:
    """``None`` when nothing changes but policy, and nothing is wrong."""
    differences = tuple(_differences(before.service, after.service))
    if before.state == after.state and not differences and not problems:
        return None
    return ServiceChange(
        name=str(name), before=before.state, after=after.state, differences=differences, problems=problems
    )


def _differences(before: Service | None, after: Service | None) -> Iterator[str]:
    if before is None or after is None:
        return
    for what, old, new in (
        ("protocol", before.protocol, after.protocol),
        ("server names", [one.sni for one in before.server_names], [one.sni for one in after.server_names]),
        ("endpoints", _endpoints(before), _endpoints(after)),
        ("upstream TLS", _tls(before), _tls(after)),
        ("balancing", before.balance.policy.value, after.balance.policy.value),
        ("connect timeout", before.connect_timeout_s, after.connect_timeout_s),
        ("idle timeout", before.idle_timeout_s, after.idle_timeout_s),
        ("maximum lifetime", before.max_lifetime_s, after.max_lifetime_s),
        ("maximum connections", before.max_connections, after.max_connections),
        ("settings for HTTP", before.http, after.http),
    ):
        if old != new:
            yield f"{what}: {_shown(old)} -> {_shown(new)}"


def _endpoints(service: Service) -> list[str]:
    return [str(one) for one in dict.fromkeys(each for name in service.server_names for each in name.endpoints)]


def _tls(service: Service) -> str:
    tls = service.upstream_tls
    if tls is None:
        return "none"
    client = " with a client certificate" if tls.certificate_chain_pem else ""
    return f"to {tls.server_name or 'any name'}{client}"


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value[:5])) + (f" and {len(value) - 5} more" if len(value) > 5 else "") or "none"
    return "none" if value is None else str(value)
