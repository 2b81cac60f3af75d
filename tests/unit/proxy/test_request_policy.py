"""Requests: which intention, which permission, and what is said about it; against a reference."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.message import RequestHead, Version
from proxy.model import CloseReason, Leaf, Mesh, Service, ServiceName
from proxy.policy.identity import Identity
from proxy.policy.intentions import Decision, Permit, Policy, Refusal, describe
from proxy.rules import (
    Action,
    ClaimMatch,
    HeaderMatch,
    Intention,
    Match,
    Permission,
    TokenLocation,
    TokenProvider,
    TokenRequirement,
)
from tests.support.tokens import CLAIMS, NOW_S, jwk, provider, rsa_key, signed

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
LEAF = Leaf("", "", "spiffe://", "01", 0.0, 0.0)
WEB = Identity(DOMAIN, "web", datacenter="dc1")
ALLOW, DENY = Action.ALLOW, Action.DENY


def policy(
    *intentions: Intention,
    default: Action | None = DENY,
    known: bool = True,
    providers: tuple[TokenProvider, ...] | None = None,
) -> Policy:
    service = Service(ServiceName("api"), LEAF, (), intentions=intentions if known else None)
    known_providers = (provider(),) if providers is None else providers
    return Policy.compile(service, Mesh(DOMAIN, "dc1", (), default_action=default, token_providers=known_providers))


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
        "web may not connect to api: denied by web => api (precedence 9), permission 1 (/admin*)"
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
    compiled = policy(asking(), default=ALLOW)
    assert "not known" in refused(ask(compiled)).sentence


def test_a_request_that_comes_to_an_unusable_permission_is_denied_and_nothing_else_is() -> None:
    broken = Permission(ALLOW, Match.REGEX, "/(")
    compiled = policy(layered(NO_ADMIN, READ, broken), Intention("batch", ALLOW, 9), default=ALLOW)
    assert isinstance(ask(compiled, b"/items"), Permit)
    decision = refused(ask(compiled, b"/items", b"POST"))
    assert decision.permission == 3
    assert "cannot be evaluated: the PathRegex '/(' is not an expression of RE2" in decision.sentence
    assert isinstance(ask(compiled, identity=Identity(DOMAIN, "batch")), Permit)


# --- tokens ------------------------------------------------------------------------------------------------------

OKTA = (TokenRequirement("okta"),)
ROOT = (TokenRequirement("okta", (ClaimMatch(("sub",), "root"),)),)
ADMIN = Permission(ALLOW, Match.PREFIX, "/admin", tokens=ROOT)


def with_token(compiled: Policy, target: bytes = b"/", token: bytes | None = None, now_s: float = NOW_S) -> Decision:
    head = RequestHead(b"GET", target, b"api", Version.HTTP_1_1)
    if token is not None:
        head.headers.append((b"authorization", b"Bearer " + token))
    return compiled.authorize_request(WEB, "", head, now_s)


def asking(*tokens: TokenRequirement, action: Action = ALLOW) -> Intention:
    return Intention("web", action, 9, destination="api", layer7=True, tokens=tokens)


def test_a_permission_counts_with_its_token_alone() -> None:
    compiled = policy(layered(ADMIN, NO_ADMIN, READ))
    root = signed(CLAIMS | {"sub": "root"})
    allowed = with_token(compiled, b"/admin", root)
    assert isinstance(allowed, Permit)
    assert allowed.permission == 1
    assert allowed.tokens is not None
    assert allowed.tokens.removed == {b"authorization"}
    assert allowed.tokens.valid_until_s == CLAIMS["exp"] + 30
    assert describe(allowed) == "web => api (precedence 9), permission 1 (/admin*, token of okta)"
    for token in (None, signed(), b"x"):
        denied = refused(with_token(compiled, b"/admin", token))
        assert denied.permission == 2
        assert "permission 1 (/admin*, token of okta) would match with another token" in denied.sentence
        if token == signed():
            assert "the claim sub" in denied.sentence
            assert denied.token == "", "who has a good token is not asked for one"
        else:
            assert denied.token
            assert denied.token in denied.sentence
    plain = with_token(compiled, b"/", root)
    assert isinstance(plain, Permit)
    assert plain.tokens is None, "its token is not looked at, and stays"


def test_a_denial_by_token_concerns_those_who_show_it() -> None:
    compiled = policy(layered(Permission(DENY, tokens=ROOT), READ))
    assert refused(with_token(compiled, token=signed(CLAIMS | {"sub": "root"}))).permission == 1
    assert isinstance(with_token(compiled, token=signed()), Permit)
    assert isinstance(with_token(compiled), Permit)


@pytest.mark.parametrize("default", [ALLOW, DENY])
def test_the_tokens_of_an_intention_are_asked_for_whatever_its_permissions_say(default: Action) -> None:
    whole = asking(*OKTA)
    for intention in (whole, msgspec.structs.replace(layered(NO_ADMIN, READ), tokens=OKTA)):
        compiled = policy(intention, default=default)
        assert isinstance(with_token(compiled, token=signed()), Permit)
        for token, said in ((None, "is missing"), (b"x", "is not a signed")):
            denied = refused(with_token(compiled, token=token))
            assert said in denied.token
            assert denied.token in denied.sentence
            assert describe(denied) == "web => api (precedence 9), JWT"
        expired = refused(with_token(compiled, token=signed(), now_s=NOW_S + 10_000))
        assert "has expired" in expired.token
    nobody = policy(msgspec.structs.replace(layered(NO_ADMIN, READ), tokens=OKTA), default=ALLOW)
    assert refused(with_token(nobody, b"/admin", signed())).permission == 1
    post = RequestHead(b"POST", b"/", b"api", Version.HTTP_1_1)
    assert refused(nobody.authorize_request(WEB, "", post, NOW_S)).token, "the default does not make up for a token"


def test_an_intention_that_denies_needs_no_token_to_do_so() -> None:
    compiled = policy(asking(*OKTA, action=DENY), default=ALLOW)
    for token in (None, b"x", signed()):
        assert isinstance(with_token(compiled, token=token), Refusal)


def test_tokens_of_the_intention_and_of_the_permission_go_together() -> None:
    both = policy(
        msgspec.structs.replace(layered(ADMIN), tokens=OKTA),
        default=DENY,
        providers=(provider(forward_header="x-claims"),),
    )
    allowed = with_token(both, b"/admin", signed(CLAIMS | {"sub": "root"}))
    assert isinstance(allowed, Permit)
    assert allowed.tokens is not None
    assert len(allowed.tokens.added) == 1
    assert isinstance(with_token(both, b"/admin", signed()), Refusal)


def test_tokens_of_two_providers_in_one_request() -> None:
    okta = provider(forward_header="x-okta")
    auth0 = provider(
        jwk(rsa_key("two")),
        name="auth0",
        issuer="https://other.example/",
        forward_header="x-auth0",
        locations=(TokenLocation(header="x-token"),),
    )
    step = Permission(ALLOW, tokens=(TokenRequirement("auth0"),))
    both = policy(msgspec.structs.replace(layered(step), tokens=OKTA), providers=(okta, auth0))
    first = (b"authorization", b"Bearer " + signed())
    sooner = CLAIMS | {"iss": "https://other.example/", "exp": CLAIMS["exp"] - 5}
    second = (b"x-token", signed(sooner, rsa_key("two")))
    allowed = both.authorize_request(
        WEB, "", RequestHead(b"GET", b"/", b"api", Version.HTTP_1_1, [first, second]), NOW_S
    )
    assert isinstance(allowed, Permit)
    assert allowed.tokens is not None
    assert allowed.tokens.removed == {b"authorization", b"x-token"}
    assert {name for name, _ in allowed.tokens.added} == {b"x-okta", b"x-auth0"}
    assert allowed.tokens.valid_until_s == sooner["exp"] + 30
    for alone in (first, second):
        head = RequestHead(b"GET", b"/", b"api", Version.HTTP_1_1, [alone])
        assert isinstance(both.authorize_request(WEB, "", head, NOW_S), Refusal)


def test_where_nobody_knows_the_keys() -> None:
    """An allowance does not count, a denial does: neither lets anybody in."""
    gone = provider(keys_json="", problem="no answer from the issuer")
    allows = policy(layered(ADMIN), providers=(gone,))
    decision = refused(with_token(allows, b"/admin", signed()))
    assert "no answer from the issuer" in decision.sentence
    assert decision.token == "", "another token would not help"
    denies = policy(layered(Permission(DENY, tokens=ROOT), READ), default=ALLOW, providers=(gone,))
    assert "no answer from the issuer" in refused(with_token(denies, token=signed())).sentence
    assert isinstance(with_token(denies), Permit), "who shows no token shows none of those"
    whole = policy(asking(*OKTA), default=ALLOW, providers=(gone,))
    assert "no answer from the issuer" in refused(with_token(whole, token=signed())).sentence
    for unknown in (layered(ADMIN), asking(*OKTA), layered(Permission(DENY, tokens=ROOT), READ)):
        compiled = policy(unknown, providers=())
        assert "is not known here" in refused(with_token(compiled, b"/admin", signed())).sentence


def test_names_that_only_the_gateway_writes() -> None:
    providers = (
        provider(forward_header="X-Okta"), provider(name="auth0", forward_header="x-auth0"), provider(name="idle"),
    )  # fmt: skip
    assert policy(asking(*OKTA), providers=providers).reserved_headers == {b"x-okta"}
    nested = layered(Permission(ALLOW, tokens=(TokenRequirement("auth0"), TokenRequirement("idle"))))
    assert policy(nested, asking(*OKTA), providers=providers).reserved_headers == {b"x-okta", b"x-auth0"}
    assert policy(layered(READ), providers=providers).reserved_headers == frozenset()


def test_names_that_permissions_look_at() -> None:
    role, tenant = HeaderMatch("X-Role", Match.EXACT, "admin"), HeaderMatch("x-tenant", Match.PRESENT)
    asked = policy(layered(Permission(ALLOW, headers=(role,)), Permission(DENY, headers=(role, tenant))), layered(READ))
    assert asked.decisive_headers == {b"x-role", b"x-tenant"}
    assert policy(layered(READ), known=False).decisive_headers == frozenset()


def test_a_decision_is_explained_step_by_step() -> None:
    compiled = policy(layered(ADMIN, NO_ADMIN, READ, Permission(ALLOW, Match.REGEX, "/(")))

    def lines(target: bytes, method: bytes = b"GET") -> list[str]:
        return list(compiled.explain_request(WEB, "", RequestHead(method, target, b"api", Version.HTTP_1_1), NOW_S))

    first = "permission 1 (/admin*, token of okta)"
    missing = "a token of 'okta' is missing (header authorization)"
    assert lines(b"/") == [
        f"{first}: does not match",
        "permission 2 (/admin*): does not match",
        "permission 3 (GET,HEAD /*): matches",
        "allowed by web => api (precedence 9), permission 3 (GET,HEAD /*)",
    ]
    assert lines(b"/admin") == [
        f"{first}: matches but for the token: {missing}",
        "permission 2 (/admin*): matches",
        "web may not connect to api: denied by web => api (precedence 9), permission 2 (/admin*) "
        f"({first} would match with another token: {missing})",
    ]
    *_, unusable, last = lines(b"/", b"POST")
    assert unusable.startswith("permission 4 (~/(): cannot be evaluated, which denies: the PathRegex '/('")
    assert "cannot be evaluated" in last
    stranger = Identity(DOMAIN, "batch")
    head = RequestHead(b"GET", b"/", b"api", Version.HTTP_1_1)
    assert list(compiled.explain_request(stranger, "", head, NOW_S)) == [
        "batch may not connect to api: denied by the default, as no intention matches"
    ]
    assert list(policy(default=ALLOW).explain_request(WEB, "", head, NOW_S)) == ["allowed by default allow"]


def test_decisions_are_made_once_where_they_can_be() -> None:
    compiled = policy(layered(NO_ADMIN, READ))
    assert ask(compiled, b"/a") is ask(compiled, b"/b")


def test_what_is_remembered_is_bounded_by_decisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.policy.intentions._MOST_REMEMBERED", 10)
    compiled = policy(layered(NO_ADMIN, READ, source="*", precedence=8), Intention("plain", ALLOW, 9))
    for number in range(50):
        caller = Identity(DOMAIN, "plain" if number % 3 == 0 else f"web-{number}", datacenter=f"dc{number}")
        assert isinstance(ask(compiled, identity=caller), Permit)
        assert isinstance(ask(compiled, b"/admin", identity=caller), Permit) is (number % 3 == 0)
        remembered = compiled._rules.values()
        assert sum(1 + (len(one.request.steps) if one.request else 0) for one in remembered) <= 10
        assert compiled._remembered <= 10


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
