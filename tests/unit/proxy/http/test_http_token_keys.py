"""Which keys of a set can be used, and what is said about the others."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from proxy.http.policy.token_keys import KeySet, read_keys
from tests.support.tokens import ec_key, jwk, key_set, rsa_key, segment

RSA = jwk(rsa_key(), kid="k1")
EC = jwk(ec_key())
SECRET = {"kty": "oct", "k": segment(b"s" * 64).decode()}


def test_a_key_that_cannot_be_used_takes_no_other_with_it() -> None:
    found = read_keys(key_set(EC, {"kty": "?"}, RSA, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}))
    assert [key.kid for key in found.keys] == ["", "k1"]
    assert [problem.split(":")[0] for problem in found.problems] == ["key 2", "key 4"]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (7, "no object"),
        ({}, "no text"),
        (RSA | {"kid": 7}, "no text"),
        (RSA | {"alg": None}, "no text"),
        (RSA | {"use": "enc"}, "use is not sig"),
        (RSA | {"key_ops": ["encrypt"]}, "key_ops"),
        (RSA | {"key_ops": "verify"}, "key_ops"),
        (RSA | {"alg": "HS256"}, "'HS256' does not go with a key of its kind"),
        (RSA | {"alg": "none"}, "'none' does not go"),
        (RSA | {"alg": "ES256"}, "'ES256' does not go"),
        (EC | {"alg": "RS256"}, "'RS256' does not go"),
        (EC | {"alg": "ES384"}, "'ES384' does not go"),
        (SECRET | {"alg": "RS256"}, "'RS256' does not go"),
        ({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "cannot be read"),
        (EC | {"x": EC["y"]}, "cannot be read"),
        (EC | {"crv": "secp256k1"}, "not supported"),
        ({"kty": "RSA", "n": 5, "e": "AQAB"}, "n, e is missing or no text"),
        ({"kty": "RSA", "e": "AQAB"}, "n, e is missing"),
        ({"kty": "oct"}, "k is missing"),
        ({"kty": "oct", "k": "c2hvcnQ"}, "below"),
        (jwk(rsa_key("small", 1024)), "below"),
        ({"kty": "OKP", "crv": "X25519", "x": "AA"}, "not supported"),
        ({"kty": "OKP", "crv": "Ed25519", "x": "AA"}, "cannot be read"),
    ],
)  # fmt: skip
def test_what_cannot_be_used(key: Any, said: str) -> None:
    found = read_keys(json.dumps({"keys": [key]}))
    assert found.keys == ()
    assert said in found.problems[0]


def test_a_private_key_is_used_by_its_public_half() -> None:
    private = jwt.algorithms.RSAAlgorithm.to_jwk(rsa_key(), as_dict=True)
    (key,) = read_keys(key_set(private)).keys
    token = jwt.encode({}, rsa_key(), "RS256").encode()
    assert key.signed(token, "RS256")
    assert "PrivateKey" not in type(key.material).__name__


def test_a_shared_secret_takes_no_hash_that_is_longer_than_itself() -> None:
    (key,) = read_keys(key_set({"kty": "oct", "k": segment(b"s" * 48).decode()})).keys
    assert key.algorithms == {"HS256", "HS384"}


def test_candidates() -> None:
    found = read_keys(key_set(RSA, EC, SECRET))
    assert [key.kid for key in found.candidates("RS256", "k1")] == ["k1"]
    assert found.candidates("RS256", "k2") == []
    assert [len(found.candidates(algorithm, "")) for algorithm in ("RS256", "ES256", "HS256", "none", "")] == [
        1, 1, 1, 0, 0
    ]  # fmt: skip
    assert len(found.candidates("ES256", "whatever")) == 1


def test_other_curves() -> None:
    key = jwk(ec.generate_private_key(ec.SECP384R1()))
    assert read_keys(key_set(key)).keys[0].algorithms == {"ES384"}


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["keys", "kty", "crv", "x", "y", "n", "e", "k", "alg", "kid"]), inner)
    ),
)


@given(_json, st.sampled_from(["RSA", "EC", "OKP", "oct"]))
def test_any_json_is_read(found: Any, kind: str) -> None:
    for given_set in (found, {"keys": found}, {"keys": [{"kty": kind, "crv": "P-256", "value": found}]}):
        assert isinstance(read_keys(json.dumps(given_set)), KeySet)
    if isinstance(found, dict):
        assert read_keys(key_set({**found, "kty": kind})).problems != ()
