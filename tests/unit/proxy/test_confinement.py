from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from proxy import confinement
from proxy.confinement import Confinement, ConfinementError, confine

Kernel = Callable[..., int]


@pytest.fixture
def harmless(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """This process stays as it is; gives what was asked of prctl."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(confinement, "_prctl", lambda option, value: asked.append((option, value)))
    monkeypatch.setattr(confinement, "setrlimit", lambda *_: None)
    return asked


@pytest.mark.parametrize(
    ("version", "fields"),
    [
        (1, [0x1FFF]),
        (2, [0x3FFF]),
        (3, [0x7FFF]),
        (4, [0x7FFF, 1]),
        (5, [0xFFFF, 1]),
        (6, [0xFFFF, 1, 3]),
        (99, [0xFFFF, 1, 3]),
    ],
)
def test_each_kernel_is_asked_for_all_that_it_knows(version: int, fields: list[int]) -> None:
    attributes, size = confinement._ruleset(version)
    assert (list(attributes), size) == (fields, 8 * len(fields))


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (444, "this kernel has no Landlock, or the sandbox around us forbids it: Function not implemented"),
        (446, "Landlock cannot be used: Function not implemented"),
    ],
)
def test_a_kernel_without_landlock_is_said(
    monkeypatch: pytest.MonkeyPatch, harmless: list[tuple[int, int]], refused: int, why: str
) -> None:
    def kernel(number: int, *_: object) -> int:
        if number == refused:
            raise OSError(38, "Function not implemented")
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(confinement, "_syscall", kernel)
    assert confine(Confinement()) == why
    assert harmless == [(38, 1), (4, 0)]


def test_debuggers_are_let_in_when_told(monkeypatch: pytest.MonkeyPatch, harmless: list[tuple[int, int]]) -> None:
    monkeypatch.setattr(confinement, "_close_files", lambda: "")
    assert confine(Confinement(debuggable=True)) == ""
    assert harmless == [(38, 1), (4, 1)]


@pytest.mark.usefixtures("harmless")
def test_a_user_who_cannot_be_had_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setgroups", refused)
    monkeypatch.setattr(confinement, "_close_files", lambda: pytest.fail("it went on"))
    with pytest.raises(ConfinementError, match="cannot become user 12345: Operation not permitted"):
        confine(Confinement(user=12_345, group=12_345))


def test_what_the_kernel_refuses_is_raised() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        confinement._syscall(confinement._CREATE_RULESET, (ctypes.c_uint64 * 1)(0), 3, 0)


_VERIFIES = """
import json, sys
import proxy.worker
from proxy.confinement import Confinement, confine
from proxy.http.policy.token_keys import read_keys

given = json.load(sys.stdin)
confine(Confinement())
known = set(sys.modules)
for key, algorithm, token in given:
    (one,) = read_keys(json.dumps({"keys": [key]})).candidates(algorithm, "")
    assert one.signed(token.encode(), algorithm), algorithm
print(sorted(set(sys.modules) - known))
"""


def test_a_token_of_any_algorithm_is_verified_without_a_file() -> None:
    """Libraries that import a module at the first signature would fail with it, for every request."""
    given = json.dumps(list(_signed()))
    child = subprocess.run([sys.executable, "-c", _VERIFIES], input=given, capture_output=True, text=True, timeout=60)
    assert child.stdout.strip() == "[]", child.stderr


def _signed() -> Iterator[tuple[dict[str, Any], str, str]]:
    """A key, an algorithm, and a token that it signed."""
    for curve, algorithm in ((ec.SECP256R1(), "ES256"), (ec.SECP384R1(), "ES384"), (ec.SECP521R1(), "ES512")):
        key = ec.generate_private_key(curve)
        yield ECAlgorithm.to_jwk(key.public_key(), as_dict=True), algorithm, _token(key, algorithm)
    rsa_key = rsa.generate_private_key(65537, 2048)
    for algorithm in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"):
        yield RSAAlgorithm.to_jwk(rsa_key.public_key(), as_dict=True), algorithm, _token(rsa_key, algorithm)
    edwards = ed25519.Ed25519PrivateKey.generate()
    yield OKPAlgorithm.to_jwk(edwards.public_key(), as_dict=True), "EdDSA", _token(edwards, "EdDSA")
    secret = b"s" * 64
    for algorithm in ("HS256", "HS384", "HS512"):
        yield HMACAlgorithm.to_jwk(secret, as_dict=True), algorithm, _token(secret, algorithm)


def _token(key: Any, algorithm: str) -> str:
    return jwt.encode({"sub": "x"}, key, algorithm=algorithm)
