"""Keys and tokens of an identity provider, made up."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from proxy.rules import TokenProvider

ISSUER = "https://issuer.example/"
NOW_S = 1_700_000_000.0
CLAIMS: dict[str, Any] = {"iss": ISSUER, "sub": "alice", "exp": int(NOW_S) + 600}


@functools.cache
def rsa_key(name: str = "one", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same one for the same name."""
    return rsa.generate_private_key(65537, bits)


@functools.cache
def ec_key(name: str = "one") -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def ed_key(name: str = "one") -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def jwk(private: Any, **members: Any) -> dict[str, Any]:
    """The public half."""
    public = private.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        made = RSAAlgorithm.to_jwk(public, as_dict=True)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        made = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        made = OKPAlgorithm.to_jwk(public, as_dict=True)
    return {name: value for name, value in made.items() if name != "key_ops"} | members


def key_set(*keys: Mapping[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


def signed(claims: Mapping[str, Any] = CLAIMS, key: Any = None, algorithm: str = "RS256", **header: Any) -> bytes:
    """By ``key``, or the RSA key called ``one``."""
    key = rsa_key() if key is None else key
    return jwt.encode(dict(claims), key, algorithm=algorithm, headers=header).encode()


def segment(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed_bytes(header: bytes, payload: bytes) -> bytes:
    """Any header and any payload, with a good RS256 signature by the key ``one``."""
    return signed_segments(segment(header), segment(payload))


def signed_segments(header: bytes, payload: bytes) -> bytes:
    """As :func:`signed_bytes`, in any encoding."""
    signing_input = header + b"." + payload
    return signing_input + b"." + segment(jwt.get_algorithm_by_name("RS256").sign(signing_input, rsa_key()))


def provider(*keys: Mapping[str, Any], **fields: Any) -> TokenProvider:
    """``okta``, with these keys, or the RSA key called ``one``."""
    given = {"name": "okta", "issuer": ISSUER, "keys_json": key_set(*(keys or (jwk(rsa_key(), kid="k1"),)))}
    return TokenProvider(**(given | fields))
