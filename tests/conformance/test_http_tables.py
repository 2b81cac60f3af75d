"""What Consul's own integration tests of permissions and of RequestNormalization expect of a sidecar."""

from __future__ import annotations

from typing import Any

from tests.conformance.case import Observation, conformance
from tests.conformance.http_one import connected, request, said
from tests.conformance.http_stand import answered, http, mirrored, permit
from tests.conformance.stand import Stand

TOPIC = "HTTP: Consul's tables"
ALLOWED: dict[str, str] = {
    "GET /exact": "200",
    "GET /exact-not": "403",
    "GET /prefix": "200",
    "GET /no-prefix": "403",
    "GET /regex": "200",
    "GET /reggex": "403",
    "GET /present x-debug: anything": "200",
    "GET /present": "403",
    "GET /value x-debug: value": "200",
    "GET /value x-debug: value-not": "403",
    "GET /begins x-debug: prefix": "200",
    "GET /begins x-debug: no-prefix": "403",
    "GET /ends x-debug: suffix": "200",
    "GET /ends x-debug: suffix-not": "403",
    "GET /matches x-debug: regex": "200",
    "GET /matches x-debug: reggex": "403",
    "GET /methods": "200",
    "PUT /methods": "200",
    "POST /methods": "403",
    "HEAD /methods": "403",
}


def headed(path: str, **how: Any) -> dict[str, Any]:
    return http("allow", PathExact=path, Header=[{"Name": "x-debug", **how}])


@conformance(TOPIC, "One intention with every kind of match, in a mesh that denies", expect=ALLOWED)
async def test_permissions(stand: Stand) -> Observation:
    await mirrored(stand, source="")
    permissions = [
        http("allow", PathExact="/exact"),
        http("allow", PathPrefix="/prefix"),
        http("allow", PathRegex="/reg[ex]{2}"),
        headed("/present", Present=True),
        headed("/value", Exact="value"),
        headed("/begins", Prefix="prefi"),
        headed("/ends", Suffix="uffix"),
        headed("/matches", Regex="reg[ex]{2}"),
        http("allow", PathExact="/methods", Methods=["GET", "PUT"]),
    ]
    await permit(stand, "db", permissions)
    await answered(stand, "200", request("GET /exact HTTP/1.1"))
    facts = {}
    for asked in ALLOWED:
        method, path, *rest = asked.split(" ", 2)
        facts[asked] = await said(stand, request(f"{method} {path} HTTP/1.1", *rest))
    return facts


# As a sidecar normalises: the path that the service sees, or the refusal. What Envoy's gateway makes of it comes first.
NORMALIZED: dict[str, tuple[str, str]] = {
    "/foo": ("/foo", "/foo"),
    "/value/foo": ("/value/foo", "/value/foo"),
    "/foo/secret": ("/foo/secret", "/foo/secret"),
    "/value/secret": ("403", "403"),
    "/value/secret?": ("403", "403"),
    "/value//secret": ("/value//secret", "403"),
    "/value///secret": ("/value///secret", "403"),
    "/value//foo": ("/value//foo", "/value/foo"),
    "/value///foo": ("/value///foo", "/value/foo"),
    "/value%2Fsecret": ("/value%2Fsecret", "403"),
    "/value/%73ecret": ("/value/%73ecret", "403"),
    "/value%2Ffoo": ("/value%2Ffoo", "/value/foo"),
    "/value/%66oo": ("/value/%66oo", "/value/foo"),
    "/value\\secret": ("/value\\secret", "403"),
    "/value\\\\secret": ("/value\\\\secret", "403"),
    "/value\\/secret": ("/value\\/secret", "403"),
    "/value/\\/secret": ("/value/\\/secret", "403"),
    "/value\\foo": ("/value\\foo", "/value/foo"),
    "/value\\\\foo": ("/value\\\\foo", "/value/foo"),
    "/value/\\/foo": ("/value/\\/foo", "/value/foo"),
}
CHECKED: dict[str, tuple[str, str]] = {
    "x_poison: anything": ("200", "400"),
    "x_check: bad": ("200", "400"),
    "x-check: this has bad in it": ("403", "403"),
    "x-check: exactWORSE": ("403", "403"),
    "x-check: good-sUFworse": ("403", "403"),
    "x-check: PREworse-good": ("403", "403"),
    "x-check: this has BaD in it": ("403", "403"),
    "Host: foo.WORSE.example": ("403", "403"),
    "Host: good.example": ("200", "200"),
}


def ignoring_case(name: str, **how: str) -> dict[str, Any]:
    return http("deny", Header=[{"Name": name, "IgnoreCase": True, **how}])


@conformance(
    TOPIC,
    "RequestNormalization and comparisons without case, in a mesh that allows: here as in a sidecar",
    envoy={name: values[0] for name, values in (NORMALIZED | CHECKED).items()},
    ours={name: values[1] for name, values in (NORMALIZED | CHECKED).items()},
    decision="041",
    own_consul={"acl": False},
)
async def test_normalization(stand: Stand) -> Observation:
    normalization = {
        "MergeSlashes": True,
        "PathWithEscapedSlashesAction": "UNESCAPE_AND_FORWARD",
        "HeadersWithUnderscoresAction": "REJECT_REQUEST",
    }
    await stand.agent.write_config({"Kind": "mesh", "HTTP": {"Incoming": {"RequestNormalization": normalization}}})
    mirror = await mirrored(stand, source="")
    permissions = [
        http("deny", PathExact="/value/secret"),
        ignoring_case("x-check", Contains="bad"),
        ignoring_case("x-check", Exact="exactworse"),
        ignoring_case("x-check", Prefix="preworse-"),
        ignoring_case("x-check", Suffix="-sufworse"),
        ignoring_case("Host", Suffix="worse.example"),
    ]
    await permit(stand, "db", permissions)
    await answered(stand, "403", request("GET /value/secret HTTP/1.1"))
    await stand.settled()
    facts = {}
    async with connected(stand) as connection:
        for path in NORMALIZED:
            answer = await connection.ask(request(f"GET {path} HTTP/1.1"))
            facts[path] = mirror.last().path if answer.status == 200 else str(answer.status)
    for line in CHECKED:
        host = line.removeprefix("Host: ") if line.startswith("Host: ") else "db.example"
        lines = () if line.startswith("Host: ") else (line,)
        facts[line] = await said(stand, request("GET /foo HTTP/1.1", *lines, host=host))
    return facts
