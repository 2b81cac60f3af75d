"""Key sets: keys that can verify a signature come through, without anything else that was beside them."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin.consul.strict import NotUnderstood
from plugin.jwks.keyset import LARGEST_BYTES, MOST_KEYS, read_key_set
from proxy.http.policy.token_keys import read_keys
from tests.support.key_server import SigningKey, key_set
from tests.unit.plugin.assemble.test_plugin_permissions import JSON

SECRET = base64.urlsafe_b64encode(b"s" * 32).decode().rstrip("=")


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_the_same_keys_verify_what_they_verified_before() -> None:
    key = SigningKey("one")
    read = read_key_set(key_set(key, SigningKey("two")))
    assert (read.keys, read.unusable) == (2, 0)
    found = jwt.PyJWKSet.from_json(read.json)["one"]
    assert jwt.decode(key.sign(sub="x"), found, algorithms=["ES256"]) == {"sub": "x"}


def test_private_members_and_certificates_are_left_out() -> None:
    key = {**SigningKey("one").public, "d": "PRIVATE", "x5c": ["CERT"], "odd": 1}
    assert not {"d", "x5c", "odd"} & json.loads(read_key_set(document(key)).json)["keys"][0].keys()


def test_a_shared_secret_is_a_key() -> None:
    assert read_key_set(document({"kty": "oct", "k": SECRET, "alg": "HS256"})).keys == 1


@pytest.mark.parametrize(
    "key",
    [
        None,
        "key",
        {},
        {"kty": "XX"},
        {"kty": ["EC"]},
        {"kty": "RSA", "n": "AQ", "e": "AQAB"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RSA-OAEP"},
        {"kty": "oct", "k": SECRET, "use": "enc"},
        {"kty": "oct", "k": SECRET, "key_ops": ["encrypt"]},
        {"kty": "oct", "k": "c2hvcnQ"},
        {"kty": "oct", "k": SECRET, "key_ops": 5},
        {"kty": "oct", "k": 5},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
    ],
)
def test_what_verifies_nothing_is_left_out_and_counted(key: object) -> None:
    good = SigningKey("one")
    read = read_key_set(document(key, good.public))
    assert (read.keys, read.unusable) == (1, 1)
    with pytest.raises(NotUnderstood, match="none of the 1 keys"):
        read_key_set(document(key))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"keys": {}}', b'{"Keys": []}', b"\xff", b"[" * 9999])
def test_anything_else_is_no_key_set_and_is_not_quoted(content: bytes) -> None:
    with pytest.raises(NotUnderstood, match="no JSON Web Key Set"):
        read_key_set(content)


def test_sizes_are_limited() -> None:
    with pytest.raises(NotUnderstood, match="bytes"):
        read_key_set(b" " * (LARGEST_BYTES + 1))
    with pytest.raises(NotUnderstood, match="keys, more than"):
        read_key_set(document(*[{}] * (MOST_KEYS + 1)))


MEMBERS = ("use", "key_ops", "alg", "kid", "n", "e", "crv", "x", "y", "k")


@given(st.lists(JSON | st.fixed_dictionaries({"kty": JSON | st.sampled_from(["RSA", "EC", "OKP", "oct"])}, optional={
    name: JSON | st.sampled_from(["AQAB", SECRET, "P-256", "Ed25519", "sig", ["verify"], "ES256"]) for name in MEMBERS
}), max_size=4))  # fmt: skip
def test_any_list_of_anything_is_a_key_set_or_is_refused(keys: list[Any]) -> None:
    try:
        read = read_key_set(document(*keys))
    except NotUnderstood:
        return
    # Whatever came through is a key to those who check tokens.
    kept = read_keys(read.json)
    assert (len(kept.keys), kept.problems) == (read.keys, ())
