"""Requests: which intention, which permission, and what is said about it; against a reference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.message import RequestHead, Version
from proxy.identity import Identity
from proxy.intentions import Decision, Permit, Policy, Refusal, describe
from proxy.model import CloseReason, Leaf, Mesh, Service, ServiceName
from proxy.rules import Action, HeaderMatch, Intention, Match, Permission

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
LEAF = Leaf("", "", "spiffe://", "01", 0.0, 0.0)
WEB = Identity(DOMAIN, "web", datacenter="dc1")
ALLOW, DENY = Action.ALLOW, Action.DENY
NOW_S = 1_700_000_000.0


def policy(*intentions: Intention, default: Action | None = DENY, known: bool = True) -> Policy:
    service = Service(ServiceName("api"), LEAF, (), intentions=intentions if known else None)
    return Policy.compile(service, Mesh(DOMAIN, "dc1", (), default_action=default))


def layered(*permissions: Permission, source: str = "web", precedence: int = 9) -> Intention:
    return Intention(source, DENY, precedence, destination="api", layer7=True, permissions=permissions)


def ask(compiled: Policy, target: bytes = b"/", method: bytes = b"GET", identity: Identity = WEB) -> Decision:
    head = RequestHead(method, target, b"api", Version.HTTP_1_1)
    return compiled.authorize_request(identity, "", head, NOW_S)


def refused(decision: Decision) -> Refusal:
    assert isinstance(decision, Refusal)
    return decision


READ = Permission(ALLOW, Match.PREFIX, "/", ("GET", "HEAD"))
NO_ADMIN = Permission(DENY, Match.PREFIX, "/admin")


def test_the_first_permission_that_matches_decides() -> None:
    compiled = policy(layered(NO_ADMIN, READ))
    allowed = ask(compiled, b"/items?x=/admin")
    assert isinstance(allowed, Permit)
    assert (allowed.permission, allowed.intention) == (2, layered(NO_ADMIN, READ))
    assert describe(allowed) == "web => api (precedence 9), permission 2 (GET,HEAD /*)"
    denied = refused(ask(compiled, b"/admin/x"))
    assert (denied.reason, denied.permission) == (CloseReason.DENIED, 1)
    assert describe(denied) == "web => api (precedence 9), permission 1 (/admin*)"
    assert denied.sentence == (
        "web may not ask this of api: denied by web => api (precedence 9), permission 1 (/admin*)"
    )
    assert isinstance(ask(policy(layered(READ, NO_ADMIN)), b"/admin"), Permit)


@pytest.mark.parametrize("default", [ALLOW, DENY, None])
def test_when_no_permission_matches_the_default_decides_and_no_other_intention(default: Action | None) -> None:
    for others in (ALLOW, DENY):
        compiled = policy(layered(READ), Intention("*", others, 8, destination="api"), default=default)
        decision = ask(compiled, method=b"POST")
        if default is ALLOW:
            assert isinstance(decision, Permit)
            assert describe(decision) == "default allow"
        else:
            assert refused(decision).reason is (CloseReason.DENIED if default else CloseReason.POLICY_UNKNOWN)
            assert "no permission of web => api (precedence 9) matches" in refused(decision).sentence


def test_without_permissions_a_request_is_decided_as_a_connection_is() -> None:
    for compiled in (
        policy(Intention("web", ALLOW, 9)),
        policy(Intention("web", DENY, 9)),
        policy(default=ALLOW),
        policy(default=None),
        policy(known=False, default=ALLOW),
    ):
        assert ask(compiled) is compiled.authorize(WEB)
    stranger = Identity("other.consul", "web")
    assert refused(ask(policy(layered(READ)), identity=stranger)).reason is CloseReason.BAD_IDENTITY


def test_a_connection_is_denied_where_requests_have_permissions() -> None:
    decision = policy(layered(READ), default=ALLOW).authorize(WEB)
    assert "permissions or JWT" in refused(decision).sentence


def test_an_intention_whose_rules_did_not_arrive_denies() -> None:
    compiled = policy(replace_permissions(layered()), default=ALLOW)
    assert "not known" in refused(ask(compiled)).sentence


def replace_permissions(intention: Intention) -> Intention:
    return Intention(intention.source, ALLOW, 9, destination="api", layer7=True)


def test_a_request_that_comes_to_an_unusable_permission_is_denied_and_nothing_else_is() -> None:
    broken = Permission(ALLOW, Match.REGEX, "/(")
    compiled = policy(layered(NO_ADMIN, READ, broken), Intention("batch", ALLOW, 9), default=ALLOW)
    assert isinstance(ask(compiled, b"/items"), Permit)
    decision = refused(ask(compiled, b"/items", b"POST"))
    assert decision.permission == 3
    assert "cannot be evaluated: the PathRegex '/(' is not an expression of RE2" in decision.sentence
    assert isinstance(ask(compiled, identity=Identity(DOMAIN, "batch")), Permit)


def test_decisions_are_made_once_where_they_can_be() -> None:
    compiled = policy(layered(NO_ADMIN, READ))
    assert ask(compiled, b"/a") is ask(compiled, b"/b")


_permissions = st.builds(
    Permission,
    action=st.sampled_from(Action),
    path=st.sampled_from([Match.ANY, Match.EXACT, Match.PREFIX, Match.REGEX]),
    path_value=st.sampled_from(["/", "/a", "/a/b", "/b", "/("]),
    methods=st.sampled_from([(), ("GET",), ("PUT", "POST")]),
    headers=st.sampled_from([(), (HeaderMatch("x", Match.EXACT, "1"),), (HeaderMatch("x", Match.PRESENT),)]),
)


def _reference(
    permissions: list[Permission], default: Action | None, method: str, path: str, header: str | None
) -> tuple[str, int]:
    for number, permission in enumerate(permissions, 1):
        if permission.path is Match.REGEX and permission.path_value == "/(":
            return "denied", number
        fits = {
            Match.ANY: True,
            Match.EXACT: path == permission.path_value,
            Match.PREFIX: path.startswith(permission.path_value),
            Match.REGEX: path == permission.path_value,
        }[permission.path]
        fits = fits and (not permission.methods or method in permission.methods)
        for wanted in permission.headers:
            fits = fits and header is not None and wanted.match in (Match.PRESENT, Match.EXACT)
            fits = fits and (wanted.match is Match.PRESENT or header == wanted.value)
        if fits:
            return ("allowed" if permission.action is ALLOW else "denied"), number
    return ("policy_unknown" if default is None else "allowed" if default is ALLOW else "denied"), 0


@given(
    permissions=st.lists(_permissions, min_size=1, max_size=5),
    default=st.sampled_from([ALLOW, DENY, None]),
    method=st.sampled_from(["GET", "PUT", "DELETE"]),
    path=st.sampled_from(["/", "/a", "/a/b", "/ab", "/b", "/c"]),
    header=st.sampled_from([None, "", "1", "2"]),
)
def test_requests_are_decided_as_the_reference_does(
    permissions: list[Permission], default: Action | None, method: str, path: str, header: str | None
) -> None:
    compiled = policy(layered(*permissions), Intention("*", ALLOW, 8, destination="api"), default=default)
    head = RequestHead(method.encode(), path.encode(), b"api", Version.HTTP_1_1)
    if header is not None:
        head = replace(head, headers=[(b"x", header.encode())])
    decision = compiled.authorize_request(WEB, "", head, NOW_S)
    outcome = "allowed" if isinstance(decision, Permit) else decision.reason.value
    assert (outcome, decision.permission) == _reference(permissions, default, method, path, header)
