"""Permissions see the headers that the gateway writes as it writes them."""

from __future__ import annotations

import pytest

from proxy.http.forward import request_for
from proxy.http.message import Headers, RequestHead, Version
from proxy.http.policy.told import ADDED, as_told
from proxy.model import Leaf, Mesh, Service, ServiceName
from proxy.policy.identity import Identity
from proxy.policy.intentions import Permit, Policy
from proxy.rules import Action, HeaderMatch, Intention, Match, Permission

OWN = b"By=spiffe://td/svc/db;Hash=00;URI=spiffe://td/svc/web"
DOMAIN = "11111111-2222-3333-4444-555555555555.consul"


def head(*headers: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(b"GET", b"/", b"db", Version.HTTP_1_1, list(headers))


@pytest.mark.parametrize("element", [OWN, b""])
@pytest.mark.parametrize(
    "sent",
    [
        [],
        [(b"x-request-id", b"mine"), (b"x-forwarded-proto", b"http"), (b"a", b"b")],
        [(b"x-forwarded-client-cert", b"one"), (b"a", b"b"), (b"x-forwarded-client-cert", b"two")],
    ],
)
def test_it_is_what_the_external_service_gets(sent: Headers, element: bytes) -> None:
    asked = head(*sent)
    told = as_told(asked, client_certificate=element, request_id=b"made")
    forwarded = request_for(
        asked, authority=b"db", client_certificate=element, request_id=b"made", scheme=b"http", tokens=None
    )
    for name in ADDED:
        assert told.values(name) == forwarded.values(name)
    assert told.values(b"a") == asked.values(b"a")


def policy(header: HeaderMatch, action: Action = Action.ALLOW) -> Policy:
    permissions = (Permission(action, headers=(header,)), Permission(Action.ALLOW))[
        : 1 if action is Action.ALLOW else 2
    ]
    intention = Intention("web", Action.DENY, 9, destination="db", layer7=True, permissions=permissions)
    service = Service(ServiceName("db"), Leaf("", "", "spiffe://", "01", 0.0, 0.0), (), intentions=(intention,))
    return Policy.compile(service, Mesh(DOMAIN, "dc1", (), default_action=Action.DENY))


def lets(compiled: Policy, *headers: tuple[bytes, bytes]) -> bool:
    decision = compiled.authorize_request(Identity(DOMAIN, "web", datacenter="dc1"), "", head(*headers), 0.0)
    return isinstance(decision, Permit)


@pytest.mark.parametrize("name", ["X-Forwarded-Client-Cert", "x-request-id", "x-forwarded-proto"])
def test_a_policy_says_that_it_looks_at_them(name: str) -> None:
    assert policy(HeaderMatch(name, Match.PRESENT)).sees_what_is_added
    assert not policy(HeaderMatch("x-other", Match.PRESENT)).sees_what_is_added


def test_what_is_not_passed_on_helps_nobody() -> None:
    """Whatever a caller says with it, or leaves out."""
    retry, present, invert = (b"x-envoy-retry-on", b"5xx"), Match.PRESENT, True
    for match in (HeaderMatch("x-envoy-retry-on", present), HeaderMatch("x-envoy-retry-on", Match.EXACT, "5xx")):
        assert not lets(policy(match), retry)
        assert not lets(policy(match))
        assert not lets(policy(match, Action.DENY), retry)
        assert lets(policy(match, Action.DENY))
    absent = HeaderMatch("x-envoy-retry-on", present, invert=invert)
    assert not lets(policy(absent), retry)
    assert lets(policy(absent))
    assert not lets(policy(absent, Action.DENY), retry)
    assert not lets(policy(absent, Action.DENY))
