"""The keys of a token provider (JSON Web Key Set, RFC 7517), and whether one of them signed a token (RFC 7515).

What may verify a token is decided by the key, never by the token: an RSA key takes RSA signatures, a curve its own
algorithm, and a key that says ``alg`` that one alone. So a public key is never taken for a shared secret, and ``none``
is no algorithm. A key that a token brings or points to (``jwk``, ``jku``, ``x5c``, ``x5u``) is not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import PyJWTError

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_SECRET = ("HS256", "HS384", "HS512")
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
"""What makes the key that verifies; of a private key it is the public half."""
_ALGORITHMS = jwt.PyJWS([*_RSA, *_CURVES.values(), "EdDSA", *_SECRET])
_MOST_KEYS = 100


@dataclass(frozen=True, slots=True)
class Key:
    kid: str
    """Empty: it has none."""
    algorithms: frozenset[str]
    material: Any
    """Of ``cryptography``; bytes of a shared secret."""

    def signed(self, token: bytes, algorithm: str) -> bool:
        try:
            _ALGORITHMS.decode_complete(token, self.material, algorithms=[algorithm])
        except (PyJWTError, ValueError):
            return False
        return True


@dataclass(frozen=True, slots=True)
class KeySet:
    keys: tuple[Key, ...]
    problems: tuple[str, ...]
    """A sentence for each key that cannot be used."""

    def candidates(self, algorithm: str, kid: str) -> list[Key]:
        """Those that may have signed; a token or a key without ``kid`` leaves it open which one."""
        return [key for key in self.keys if algorithm in key.algorithms and (not kid or not key.kid or key.kid == kid)]

    def knows(self, kid: str) -> bool:
        return any(key.kid == kid for key in self.keys)


def read_keys(keys_json: str) -> KeySet:
    """Never fails: what cannot be used is left out, with the reason."""
    try:
        found = json.loads(keys_json)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return KeySet((), ("it is not a JSON Web Key Set: an object with keys",))
    if not isinstance(found, list) or len(found) > _MOST_KEYS:
        return KeySet((), (f"its keys are not a list of at most {_MOST_KEYS}",))
    keys, problems = [], []
    for number, given in enumerate(found, 1):
        try:
            keys.append(_key(given))
        except _Unusable as error:
            problems.append(f"key {number}: {error}")
    return KeySet(tuple(keys), tuple(problems))


class _Unusable(Exception):
    """The text says why."""


def _key(given: object) -> Key:
    if not isinstance(given, Mapping):
        raise _Unusable("it is no object")
    kind, kid, algorithm = given.get("kty"), given.get("kid", ""), given.get("alg", "")
    if not isinstance(kind, str) or not isinstance(kid, str) or not isinstance(algorithm, str):
        raise _Unusable("its kty, kid or alg is no text")
    if given.get("use", "sig") != "sig":
        raise _Unusable("its use is not sig")
    operations = given.get("key_ops", ["verify"])
    if not isinstance(operations, list) or not {"verify", "sign"} & {one for one in operations if isinstance(one, str)}:
        raise _Unusable("its key_ops do not have verify")
    fitting = _fitting(kind, given.get("crv"))
    if algorithm:
        if algorithm not in fitting:
            raise _Unusable(f"its alg {algorithm[:40]!r} does not go with a key of its kind ({', '.join(fitting)})")
        fitting = (algorithm,)
    material = _material(kind, given, fitting[0])
    return Key(kid, frozenset(_long_enough(material, fitting)), material)


def _fitting(kind: str, curve: object) -> tuple[str, ...]:
    if kind == "RSA":
        return _RSA
    if kind == "oct":
        return _SECRET
    if kind == "EC" and isinstance(curve, str) and curve in _CURVES:
        return (_CURVES[curve],)
    if kind == "OKP" and curve == "Ed25519":
        return ("EdDSA",)
    raise _Unusable(f"keys of kty {kind[:40]!r} and crv {str(curve)[:40]!r} are not supported")


def _material(kind: str, given: Mapping[str, Any], algorithm: str) -> Any:
    public = {"kty": kind} | {name: given.get(name) for name in _MEMBERS[kind]}
    if not all(isinstance(value, str) and value for value in public.values()):
        raise _Unusable(f"one of {', '.join(_MEMBERS[kind])} is missing or no text")
    try:
        return jwt.PyJWK(public, algorithm).key
    except (PyJWTError, ValueError, TypeError, KeyError) as error:
        raise _Unusable(f"it cannot be read: {str(error)[:80]}") from error


def _long_enough(material: Any, algorithms: tuple[str, ...]) -> list[str]:
    """RFC 7518: 2,048 bits of RSA (section 3.3), as many as the hash of a shared secret (section 3.2)."""
    complaints = {name: _ALGORITHMS.get_algorithm_by_name(name).check_key_length(material) for name in algorithms}
    enough = [name for name, complaint in complaints.items() if not complaint]
    if not enough:
        raise _Unusable(str(complaints[algorithms[0]]).partition(".")[0])
    return enough
