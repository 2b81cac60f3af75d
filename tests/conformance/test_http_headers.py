"""Which headers reach the external service, and which come back."""

from __future__ import annotations

import re

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Seen, passed, says
from tests.conformance.http_one import ask, connected, request, said
from tests.conformance.http_stand import mirrored
from tests.conformance.stand import Stand

TOPIC = "HTTP: headers"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
OWN = ("host", "x-forwarded-proto", "x-request-id", "x-forwarded-client-cert", "x-envoy-expected-rq-timeout-ms")
"""What every request has that leaves the gateway."""


@conformance(
    TOPIC,
    "A plain request: what is added to it, and what to its response",
    envoy={
        "request": "GET /plain?q=1 HTTP/1.1",
        "its headers": sorted([*OWN, "accept"]),
        "host": "db.example",
        "x-forwarded-proto": "https",
        "x-request-id is a UUID": True,
        "x-envoy-expected-rq-timeout-ms": "15000",
        "response": "HTTP/1.1 200 OK",
        "its headers too": ["content-length", "content-type", "date", "server", "x-envoy-upstream-service-time"],
        "server": "envoy",
    },
    ours={
        "request": "GET /plain?q=1 HTTP/1.1",
        "its headers": sorted([*OWN[:-1], "accept"]),
        "host": "db.example",
        "x-forwarded-proto": "https",
        "x-request-id is a UUID": True,
        "x-envoy-expected-rq-timeout-ms": "",
        "response": "HTTP/1.1 200 OK",
        "its headers too": ["content-length", "content-type", "date"],
        "server": "",
    },
    decision="039",
)
async def test_plain(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    answer = await ask(stand, request("GET /plain?q=1 HTTP/1.1", "Accept: */*"))
    seen = mirror.last("/plain")
    return {
        "request": seen.line,
        "its headers": seen.names,
        "host": seen.value("host"),
        "x-forwarded-proto": seen.value("x-forwarded-proto"),
        "x-request-id is a UUID": bool(_UUID.fullmatch(seen.value("x-request-id"))),
        "x-envoy-expected-rq-timeout-ms": seen.value("x-envoy-expected-rq-timeout-ms"),
        "response": answer.line,
        "its headers too": answer.names,
        "server": answer.value("server"),
    }


KEPT = {
    "user-agent": "UA/1",
    "accept-encoding": "gzip",
    "authorization": "Bearer t",
    "x-mixed-case": "v",
    "x-empty": "",
    "under_score": "1",
    "x-forwarded-for": "192.0.2.1",
    "x-forwarded-proto": "http",
    "x-forwarded-host": "h.example",
    "x-forwarded-port": "1",
    "x-request-id": "mine",
    "via": "1.1 me",
    "forwarded": "for=192.0.2.1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=b",
    "baggage": "k=v",
    "x-b3-traceid": "463ac35c9f6413ad48485a3953bb6124",
    "date": "today",
    "server": "mine",
    "priority": "u=1",
    "max-forwards": "3",
    "early-data": "1",
}
REMOVED = {
    "x-envoy-internal": "true",
    "x-envoy-upstream-rq-timeout-ms": "5",
    "x-envoy-retry-on": "5xx",
    "x-envoy-max-retries": "3",
    "keep-alive": "timeout=5",
    "proxy-connection": "keep-alive",
}


@conformance(
    TOPIC,
    "A client's headers are passed on as they are; forwarding and tracing headers are neither trusted nor rewritten",
    expect=KEPT,
)
async def test_kept(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    lines = [f"{name.title()}: {value}" for name, value in KEPT.items()]
    await ask(stand, request("GET /all HTTP/1.1", *lines))
    return passed(mirror.last("/all"), KEPT)


@conformance(
    TOPIC,
    "Over HTTP/2, from client to external service, the same headers are passed on",
    expect=KEPT,
)
async def test_kept_over_http2(stand: Stand) -> Observation:
    mirror = await mirrored(stand, protocol="http2")
    await two.ask(stand, two.headers("/all", *KEPT.items()))
    return passed(mirror.last("/all"), KEPT)


FROM_ENVOYS = {"x-envoy-original-path": "/o", "x-envoy-external-address": "192.0.2.9", "x-envoy-foo": "1"}


@conformance(
    TOPIC,
    "Headers with which Envoys talk to each other: Envoy's gateway passes on those that steer nothing, this one none",
    envoy=FROM_ENVOYS,
    ours=dict.fromkeys(FROM_ENVOYS, "-"),
    decision="039",
)
async def test_from_envoys(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    await ask(stand, request("GET /all HTTP/1.1", *(f"{name}: {value}" for name, value in FROM_ENVOYS.items())))
    return passed(mirror.last("/all"), FROM_ENVOYS)


@conformance(
    TOPIC,
    "Headers that steer an Envoy, and those for one connection alone, end at the gateway",
    expect=dict.fromkeys(REMOVED, "-"),
)
async def test_removed(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    await ask(stand, request("GET /all HTTP/1.1", *(f"{name}: {value}" for name, value in REMOVED.items())))
    return passed(mirror.last("/all"), REMOVED)


@conformance(
    TOPIC,
    "Connection: the headers that it names end at the gateway, and TE says trailers or nothing",
    envoy={
        "Connection: x-a, x-b": {"x-a": "-", "x-b": "-", "authorization": "Bearer t"},
        "Connection: close": {"x-a": "1", "x-b": "2", "authorization": "Bearer t"},
        "Connection: authorization": {"x-a": "1", "x-b": "2", "authorization": "-"},
        "Connection: host": "400",
        "TE: trailers, deflate": "trailers",
        "TE: gzip": "-",
    },
    ours={
        "Connection: x-a, x-b": {"x-a": "-", "x-b": "-", "authorization": "Bearer t"},
        "Connection: close": {"x-a": "1", "x-b": "2", "authorization": "Bearer t"},
        "Connection: authorization": "400",
        "Connection: host": "400",
        "TE: trailers, deflate": "trailers",
        "TE: gzip": "-",
    },
    decision="033",
)
async def test_connection(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    more = ("X-A: 1", "X-B: 2", "Authorization: Bearer t")
    names = ("x-a", "x-b", "authorization")
    facts: dict[str, object] = {}
    for named in ("x-a, x-b", "close", "authorization"):
        status = await said(stand, request("GET /named HTTP/1.1", f"Connection: {named}", *more))
        facts[f"Connection: {named}"] = passed(mirror.last("/named"), names) if status == "200" else status
    facts["Connection: host"] = await said(stand, request("GET / HTTP/1.1", "Connection: host"))
    for codings in ("trailers, deflate", "gzip"):
        await ask(stand, request("GET /te HTTP/1.1", f"TE: {codings}"))
        facts[f"TE: {codings}"] = passed(mirror.last("/te"), ["te"])["te"]
    return facts


@conformance(
    TOPIC,
    "A header on several lines, and cookies, by the versions that they pass through",
    envoy={
        "accept, HTTP/1.1 to HTTP/1.1": "a,b",
        "x-tag, HTTP/1.1 to HTTP/1.1": "a + b",
        "cookie, HTTP/1.1 to HTTP/1.1": "a=1 + b=2",
        "cookie, HTTP/1.1 to HTTP/2": "a=1; b=2",
        "cookie, HTTP/2 to HTTP/1.1": "a=1; b=2",
        "cookie, HTTP/2 to HTTP/2": "a=1; b=2",
    },
    ours={
        "accept, HTTP/1.1 to HTTP/1.1": "a + b",
        "x-tag, HTTP/1.1 to HTTP/1.1": "a + b",
        "cookie, HTTP/1.1 to HTTP/1.1": "a=1 + b=2",
        "cookie, HTTP/1.1 to HTTP/2": "a=1; b=2",
        "cookie, HTTP/2 to HTTP/1.1": "a=1; b=2",
        "cookie, HTTP/2 to HTTP/2": "a=1; b=2",
    },
    decision="039",
)
async def test_several_lines(stand: Stand) -> Observation:
    one = await mirrored(stand)
    other = await mirrored(stand, "two", protocol="http2")
    lines = ("Accept: a", "Accept: b", "X-Tag: a", "X-Tag: b", "Cookie: a=1", "Cookie: b=2")
    cookies = two.headers("/h2", ("cookie", "a=1"), ("cookie", "b=2"))
    for service in ("db", "two"):
        await ask(stand, request("GET /h1 HTTP/1.1", *lines), service)
        await two.ask(stand, cookies, service=service)

    def of(seen: Seen, name: str) -> str:
        return passed(seen, [name])[name]

    return {
        "accept, HTTP/1.1 to HTTP/1.1": of(one.last("/h1"), "accept"),
        "x-tag, HTTP/1.1 to HTTP/1.1": of(one.last("/h1"), "x-tag"),
        "cookie, HTTP/1.1 to HTTP/1.1": of(one.last("/h1"), "cookie"),
        "cookie, HTTP/1.1 to HTTP/2": of(other.last("/h1"), "cookie"),
        "cookie, HTTP/2 to HTTP/1.1": of(one.last("/h2"), "cookie"),
        "cookie, HTTP/2 to HTTP/2": of(other.last("/h2"), "cookie"),
    }


# --- the response --------------------------------------------------------------------------------------------

_RESPONSE = (
    b"HTTP/1.1 200 Quite Fine\r\nServer: nginx\r\nDate: yesterday\r\nX-Mixed: A\r\n"
    b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nVia: 1.1 up\r\n"
    b"Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=3\r\nX-Envoy-Foo: 1\r\n"
    b"X-Envoy-Upstream-Service-Time: 999999\r\nProxy-Authenticate: Basic\r\nX-Request-Id: r\r\nunder_score: 2\r\n"
    b"Content-Length: 2\r\n\r\nok"
)
_SHOWN = (
    "server",
    "date",
    "x-mixed",
    "set-cookie",
    "via",
    "connection",
    "x-hop",
    "keep-alive",
    "x-envoy-foo",
    "proxy-authenticate",
    "x-request-id",
    "under_score",
)


@conformance(
    TOPIC,
    "The headers of a response come back as they are, but for those of its connection",
    envoy={
        "status line": "HTTP/1.1 200 OK",
        "server": "envoy",
        "date": "yesterday",
        "x-mixed": "A",
        "set-cookie": "a=1 + b=2",
        "via": "1.1 up",
        "connection": "-",
        "x-hop": "1",
        "keep-alive": "-",
        "x-envoy-foo": "1",
        "proxy-authenticate": "Basic",
        "x-request-id": "r",
        "under_score": "2",
        "x-envoy-upstream-service-time": "the gateway's",
        "names are lower case": True,
        "the same over HTTP/2": True,
    },
    ours={
        "status line": "HTTP/1.1 200 Quite Fine",
        "server": "nginx",
        "date": "yesterday",
        "x-mixed": "A",
        "set-cookie": "a=1 + b=2",
        "via": "1.1 up",
        "connection": "-",
        "x-hop": "-",
        "keep-alive": "-",
        "x-envoy-foo": "1",
        "proxy-authenticate": "Basic",
        "x-request-id": "r",
        "under_score": "2",
        "x-envoy-upstream-service-time": "the external service's",
        "names are lower case": True,
        "the same over HTTP/2": True,
    },
    decision="039",
)
async def test_response(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    mirror.scripts["/"] = says(_RESPONSE)
    answer = await ask(stand, request())
    stream = await two.ask(stand, two.headers())
    time = answer.value("x-envoy-upstream-service-time")
    shown = {name: " + ".join(answer.values(name)) or "-" for name in _SHOWN}
    other = {name: " + ".join(value for key, value in stream.headers if key == name) or "-" for name in _SHOWN}
    return {
        "status line": answer.line,
        **shown,
        "x-envoy-upstream-service-time": "the external service's" if time == "999999" else "the gateway's",
        "names are lower case": all(name == name.lower() for name in answer.names),
        "the same over HTTP/2": shown == other,
    }


@conformance(
    TOPIC,
    "Connection: close of a response concerns the external service's connection, not the client's",
    expect={"passed on": "", "a further request": 200, "connections to the external service": 2},
)
async def test_upstream_closes(stand: Stand) -> Observation:
    mirror = await mirrored(stand)
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    mirror.scripts["/close"] = says(closing, then="close")
    async with connected(stand) as connection:
        closed = await connection.ask(request("GET /close HTTP/1.1"))
        after = await connection.ask(request("GET /after HTTP/1.1"))
    return {
        "passed on": closed.value("connection"),
        "a further request": after.status,
        "connections to the external service": mirror.last("/after").connection - mirror.last("/close").connection + 1,
    }
