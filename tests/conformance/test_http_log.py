"""``AccessLogs`` of proxy-defaults for requests: the same format gives the same line."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, says, silence
from tests.conformance.http_one import ask, request, said
from tests.conformance.http_stand import answered, http, mirrored, permit
from tests.conformance.stand import Stand
from tests.conformance.test_access_log import before, log_of, plain
from tests.support.eventually import eventually

TOPIC = "HTTP: access log"
Send = Callable[[], Awaitable[object]]
_TEXT = (
    "LINE %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL% code=%RESPONSE_CODE% flags=%RESPONSE_FLAGS%"
    " why=%RESPONSE_CODE_DETAILS% received=%BYTES_RECEIVED% sent=%BYTES_SENT% host=%REQ(:AUTHORITY)%"
    " agent=%REQ(USER-AGENT)% for=%REQ(X-FORWARDED-FOR)% id=%REQ(X-REQUEST-ID)% kind=%RESP(CONTENT-TYPE)%"
    " to=%UPSTREAM_HOST% cluster=%UPSTREAM_CLUSTER% route=%ROUTE_NAME% by=%DOWNSTREAM_PEER_URI_SAN%"
    " name=%REQUESTED_SERVER_NAME% end=%CONNECTION_TERMINATION_DETAILS% trailer=%TRAILER(GRPC-STATUS)%"
    " cut=%REQ(USER-AGENT):2%"
)
_CLUSTER = "db.default.dc1.internal.CLUSTER.consul"
_WEB = "spiffe://CLUSTER.consul/ns/default/dc/dc1/svc/web"


async def lines_of(stand: Stand, requests: Mapping[str, tuple[Send, str]]) -> dict[str, str]:
    """The line of each request, by a regular expression of it, without what differs by its nature. All are made before
    the first is looked for: Envoy writes its lines every ten seconds."""
    start = log_of(stand).stat().st_size
    for send, _ in requests.values():
        await send()
    found: dict[str, str] = {}

    def written() -> bool:
        lines = [line for line in log_of(stand).read_bytes()[start:].decode().splitlines(keepends=True)]
        for name, (_, wanted) in requests.items():
            matching = [line for line in lines if line.endswith("\n") and re.search(wanted, line)]
            if matching:
                found[name] = re.sub(r"-[eo]\d+(?=_)", "", plain(stand, matching[0]))
        return len(found) == len(requests)

    await eventually(written, what=f"{len(requests)} lines; there are those of {sorted(found)}")
    return {name: found[name] for name in requests}


async def _answers(exchange: Exchange) -> bool:
    await exchange.read_body()
    await exchange.write(b"HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
    return True


async def offered(stand: Stand) -> None:
    """A service with a short timeout that denies ``/secret``."""
    await stand.config("service-resolver", "db", RequestTimeout="1s")
    mirror = await mirrored(stand, wait=False)
    mirror.scripts |= {
        "/made": _answers,
        "/slow": silence,
        "/lost": says(b"", then="close"),
        "/bad": says(b"garbage\r\n\r\n", then="close"),
    }
    await permit(stand, "db", [http("deny", PathPrefix="/secret"), http("allow", PathPrefix="/")])
    await answered(stand, "403", request("GET /secret/ready HTTP/1.1"))
    await stand.settled()


_AGENT = ("User-Agent: curl/8", "X-Forwarded-For: 192.0.2.1", "X-Request-Id: mine")


def _line(text: str, code: str, flags: str, why: str, sizes: str, **other: str) -> str:
    """A line of :data:`_TEXT`."""
    facts = {
        "host": "db.example",
        "agent": "curl/8",
        "for": "192.0.2.1",
        "id": "mine",
        "kind": "text/plain",
        "to": "BACKEND",
        "cluster": _CLUSTER,
        "route": "-",
        "by": _WEB,
        "name": _CLUSTER,
        "end": "-",
        "trailer": "-",
        "cut": "cu",
    } | other
    received, sent = sizes.split()
    rest = " ".join(f"{name}={value}" for name, value in facts.items())
    return f"LINE {text} code={code} flags={flags} why={why} received={received} sent={sent} {rest}"


_LINES = {
    "allowed": _line("POST /made?q=1 HTTP/1.1", "201", "-", "via_upstream", "3 5"),
    "over HTTP/2": _line("POST /made?q=1 HTTP/2", "201", "-", "via_upstream", "3 5"),
    "denied": _line(
        "GET /secret HTTP/1.1", "403", "-", "rbac_access_denied_matched_policy[none]", "0 19", kind="text/plain", to="-"
    ),
    "timed out": _line("GET /slow HTTP/1.1", "504", "UT", "response_timeout", "0 24"),
    "ended by the service": _line(
        "GET /lost HTTP/1.1", "503", "UC", "upstream_reset_before_response_started{connection_termination}", "0 95"
    ),
    "not HTTP": _line(
        "GET /bad HTTP/1.1", "502", "UPE", "upstream_reset_before_response_started{protocol_error}", "0 87"
    ),
    "not a request": (
        "LINE - - HTTP/1.1 code=400 flags=DPE why=http1.codec_error received=0 sent=11 host=- agent=- for=- id=-"
        f" kind=text/plain to=- cluster=- route=- by={_WEB} name={_CLUSTER} end=- trailer=- cut=-"
    ),
}


_OUR_LINES = _LINES | {
    "denied": _LINES["denied"].replace("[none]", "[web_=>_db]"),
    "ended by the service": _LINES["ended by the service"].replace(
        "upstream_reset_before_response_started{connection_termination}", "upstream_reset"
    ),
    "not HTTP": _LINES["not HTTP"].replace("upstream_reset_before_response_started{protocol_error}", "bad_response"),
    "not a request": (
        "LINE - - - code=400 flags=DPE why=bad_request received=0 sent=0 host=- agent=- for=- id=-"
        f" kind=- to=- cluster={_CLUSTER} route=- by={_WEB} name={_CLUSTER} end=- trailer=- cut=-"
    ),
}


@conformance(
    TOPIC,
    "A TextFormat gives the same line for requests that were allowed or timed out; here it also tells what decided",
    envoy=_LINES,
    ours=_OUR_LINES,
    decision="018",
    own_consul=before(TextFormat=_TEXT),
)
async def test_text(stand: Stand) -> Observation:
    await offered(stand)

    def get(path: str) -> Callable[[], Awaitable[str]]:
        return lambda: said(stand, request(f"GET {path} HTTP/1.1", *_AGENT))

    pairs = [("user-agent", "curl/8"), ("x-forwarded-for", "192.0.2.1"), ("x-request-id", "mine")]
    made = two.headers("/made?q=1", *pairs, method="POST")
    posted = request("POST /made?q=1 HTTP/1.1", *_AGENT, body=b"abc")
    return await lines_of(
        stand,
        {
            "allowed": (lambda: ask(stand, posted), "LINE POST .* HTTP/1.1"),
            "over HTTP/2": (lambda: two.ask(stand, made, b"abc"), "LINE POST .* HTTP/2"),
            "denied": (get("/secret"), "LINE GET /secret HTTP"),
            "timed out": (get("/slow"), "LINE GET /slow"),
            "ended by the service": (get("/lost"), "LINE GET /lost"),
            "not HTTP": (get("/bad"), "LINE GET /bad"),
            "not a request": (lambda: said(stand, request("GET / HTTP/1.1", "bad name: x")), "code=400"),
        },
    )


_VARYING = re.compile(
    r'"(start_time|duration|upstream_service_time|request_id|upstream_local_address|downstream_remote_address'
    r'|time|number|client|duration_ms|upstream_ms)":("[^"]*"|[\d.]+)'
)


_DEFAULT: dict[str, Any] = {
    "authority": "db.example",
    "bytes_received": 0,
    "bytes_sent": 5,
    "connection_termination_details": None,
    "downstream_local_address": "GATEWAY",
    "downstream_remote_address": "...",
    "duration": "...",
    "method": "GET",
    "path": "/made",
    "protocol": "HTTP/1.1",
    "request_id": "...",
    "requested_server_name": _CLUSTER,
    "response_code": 201,
    "response_code_details": "via_upstream",
    "response_flags": "-",
    "route_name": None,
    "start_time": "...",
    "upstream_cluster": _CLUSTER,
    "upstream_host": "BACKEND",
    "upstream_local_address": "...",
    "upstream_service_time": "...",
    "upstream_transport_failure_reason": None,
    "user_agent": None,
    "x_forwarded_for": None,
}


_OWN: dict[str, Any] = {
    "time": "...",
    "event": "request",
    "worker": 0,
    "number": "...",
    "client": "...",
    "verdict": "allowed",
    "reason": "completed",
    "service": "db",
    "server_name": _CLUSTER,
    "source": _WEB,
    "intention": "web => db (precedence 9), permission 2 (/*)",
    "precedence": 9,
    "endpoint": "BACKEND",
    "tls": "TLSv1.3",
    "bytes_received": 0,
    "bytes_sent": 5,
    "duration_ms": "...",
    "method": "GET",
    "path": "/made",
    "authority": "db.example",
    "protocol": "HTTP/1.1",
    "status": 201,
    "permission": 2,
    "upstream_ms": "...",
    "request_id": "...",
}


@conformance(
    TOPIC,
    "Without a format: Envoy writes Consul's own JSON, which knows no caller; this gateway its own, which does",
    envoy={
        "allowed": _DEFAULT,
        "denied": _DEFAULT
        | {
            "path": "/secret",
            "bytes_sent": 19,
            "response_code": 403,
            "response_code_details": "rbac_access_denied_matched_policy[none]",
            "upstream_host": None,
            "upstream_local_address": None,
            "upstream_service_time": None,
        },
    },
    ours={
        "allowed": _OWN,
        "denied": {name: value for name, value in _OWN.items() if name not in ("endpoint", "request_id")}
        | {
            "path": "/secret",
            "verdict": "denied",
            "reason": "denied",
            "bytes_sent": 19,
            "status": 403,
            "intention": "web => db (precedence 9), permission 1 (/secret*)",
            "permission": 1,
            "detail": "web may not connect to db: denied by web => db (precedence 9), permission 1 (/secret*)",
        },
    },
    decision="018",
    own_consul=before(),
)
async def test_default(stand: Stand) -> Observation:
    await offered(stand)

    def asked(path: str) -> Send:
        return lambda: said(stand, request(f"GET {path} HTTP/1.1"))

    lines = await lines_of(stand, {"allowed": (asked("/made"), '"/made"'), "denied": (asked("/secret"), '"/secret"')})
    return {name: json.loads(_VARYING.sub(r'"\1":"..."', line)) for name, line in lines.items()}
