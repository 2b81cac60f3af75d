"""Tokens: what is good, what looks good, and what an attacker would like to be good."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.message import RequestHead, Version
from proxy.http.policy.tokens import Accepted, Rejected, Tokens, Verifier, forward_headers, verifier_of
from proxy.rules import ClaimMatch, TokenLocation, TokenProvider, TokenRequirement
from tests.support.tokens import (
    CLAIMS,
    NOW_S,
    ec_key,
    ed_key,
    jwk,
    key_set,
    provider,
    rsa_key,
    segment,
    signed,
    signed_bytes,
    signed_segments,
)

HEADER = b'{"alg":"RS256","typ":"JWT"}'
PAYLOAD = json.dumps(CLAIMS).encode()


def head(*headers: tuple[bytes, bytes], target: bytes = b"/") -> RequestHead:
    return RequestHead(b"GET", target, b"api", Version.HTTP_1_1, list(headers))


def bearer(token: bytes) -> RequestHead:
    return head((b"authorization", b"Bearer " + token))


def check(
    token: bytes | RequestHead, of: TokenProvider | None = None, *claims: ClaimMatch, now_s: float = NOW_S
) -> Accepted | Rejected:
    okta = of or provider()
    asked = token if isinstance(token, RequestHead) else bearer(token)
    return Tokens([TokenRequirement(okta.name, claims)], {okta.name: okta}).check(asked, now_s)


def accepted(*given: Any, **options: Any) -> Accepted:
    verdict = check(*given, **options)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def why_not(*given: Any, **options: Any) -> str:
    verdict = check(*given, **options)
    assert isinstance(verdict, Rejected), verdict
    assert not verdict.unknown
    return verdict.why


# --- what is good ------------------------------------------------------------------------------------------------


def test_a_good_token_is_accepted_and_taken_off() -> None:
    verdict = accepted(signed(kid="k1"))
    assert verdict.valid_until_s == CLAIMS["exp"] + 30
    assert verdict.removed == {b"authorization"}
    assert verdict.added == []


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_an_rsa_key_takes_all_signatures_of_rsa(algorithm: str) -> None:
    accepted(signed(algorithm=algorithm))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(ec_key(), "ES256"), (ed_key(), "EdDSA")],
)
def test_other_kinds_of_keys(key: Any, algorithm: str) -> None:
    accepted(signed(key=key, algorithm=algorithm), provider(jwk(key)))


def test_a_shared_secret_where_the_provider_says_so() -> None:
    secret = b"0123456789abcdef0123456789abcdef"
    shared = {"kty": "oct", "k": segment(secret).decode()}
    accepted(signed(key=secret, algorithm="HS256"), provider(shared))
    longer = shared | {"k": segment(secret * 2).decode()}
    accepted(signed(key=secret * 2, algorithm="HS384"), provider(longer))
    for only in ("HS256", "HS512"):
        restricted = provider(jwk(rsa_key()), longer | {"alg": only})
        assert "not of this provider" in why_not(signed(key=secret * 2, algorithm="HS384"), restricted)


def test_a_key_is_chosen_by_kid_and_those_without_one_are_tried() -> None:
    two = provider(jwk(rsa_key("two"), kid="k2"), jwk(rsa_key(), kid="k1"))
    accepted(signed(kid="k1"), two)
    accepted(signed(), two)
    accepted(signed(kid="anything"), provider(jwk(rsa_key("two")), jwk(rsa_key())))
    assert "not of this provider" in why_not(signed(kid="k2"), two)
    assert "not of this provider" in why_not(signed(kid="k3"), two)


def test_a_kid_that_no_key_has_is_told_apart() -> None:
    two = provider(jwk(rsa_key("two"), kid="k2"), jwk(rsa_key(), kid="k1"))

    def verdict(token: bytes, of: TokenProvider) -> Rejected:
        found = Tokens((TokenRequirement("okta"),), {"okta": of}).check(bearer(token), NOW_S)
        assert isinstance(found, Rejected)
        return found

    assert verdict(signed(kid="k3"), two).unknown_keys == ("okta",)
    assert verdict(signed(kid="k3"), provider(jwk(rsa_key("two")))).unknown_keys == ("okta",)
    other = dict(CLAIMS) | {"iss": "https://other.example/"}
    for known in (signed(kid="k2"), signed(key=rsa_key("three")), signed(other, kid="k1"), b"x"):
        assert verdict(known, two).unknown_keys == ()


def test_a_token_without_an_end_is_good_for_ever() -> None:
    claims = {"iss": CLAIMS["iss"]}
    assert accepted(signed(claims)).valid_until_s == float("inf")


@pytest.mark.parametrize("audience", ["api", ["api"], ["x", "api"], "web"])
def test_any_one_audience_is_enough(audience: object) -> None:
    accepted(signed(CLAIMS | {"aud": audience}), provider(audiences=("api", "web")))


@pytest.mark.parametrize("audience", ["x", [], ["x"], 7, None, [["api"]], {"api": 1}, "api,web", ["API"]])
def test_another_audience_is_not(audience: object) -> None:
    claims = CLAIMS if audience is None else CLAIMS | {"aud": audience}
    # PyJWT refuses to make some of these.
    token = signed_bytes(HEADER, json.dumps(claims).encode())
    assert "another audience" in why_not(token, provider(audiences=("api", "web")))


def test_without_audiences_none_is_looked_at() -> None:
    accepted(signed(CLAIMS | {"aud": "whoever"}))


# --- time --------------------------------------------------------------------------------------------------------


def test_time_with_the_skew_of_the_provider() -> None:
    token = signed({"iss": CLAIMS["iss"], "nbf": NOW_S, "exp": NOW_S + 100.5})
    okta = provider(clock_skew_s=10.0)
    for now_s in (NOW_S - 10, NOW_S, NOW_S + 110.4):
        assert accepted(token, okta, now_s=now_s).valid_until_s == NOW_S + 110.5
    assert "not valid yet" in why_not(token, okta, now_s=NOW_S - 10.1)
    for now_s in (NOW_S + 110.5, NOW_S + 1e9):
        assert "has expired" in why_not(token, okta, now_s=now_s)
    assert "has expired" in why_not(signed({"iss": CLAIMS["iss"], "exp": NOW_S}), provider(clock_skew_s=0.0))


def test_what_was_verified_does_not_outlive_its_time() -> None:
    okta, token = provider(), signed()
    for _ in range(2):
        accepted(token, okta)
        assert "has expired" in why_not(token, okta, now_s=NOW_S + 700)


@pytest.mark.parametrize("claim", ["exp", "nbf"])
@pytest.mark.parametrize("value", ['"1800000000"', "true", "null", "[]", "1e400", "1" + "0" * 40, "NaN", "Infinity"])
def test_a_time_that_is_none_is_refused(claim: str, value: str) -> None:
    payload = b'{"iss":"%s","%s":%s}' % (str(CLAIMS["iss"]).encode(), claim.encode(), value.encode())
    assert "the token of 'okta' has a" in why_not(signed_bytes(HEADER, payload))


# --- attacks -----------------------------------------------------------------------------------------------------


def _hmac(secret: bytes, header: bytes) -> bytes:
    """What PyJWT refuses to make: it knows a public key when it sees one."""
    made = segment(header) + b"." + segment(PAYLOAD)
    return made + b"." + segment(hmac.digest(secret, made, "sha256"))


def _with(token: bytes, *, header: bytes | None = None, payload: bytes | None = None) -> bytes:
    parts = token.split(b".")
    parts[0] = parts[0] if header is None else segment(header)
    parts[1] = parts[1] if payload is None else segment(payload)
    return b".".join(parts)


GOOD = signed()
_LAST = GOOD[-1:]
_NUMBERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(segment(b'{"alg":"none"}') + b"." + segment(PAYLOAD) + b".", id="alg none"),
        pytest.param(segment(b'{"alg":"none"}') + b"." + segment(PAYLOAD) + b".AA", id="alg none, some signature"),
        pytest.param(_with(GOOD, header=b'{"alg":"none"}'), id="alg none, the signature of another"),
        pytest.param(_with(GOOD, header=b'{"alg":"None"}'), id="alg None"),
        pytest.param(_with(GOOD, header=b'{"alg":""}'), id="alg empty"),
        pytest.param(_with(GOOD, header=b"{}"), id="no alg"),
        pytest.param(signed_bytes(b'{"alg":["RS256"]}', PAYLOAD), id="alg is a list"),
        pytest.param(signed_bytes(b'{"alg":"RS256","kid":7}', PAYLOAD), id="kid is a number"),
        pytest.param(signed_bytes(b'{"alg":"rs256"}', PAYLOAD), id="alg in lower case"),
        pytest.param(signed(key=rsa_key("two")), id="another key"),
        pytest.param(signed(key=rsa_key("two"), jwk=jwk(rsa_key("two"))), id="brings its own key"),
        pytest.param(signed(key=rsa_key("two"), jku="https://evil.example/"), id="points to a key"),
        pytest.param(signed(key=rsa_key("two"), kid="../../dev/null"), id="kid is a path"),
        pytest.param(signed(key=rsa_key("two"), kid="k1' OR '1'='1"), id="kid is a query"),
        pytest.param(signed(key=ec_key(), algorithm="ES256", kid="k1"), id="another kind of key"),
        pytest.param(_with(GOOD, payload=json.dumps(CLAIMS | {"sub": "root"}).encode()), id="another payload"),
        pytest.param(_with(GOOD, header=b'{"alg":"PS256"}'), id="another algorithm of the key"),
        pytest.param(GOOD.rpartition(b".")[0] + b".", id="no signature"),
        pytest.param(GOOD.rpartition(b".")[0], id="two parts"),
        pytest.param(GOOD + b".", id="four parts"),
        pytest.param(GOOD + b"." + GOOD, id="two tokens"),
        pytest.param(b"." + GOOD, id="a part in front"),
        pytest.param(GOOD + b"=", id="padding"),
        pytest.param(GOOD[:-1] + bytes([_NUMBERS[_NUMBERS.index(_LAST) ^ 1]]), id="another spelling of the signature"),
        pytest.param(GOOD.replace(b".", b"%2E"), id="escaped dots"),
        pytest.param(GOOD[:10] + b" " + GOOD[10:], id="a space"),
        pytest.param(GOOD[:10] + b"\n" + GOOD[10:], id="a line feed"),
        pytest.param(GOOD + b", Bearer " + GOOD, id="two in one header"),
        pytest.param(signed_segments(base64.urlsafe_b64encode(HEADER + b" "), segment(PAYLOAD)), id="padding within"),
        pytest.param(signed_segments(segment(HEADER), b"+/+/"), id="base64 of another alphabet"),
        pytest.param(signed_bytes(HEADER, b'{"iss":"x",' + PAYLOAD[1:]), id="issuer twice"),
        pytest.param(signed_bytes(HEADER, PAYLOAD[:-1] + b',"\\u0069ss":"x"}'), id="issuer twice, escaped"),
        pytest.param(signed_bytes(b'{"alg":"none","alg":"RS256"}', PAYLOAD), id="alg twice"),
        pytest.param(signed_bytes(HEADER, PAYLOAD[:-1] + b',"x":NaN}'), id="payload has a number that is none"),
        pytest.param(signed_bytes(HEADER, b"[1]"), id="payload is a list"),
        pytest.param(signed_bytes(HEADER, b'"iss"'), id="payload is a text"),
        pytest.param(signed_bytes(HEADER, GOOD), id="payload is a token"),
        pytest.param(signed_bytes(HEADER, b"\xff\xfe"), id="payload is no text"),
        pytest.param(signed_bytes(HEADER, b'{"a":' * 900 + b"1" + b"}" * 900), id="payload is deep"),
        pytest.param(signed_bytes(HEADER, b"[" * 5000), id="payload is deeper"),
        pytest.param(signed_bytes(HEADER, PAYLOAD + b" " * 9000), id="huge"),
        pytest.param(signed_bytes(b'{"alg":"RS256","crit":["exp"]}', PAYLOAD), id="crit"),
        pytest.param(signed_bytes(b'{"alg":"RS256","crit":[]}', PAYLOAD), id="crit empty"),
        pytest.param(signed_bytes(b'{"alg":"RS256","b64":true,"crit":["b64"]}', PAYLOAD), id="b64"),
        pytest.param(b".".join([segment(b'{"alg":"RSA-OAEP","enc":"A256GCM"}'), *[b"AAAA"] * 4]), id="encrypted"),
        pytest.param(signed(CLAIMS | {"iss": "https://issuer.example"}), id="issuer without its slash"),
        pytest.param(signed_bytes(HEADER, PAYLOAD.replace(b'"iss"', b'"ISS"')), id="issuer in upper case"),
        pytest.param(signed_bytes(HEADER, b'{"iss":["https://issuer.example/"]}'), id="issuer is a list"),
        pytest.param(signed({"sub": "alice"}), id="no issuer"),
        pytest.param(b"x", id="no token"),
        pytest.param(b"\xff\xfe.\xff.\xff", id="bytes"),
    ],
)  # fmt: skip
def test_attacks(token: bytes) -> None:
    why = why_not(token)
    assert why.startswith(("the token of 'okta' ", "a token of 'okta' is missing"))
    assert token[:20] not in why.encode() or len(token) < 20
    assert "\n" not in why


@pytest.mark.parametrize("header", [b'{"alg":"HS256"}', b'{"alg":"HS256","kid":"k1"}'])
def test_a_public_key_is_no_shared_secret(header: bytes) -> None:
    """RFC 8725 section 2.1."""
    public = jwk(rsa_key(), kid="k1")
    key = rsa_key().public_key()
    secrets = [key.public_bytes(one, PublicFormat.SubjectPublicKeyInfo) for one in (Encoding.PEM, Encoding.DER)]
    secrets += [secrets[0].strip(), json.dumps(public).encode(), str(public["n"]).encode(), b"k1", b""]
    shared = {"kty": "oct", "k": segment(b"0123456789abcdef0123456789abcdef").decode()}
    for secret in secrets:
        token = _hmac(secret, header)
        assert "not of this provider" in why_not(token)
        assert "a signature that is not" in why_not(token, provider(public, shared)), "beside a real shared secret"


def test_a_token_of_another_provider() -> None:
    other = provider(jwk(rsa_key("two")), name="auth0", issuer="https://other.example/")
    theirs = signed(CLAIMS | {"iss": "https://other.example/"}, rsa_key("two"))
    accepted(theirs, other)
    assert "not of this provider" in why_not(theirs)
    assert "not of this provider" in why_not(signed(), other)
    both = {"okta": provider(), "auth0": other}
    either = Tokens([TokenRequirement("okta"), TokenRequirement("auth0")], both)
    assert isinstance(either.check(bearer(theirs), NOW_S), Accepted)
    assert isinstance(either.check(bearer(signed()), NOW_S), Accepted)
    verdict = either.check(head(), NOW_S)
    assert isinstance(verdict, Rejected)
    assert "'okta' is missing" in verdict.why
    assert "'auth0' is missing" in verdict.why
    # Same keys, another name of the issuer: nobody becomes somebody else's.
    same_keys = msgspec.structs.replace(provider(), issuer="https://other.example/")
    assert "another issuer" in why_not(signed(), same_keys)


# --- claims ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "value", "holds"),
    [
        ("admin", "admin", True),
        ("admin", "Admin", False),
        ("admin user", "admin", False),
        (["user", "admin"], "admin", True),
        (["user"], "admin", False),
        ([], "", False),
        ([["admin"]], "admin", False),
        (7, "7", True),
        ([7], "7", True),
        (7.5, "7.5", True),
        (70, "7", False),
        (True, "true", True),
        (True, "True", False),
        (True, "1", False),
        (False, "false", True),
        (None, "null", False),
        (None, "", False),
        ("", "", True),
        ({"admin": 1}, "admin", False),
    ],
)
def test_a_claim_is_the_value_or_has_it(found: object, value: str, holds: bool) -> None:
    for claims, path in (({"role": found}, ("role",)), ({"a": {"b.c": found}}, ("a", "b.c"))):
        verdict = check(signed(CLAIMS | claims), None, ClaimMatch(path, value))
        assert isinstance(verdict, Accepted) is holds, verdict


def test_all_claims_have_to_hold() -> None:
    token = signed(CLAIMS | {"a": "1", "b": {"c": "2"}})
    one, other = ClaimMatch(("a",), "1"), ClaimMatch(("b", "c"), "2")
    accepted(token, None, one, other)
    assert "claim b.c" in why_not(token, None, one, ClaimMatch(("b", "c"), "3"))
    assert check(token, None, ClaimMatch(("a",), "2")) == Rejected(
        "the token of 'okta' does not have the claim a that is asked for", claims=True
    )
    assert check(token, provider(issuer="x"), one) == Rejected("the token of 'okta' is of another issuer")
    for path in (("b",), ("c",), ("a", "x"), ("b", "c", "d"), ("b", "0")):
        why_not(token, None, one, ClaimMatch(path, "2"))


# --- places ------------------------------------------------------------------------------------------------------

BEARER = TokenLocation(header="authorization", prefix="Bearer")
OWN = TokenLocation(header="x-token", forward=True)
QUERY = TokenLocation(query_parameter="access_token")
COOKIE = TokenLocation(cookie="jwt")


@pytest.mark.parametrize(
    ("location", "request_", "removed"),
    [
        (BEARER, bearer(GOOD), {b"authorization"}),
        (BEARER, head((b"authorization", b"bearer   " + GOOD)), {b"authorization"}),
        (TokenLocation(header="X-Token"), head((b"x-token", GOOD)), {b"x-token"}),
        (OWN, head((b"x-token", GOOD)), set()),
        (QUERY, head(target=b"/?a=b&access_token=" + GOOD + b"&c"), set()),
        (QUERY, head(target=b"/?%61ccess_token=" + GOOD.replace(b".", b"%2E")), set()),
        (COOKIE, head((b"cookie", b"a=b; jwt=" + GOOD + b"; c=d")), set()),
        (COOKIE, head((b"cookie", b"a=b"), (b"cookie", b'jwt="' + GOOD + b'"')), set()),
    ],
)
def test_where_a_token_is(location: TokenLocation, request_: RequestHead, removed: set[bytes]) -> None:
    for locations in ((location,), (TokenLocation(header="x-other"), location, TokenLocation(cookie="other"))):
        assert accepted(request_, provider(locations=locations)).removed == removed


@pytest.mark.parametrize(
    "request_",
    [
        head(),
        head((b"authorization", b"Basic " + GOOD)),
        head((b"authorization", GOOD)),
        head((b"authorization", b"Bearer")),
        head((b"authorization", b"Bearer ")),
        head((b"x-token", b"")),
        head((b"x_token", GOOD)),
        head(target=b"/?access_token"),
        head(target=b"/?access_token="),
        head(target=b"/access_token=" + GOOD),
        head((b"cookie", b"xjwt=" + GOOD)),
        head((b"cookie", b"jwt=")),
    ],
)
def test_where_none_is(request_: RequestHead) -> None:
    why = why_not(request_, provider(locations=(BEARER, OWN, QUERY, COOKIE)))
    assert why == (
        "a token of 'okta' is missing (header authorization or header x-token or query parameter access_token or "
        "cookie jwt)"
    )


@pytest.mark.parametrize(
    "request_",
    [
        head((b"authorization", b"Bearer " + GOOD), (b"authorization", b"Bearer " + GOOD)),
        head((b"authorization", b"Bearer " + GOOD), (b"authorization", b"Basic x")),
        head((b"x-token", GOOD), (b"x-token", b"other")),
        head((b"authorization", b"Bearer " + GOOD), (b"x-token", b"other")),
        head((b"authorization", b"Bearer " + GOOD), target=b"/?access_token=other"),
        head(target=b"/?access_token=other&access_token=" + GOOD),
        head(target=b"/?access_token=" + GOOD + b"&%61ccess_token=other"),
        head((b"cookie", b"jwt=other; jwt=" + GOOD)),
        head((b"cookie", b"jwt=" + GOOD), (b"cookie", b"jwt=other")),
    ],
)
def test_of_several_tokens_none_counts(request_: RequestHead) -> None:
    """The external service might look at the other one."""
    assert "no token of 'okta' can be told" in why_not(request_, provider(locations=(BEARER, OWN, QUERY, COOKIE)))


def test_the_same_token_in_two_places_is_one() -> None:
    twice = head((b"authorization", b"Bearer " + GOOD), (b"x-token", GOOD))
    assert accepted(twice, provider(locations=(BEARER, OWN))).removed == {b"authorization"}


# --- what is passed on -------------------------------------------------------------------------------------------


def test_the_payload_is_passed_on() -> None:
    lengths = [CLAIMS | {"x": "y" * extra} for extra in range(3)]
    claims = next(one for one in lengths if len(signed(one).split(b".")[1]) % 4)
    okta = provider(forward_header="X-Claims")
    ((name, value),) = accepted(signed(claims), okta).added
    assert name == b"x-claims"
    assert b"=" not in value
    assert json.loads(base64.urlsafe_b64decode(value + b"==")) == claims
    ((_, padded),) = accepted(signed(claims), msgspec.structs.replace(okta, pad_forward_header=True)).added
    assert len(padded) % 4 == 0
    assert padded.rstrip(b"=") == value
    assert forward_headers([okta, provider()]) == {b"x-claims"}


def test_two_tokens_of_one_request() -> None:
    first = Accepted(5.0, frozenset({b"a"}), [(b"h", b"1"), (b"i", b"1")])
    second = Accepted(4.0, frozenset({b"b"}), [(b"h", b"2"), (b"j", b"2")])
    assert second.and_also(first) == Accepted(4.0, frozenset({b"a", b"b"}), [(b"h", b"1"), (b"i", b"1"), (b"j", b"2")])
    assert second.and_also(None) is second


# --- what nobody can say -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"keys_json": "", "problem": "https://issuer.example/jwks answers 500"}, "answers 500"),
        ({"keys_json": ""}, "none were found"),
        ({"keys_json": '{"keys": []}'}, "none were found"),
        ({"keys_json": "{"}, "not a JSON Web Key Set"),
        ({"keys_json": "[" * 100_000}, "not a JSON Web Key Set"),
        ({"keys_json": '{"keys": 5}'}, "not a list"),
        ({"keys_json": key_set({"kty": "EC", "crv": "P-0"})}, "not supported"),
    ],
)
def test_without_keys_nobody_can_say(fields: dict[str, Any], said: str) -> None:
    okta = provider(**fields)
    verdict = check(signed(), okta)
    assert isinstance(verdict, Rejected)
    assert verdict.unknown
    assert verdict.why.startswith("the keys of the token provider 'okta' are not known: ")
    assert said in verdict.why
    assert "is missing" in why_not(head(), okta), "no key could make up for a token that is not there"


def test_a_provider_that_is_not_known() -> None:
    verdict = Tokens([TokenRequirement("okta")], {}).check(bearer(signed()), NOW_S)
    assert verdict == Rejected("the token provider 'okta' is not known here", unknown=True)
    either = Tokens([TokenRequirement("gone"), TokenRequirement("okta")], {"okta": provider()})
    assert isinstance(either.check(bearer(signed()), NOW_S), Accepted)
    verdict = either.check(head(), NOW_S)
    assert isinstance(verdict, Rejected)
    assert verdict.unknown


# --- what is remembered ------------------------------------------------------------------------------------------


def test_a_token_is_verified_once(monkeypatch: pytest.MonkeyPatch) -> None:
    okta, token = provider(), signed(CLAIMS | {"jti": "once"})
    accepted(token, okta)
    monkeypatch.setattr(Verifier, "_verify", lambda *_: pytest.fail("verified again"))
    accepted(token, okta)
    accepted(token, provider())
    with pytest.raises(pytest.fail.Exception):
        check(token, provider(jwk(rsa_key("two"))))


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.http.policy.tokens._REMEMBERED", 3 * len(GOOD) + 100)
    verifier = Verifier(provider())
    for number in range(20):
        for token in (signed(CLAIMS | {"n": number}), signed(CLAIMS | {"n": number}, rsa_key("two"))):
            verifier.check(bearer(token), (), NOW_S)
    remembered = verifier._verified
    assert 1 <= len(remembered) <= 3
    assert verifier._remembered == sum(map(len, remembered))
    verifier.check(bearer(next(iter(remembered))), (), NOW_S + 10_000)
    assert verifier._remembered == sum(map(len, remembered)), "what has expired is forgotten"


def test_the_same_provider_is_the_same_verifier() -> None:
    assert verifier_of(provider()) is verifier_of(provider())
    assert verifier_of(provider()) is not verifier_of(provider(issuer="x"))
    assert verifier_of(None) is None


@given(st.binary(max_size=200) | st.lists(st.binary(max_size=40).map(segment), max_size=4).map(b".".join))
def test_nothing_else_is_a_token(token: bytes) -> None:
    assert isinstance(check(token), Rejected)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(list(_NUMBERS)))
def test_no_letter_of_a_token_may_change(at: int, letter: int) -> None:
    changed = GOOD[:at] + bytes([letter]) + GOOD[at + 1 :]
    assert isinstance(check(changed), Accepted) is (changed == GOOD)
