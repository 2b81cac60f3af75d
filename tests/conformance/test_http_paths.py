"""Ways to write a path: which of them pass a denial of ``/secret``, and what the external service sees then."""

from __future__ import annotations

from typing import Any

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Mirror
from tests.conformance.http_one import OneConnection, connected, request
from tests.conformance.http_stand import answered, http, mirrored, permit
from tests.conformance.stand import Stand
from tests.support.mesh_client import Refused

TOPIC = "HTTP: paths"

BYPASSES: dict[str, tuple[str, str]] = {
    "/secret": ("403", "403"),
    "/secret/": ("403", "403"),
    "/secret?x=1": ("403", "403"),
    "/secret;x": ("403", "403"),
    "/secret%2fx": ("403", "403"),
    "/secret%00": ("403", "400"),
    "/secret/..": ("403", "/"),
    "/secret/%2e%2e/open": ("403", "/open"),
    "//secret": ("//secret", "403"),
    "/.//secret": ("/.//secret", "403"),
    "/./secret": ("/./secret", "403"),
    "/a/../secret": ("/a/../secret", "403"),
    "/a//../secret": ("/a//../secret", "/a/secret"),
    "/../secret": ("/../secret", "403"),
    "/%73ecret": ("/%73ecret", "403"),
    "/s%65cre%74": ("/s%65cre%74", "403"),
    "/a/%2e%2e/secret": ("/a/%2e%2e/secret", "403"),
    "/a/%2E./secret": ("/a/%2E./secret", "403"),
    "/a/..%2fsecret": ("/a/..%2fsecret", "400"),
    "/%2fsecret": ("/%2fsecret", "403"),
    "/a%2f..%2fsecret": ("/a%2f..%2fsecret", "400"),
    "/\\secret": ("/\\secret", "403"),
    "/a\\..\\secret": ("/a\\..\\secret", "403"),
    "/%5csecret": ("/%5csecret", "403"),
    "/%2573ecret": ("/%2573ecret", "403"),
    "/%252fsecret": ("/%252fsecret", "403"),
    "/a/..;/secret": ("/a/..;/secret", "400"),
    "/;x/secret": ("/;x/secret", "403"),
    "/%00secret": ("/%00secret", "400"),
    "/secret#x": ("400", "400"),
    "/open#/secret": ("400", "400"),
    "\\secret": ("400", "400"),
    "http://db.example/secret": ("403", "403"),
    "http://db.example//secret": ("//secret", "403"),
    "http://db.example/a/../secret": ("/a/../secret", "403"),
}
"""What each comes to in Envoy's gateway and in ours: a refusal, or the path that the external service saw."""

HARMLESS: dict[str, tuple[str, str]] = {
    "/open": ("/open", "/open"),
    "/Secret": ("/Secret", "/Secret"),
    "/open?/secret": ("/open?/secret", "/open?/secret"),
    "/open?x=../secret": ("/open?x=../secret", "/open?x=../secret"),
    "/%6fpen": ("/%6fpen", "/open"),
    "/a%2fb": ("/a%2fb", "/a%2Fb"),
    "/@scope%2Fname": ("/@scope%2Fname", "/@scope%2Fname"),
    "/a%20b": ("/a%20b", "/a%20b"),
    "/%7Euser": ("/%7Euser", "/~user"),
    "/%e2%82%ac": ("/%e2%82%ac", "/%E2%82%AC"),
    "/a+b,c:@!$&'()*;v=1": ("/a+b,c:@!$&'()*;v=1", "/a+b,c:@!$&'()*;v=1"),
    "/...": ("/...", "/..."),
    "/.hidden": ("/.hidden", "/.hidden"),
    "/open/.": ("/open/.", "/open/"),
    "/open//x": ("/open//x", "/open/x"),
    "/%zz": ("/%zz", "400"),
    "/%": ("/%", "400"),
}
"""The same, of paths that nothing denies."""


def of(table: dict[str, tuple[str, str]], ours: bool) -> dict[str, str]:
    return {path: values[ours] for path, values in table.items()}


async def guarded(stand: Stand) -> Mirror:
    """A service that denies ``/secret`` alone."""
    mirror = await mirrored(stand, wait=False)
    await permit(stand, "db", [http("deny", PathPrefix="/secret"), http("allow", PathPrefix="/")])
    await answered(stand, "403", request("GET /secret HTTP/1.1"))
    await answered(stand, "200")
    return mirror


async def come_to(stand: Stand, mirror: Mirror, table: Any) -> dict[str, str]:
    """What each path of ``table`` comes to."""
    facts = {}
    async with connected(stand) as kept:
        for path in table:
            data = request(f"GET {path} HTTP/1.1")
            answer = await _ask(stand, kept, data)
            facts[path] = mirror.last().path if answer == 200 else str(answer)
    return facts


async def _ask(stand: Stand, kept: OneConnection, data: bytes) -> int:
    """On the connection that is kept; on another one when it has been closed for an earlier answer."""
    try:
        return (await kept.ask(data)).status
    except (Refused, OSError):
        async with connected(stand) as connection:
            return (await connection.ask(data)).status


@conformance(
    TOPIC,
    "Other ways to write /secret, which is denied: Envoy lets them pass, this gateway reads them as the service may",
    envoy=of(BYPASSES, ours=False),
    ours=of(BYPASSES, ours=True),
    decision="041",
)
async def test_bypasses(stand: Stand) -> Observation:
    return await come_to(stand, await guarded(stand), BYPASSES)


@conformance(
    TOPIC,
    "Paths that nothing denies: Envoy passes on what came, this gateway the one form that it has decided about",
    envoy=of(HARMLESS, ours=False),
    ours=of(HARMLESS, ours=True),
    decision="041",
)
async def test_harmless(stand: Stand) -> Observation:
    return await come_to(stand, await guarded(stand), HARMLESS)


_STREAMS: dict[str, tuple[str, str]] = {
    path: BYPASSES[path] for path in ("/secret", "//secret", "/%73ecret", "/a/../secret", "/\\secret", "/a/..;/secret")
} | {"/secret#x": ("400", "reset PROTOCOL_ERROR")}


@conformance(
    TOPIC,
    "The same over HTTP/2",
    envoy=of(_STREAMS, ours=False),
    ours=of(_STREAMS, ours=True),
    decision="041",
)
async def test_http2(stand: Stand) -> Observation:
    mirror = await guarded(stand)
    facts = {}
    async with two.connected(stand) as connection:
        for path in _STREAMS:
            stream = await connection.ask(two.headers(path))
            facts[path] = mirror.last().path if stream.status == "200" else stream.outcome
    return facts


# --- settings of the mesh ------------------------------------------------------------------------------------

_ASKED = ("//secret", "/a/../secret", "/%73ecret", "/%2fsecret", "/a%2fb", "/open")


async def with_normalization(stand: Stand, **settings: Any) -> Observation:
    """What paths come to, and a header with an underscore, when the mesh entry says so."""
    await stand.agent.write_config({"Kind": "mesh", "HTTP": {"Incoming": {"RequestNormalization": settings}}})
    mirror = await guarded(stand)
    await stand.settled()
    facts = await come_to(stand, mirror, _ASKED)
    async with connected(stand) as connection:
        answer = await connection.ask(request("GET /score HTTP/1.1", "a_b: 1"))
    seen = mirror.of("/score")
    facts["a_b"] = ("passed on" if seen[-1].values("a_b") else "removed") if seen else str(answer.status)
    return facts


_IGNORED = {path: path for path in _ASKED} | {"a_b": "passed on"}


def setting(sentence: str, ours: dict[str, str], **settings: Any) -> Any:
    """A case of one RequestNormalization."""

    async def body(stand: Stand) -> Observation:
        return await with_normalization(stand, **settings)

    return conformance(TOPIC, sentence, envoy=_IGNORED, ours=ours, decision="041", own_consul={})(body)


_SECURE = {
    "//secret": "403",
    "/a/../secret": "403",
    "/%73ecret": "403",
    "/%2fsecret": "403",
    "/a%2fb": "/a%2Fb",
    "/open": "/open",
    "a_b": "passed on",
}

test_rejecting = setting(
    "RequestNormalization that rejects escaped slashes and underscores: Envoy's terminating gateway ignores it",
    _SECURE | {"/%2fsecret": "400", "/a%2fb": "400", "a_b": "400"},
    PathWithEscapedSlashesAction="REJECT_REQUEST",
    HeadersWithUnderscoresAction="REJECT_REQUEST",
)

test_unescaping = setting(
    "RequestNormalization that unescapes slashes and drops headers with underscores",
    _SECURE | {"/a%2fb": "/a/b", "a_b": "removed"},
    PathWithEscapedSlashesAction="UNESCAPE_AND_FORWARD",
    HeadersWithUnderscoresAction="DROP_HEADER",
    MergeSlashes=True,
)

test_redirecting = setting(
    "RequestNormalization that redirects to the unescaped path",
    _SECURE | {"/%2fsecret": "307", "/a%2fb": "307"},
    PathWithEscapedSlashesAction="UNESCAPE_AND_REDIRECT",
)

test_insecure = setting(
    "RequestNormalization turned off: paths are passed on as they came, permissions see all their readings still",
    _SECURE | {"/a%2fb": "/a%2fb"},
    InsecureDisablePathNormalization=True,
    MergeSlashes=False,
)
