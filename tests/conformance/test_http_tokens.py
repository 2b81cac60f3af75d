"""Intentions that ask for a JSON Web Token: real ones, signed here, against a provider with local keys.

Envoy's terminating gateway gets no filter that would read a token, so that such an intention never matches there.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_one import ENDED, request, said
from tests.conformance.http_stand import answered, http, mirrored, permit, reached
from tests.conformance.stand import Stand
from tests.support.eventually import eventually

TOPIC = "HTTP: tokens"
ISSUER, AUDIENCE = "https://issuer.example", "db"
_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
_CURVE_KEY = ec.generate_private_key(ec.SECP256R1())


def token(key: Any = _KEY, kid: str = "one", algorithm: str = "RS256", **changes: Any) -> str:
    """A token that is good for an hour but for ``changes`` (``None`` takes a claim away)."""
    claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 3600, "role": "admin", "org": {"unit": "it"}}
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})


def _part(value: Mapping[str, Any]) -> str:
    """One of a token's three parts."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _keys() -> str:
    keys = []
    for kid, key, algorithm in (("one", _KEY, "RS256"), ("curve", _CURVE_KEY, "ES256")):
        public = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
        keys.append(public | {"kid": kid, "use": "sig", "alg": algorithm})
    return base64.b64encode(json.dumps({"keys": keys}).encode()).decode()


def provider(**fields: Any) -> dict[str, Any]:
    """A ``jwt-provider`` entry with local keys."""
    return {
        "Kind": "jwt-provider",
        "Name": "partner",
        "Issuer": ISSUER,
        "Audiences": [AUDIENCE],
        "JSONWebKeySet": {"Local": {"JWKS": _keys()}},
        **fields,
    }


def bearing(value: str, path: str = "/") -> bytes:
    return request(f"GET {path} HTTP/1.1", f"Authorization: Bearer {value}")


async def taken_over(stand: Stand, data: bytes, service: str = "db") -> None:
    """Wait until ours lets that request through; Envoy's never will: until it is at rest."""
    if stand.is_envoy:
        await stand.settled()
        return

    async def let_through() -> bool:
        return await said(stand, data, service) == "200"

    await eventually(let_through, 60.0, what="the token is accepted")


PARTNER = {"Providers": [{"Name": "partner"}]}
ADMINS = {"Providers": [{"Name": "partner", "VerifyClaims": [{"Path": ["role"], "Value": "admin"}]}]}
_TOKENS: Mapping[str, str] = {
    "good": "200",
    "ES256": "200",
    "several audiences, ours among them": "200",
    "none": "401",
    "of another key": "401",
    "of an unknown kid": "401",
    "expired": "401",
    "not yet valid": "401",
    "of another issuer": "401",
    "for another audience": "401",
    "without a signature": "401",
    "changed": "401",
    "not a token": "401",
}


@conformance(
    TOPIC,
    "An intention whose JWT asks for a provider: Envoy's gateway does not take the service over, here tokens decide",
    envoy={**dict.fromkeys(_TOKENS, ENDED), "over HTTP/2": ENDED},
    ours={**_TOKENS, "over HTTP/2": "200"},
    decision="042",
    own_consul={},
)
async def test_intention(stand: Stand) -> Observation:
    await stand.agent.write_config(provider())
    await mirrored(stand, source="")
    await stand.config(
        "service-intentions",
        "db",
        JWT=PARTNER,
        Sources=[{"Name": stand.named("web"), "Action": "allow"}],
    )
    await taken_over(stand, bearing(token()))
    head, payload, signature = token().split(".")
    unsigned = _part({"alg": "none"})
    claims = _part({"iss": ISSUER, "aud": AUDIENCE, "exp": 4102444800})
    tokens = {
        "good": token(),
        "ES256": token(_CURVE_KEY, "curve", "ES256"),
        "several audiences, ours among them": token(aud=["other", AUDIENCE]),
        "of another key": token(_OTHER_KEY),
        "of an unknown kid": token(kid="nobody"),
        "expired": token(exp=int(time.time()) - 3600),
        "not yet valid": token(nbf=int(time.time()) + 3600),
        "of another issuer": token(iss="https://evil.example"),
        "for another audience": token(aud="other"),
        "without a signature": f"{unsigned}.{payload}.",
        "changed": f"{head}.{claims}.{signature}",
        "not a token": "abc",
    }
    facts = {name: await said(stand, bearing(value)) for name, value in tokens.items()}
    facts["none"] = await said(stand, request())
    pairs = two.headers("/", ("authorization", f"Bearer {token()}"))
    return facts | {"over HTTP/2": await two.outcome(stand, pairs)}


_LOCATED: Mapping[str, str] = {
    "claims met": "200",
    "claims not met": "403",
    "a nested claim met": "200",
    "a nested claim not met": "403",
    "the path that asks for nothing": "200",
    "in x-token": "200",
    "in a query parameter": "200",
    "in a cookie": "200",
    "in authorization, which is no location": "401",
    "forwarded": "-",
    "payload": "admin",
}


@conformance(
    TOPIC,
    "Permissions that ask for claims, and tokens in headers, query and cookies; the payload in a header of its own",
    envoy=dict.fromkeys(_LOCATED, ENDED) | {"forwarded": "nothing came", "payload": "-"},
    ours=_LOCATED,
    decision="042",
    own_consul={},
)
async def test_permissions(stand: Stand) -> Observation:
    locations = [
        {"Header": {"Name": "x-token", "ValuePrefix": "Token "}},
        {"QueryParam": {"Name": "token"}},
        {"Cookie": {"Name": "token"}},
    ]
    await stand.agent.write_config(provider(Locations=locations, Forwarding={"HeaderName": "x-payload"}))
    mirror = await mirrored(stand, source="")
    nested = {"Providers": [{"Name": "partner", "VerifyClaims": [{"Path": ["org", "unit"], "Value": "it"}]}]}
    permissions = [
        {**http("allow", PathPrefix="/admin"), "JWT": ADMINS},
        {**http("allow", PathPrefix="/unit"), "JWT": nested},
        http("allow", PathPrefix="/open"),
    ]
    await permit(stand, "db", permissions)

    def held(value: str, path: str) -> bytes:
        return request(f"GET {path} HTTP/1.1", f"X-Token: Token {value}")

    await taken_over(stand, held(token(), "/admin"))
    facts = {
        "claims met": await said(stand, held(token(), "/admin")),
        "claims not met": await said(stand, held(token(role="guest"), "/admin")),
        "a nested claim met": await said(stand, held(token(), "/unit")),
        "a nested claim not met": await said(stand, held(token(org={"unit": "hr"}), "/unit")),
        "the path that asks for nothing": await said(stand, request("GET /open HTTP/1.1")),
        "in x-token": await said(stand, held(token(), "/admin")),
        "in a query parameter": await said(stand, request(f"GET /admin?token={token()} HTTP/1.1")),
        "in a cookie": await said(stand, request("GET /admin HTTP/1.1", f"Cookie: a=b; token={token()}")),
        "in authorization, which is no location": await said(stand, bearing(token(), "/admin")),
    }
    await said(stand, held(token(), "/admin/forwarded"))
    seen = mirror.of("/admin/forwarded")
    payload = seen[-1].value("x-payload") if seen else ""
    padded = payload + "=" * (-len(payload) % 4)
    facts["forwarded"] = (seen[-1].value("x-token") or "-") if seen else "nothing came"
    facts["payload"] = json.loads(base64.urlsafe_b64decode(padded))["role"] if payload else "-"
    return facts


@conformance(
    TOPIC,
    "A service that was open gets an intention with a JWT: Envoy's gateway leaves it open, and takes over nothing more",
    envoy={"with a token": "200", "without": "200", "a service linked later": ENDED},
    ours={"with a token": "200", "without": "401", "a service linked later": "200"},
    decision="042",
    own_consul={},
)
async def test_later(stand: Stand) -> Observation:
    await stand.agent.write_config(provider())
    await mirrored(stand, source="")
    await permit(stand, "db", [http("allow", PathPrefix="/")])
    await reached(stand)
    await permit(stand, "db", [{**http("allow", PathPrefix="/"), "JWT": PARTNER}])
    await mirrored(stand, "later", wait=False)
    if not stand.is_envoy:
        await answered(stand, "401")
        await reached(stand, "later")
    await stand.settled()
    return {
        "with a token": await said(stand, bearing(token())),
        "without": await said(stand, request()),
        "a service linked later": await said(stand, request(), "later"),
    }
