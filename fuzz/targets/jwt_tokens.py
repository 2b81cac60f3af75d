"""A token is accepted only when a key of the provider has signed it, unchanged, and PyJWT and a plain look at its times
agree."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from fuzz.draw import Draw
from proxy.http.message import RequestHead, Version
from proxy.http.policy.token_keys import read_keys
from proxy.http.policy.tokens import Accepted, Verifier
from proxy.rules import ClaimMatch, TokenLocation, TokenProvider

CODE = ("proxy.http.policy.tokens", "proxy.http.policy.token_keys", "proxy.http.policy.token_places")

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_PUBLIC: dict[str, Any] = OKPAlgorithm.to_jwk(_KEY.public_key(), as_dict=True)
_NOW_S = 1_700_000_000.0
_ISSUER, _AUDIENCE = "https://issuer.example/", "api"
_CLAIMS = {"iss": _ISSUER, "aud": _AUDIENCE, "exp": 1_700_000_100, "nbf": 1_699_999_900, "role": ["user"]}
_GOOD = jwt.encode(_CLAIMS, _KEY, "EdDSA").encode()
_PROVIDER = TokenProvider(
    name="okta",
    issuer=_ISSUER,
    audiences=(_AUDIENCE,),
    locations=(
        TokenLocation(header="authorization", prefix="Bearer"),
        TokenLocation(query_parameter="token"),
        TokenLocation(cookie="jwt"),
    ),
    clock_skew_s=30.0,
    forward_header="x-claims",
    keys_json=json.dumps({"keys": [_PUBLIC]}),
)


def run(data: bytes) -> None:
    draw = Draw(data)
    match draw.below(4):
        case 0:
            _changed(draw)
        case 1:
            _signed(draw)
        case 2:
            _placed(draw)
        case _:
            read_keys(draw.rest().decode("utf-8", "replace"))


def _changed(draw: Draw) -> None:
    """A good token with some bytes replaced is good only when they are what was there."""
    at, length, instead = draw.below(256), draw.below(4), draw.rest()
    token = _GOOD[:at] + instead + _GOOD[at + length :]
    assert _accepts(_bearer(token)) is (token.strip(b" \t") == _GOOD)


def _signed(draw: Draw) -> None:
    """Whatever header and payload, well signed."""
    if draw.truth():
        header, payload = draw.take(draw.below(64)), draw.rest()
    else:
        header = b'{"alg":"EdDSA"}'
        claims = {
            name: draw.choice(values)
            for name, values in (
                ("iss", (_ISSUER, "x", None, [_ISSUER])),
                ("aud", (_AUDIENCE, ["x", _AUDIENCE], "x", None, 7)),
                ("exp", (_NOW_S, _NOW_S - 29, _NOW_S - 30, 1e300, "1", True, None)),
                ("nbf", (_NOW_S, _NOW_S + 30, _NOW_S + 31, "1", None)),
            )
            if draw.below(5)
        }
        payload = json.dumps(claims).encode()
    signing_input = _segment(header) + b"." + _segment(payload)
    token = signing_input + b"." + _segment(_KEY.sign(signing_input))
    if not _accepts(_bearer(token)):
        return
    # Of the time, PyJWT asks the clock.
    options: Any = {
        "verify_exp": False,
        "verify_nbf": False,
        "verify_iat": False,
        "verify_sub": False,
        "verify_jti": False,
    }
    found: dict[str, Any] = jwt.decode(token, _KEY.public_key(), ["EdDSA"], options, issuer=_ISSUER, audience=_AUDIENCE)
    for name, limit in (("exp", _NOW_S - 30), ("nbf", _NOW_S + 30)):
        if name in found:
            value = found[name]
            assert type(value) in (int, float)
            assert value > limit if name == "exp" else value <= limit


def _placed(draw: Draw) -> None:
    """Wherever bytes of the client stand around it, another token beside it is never overlooked."""
    head = _bearer(_GOOD)
    kind, other = draw.below(3), draw.rest().replace(b"\r", b"").replace(b"\n", b"")
    if kind == 0:
        head.target = b"/?" + other.replace(b"#", b"")
    elif kind == 1:
        head.headers.append((b"cookie", other))
    else:
        head.headers.append((b"authorization", other))
    accepted = _accepts(head)
    if kind == 2:
        assert not accepted
    elif not accepted:
        assert b"token" in other or b"%" in other or b"jwt" in other


def _accepts(head: RequestHead) -> bool:
    verifier = Verifier(_PROVIDER)
    verdicts = [verifier.check(head, claims, _NOW_S) for claims in ((), (ClaimMatch(("role",), "root"),))]
    again = verifier.check(head, (), _NOW_S)
    assert type(again) is type(verdicts[0])
    accepted = isinstance(verdicts[0], Accepted)
    if isinstance(verdicts[1], Accepted):
        assert accepted
    return accepted


def _bearer(token: bytes) -> RequestHead:
    return RequestHead(b"GET", b"/", b"api", Version.HTTP_1_1, [(b"authorization", b"Bearer " + token)])


def _segment(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
