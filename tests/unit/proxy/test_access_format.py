"""Values are those that Envoy writes at layer 4; nothing a client sends breaks a line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugin.assemble.access_logs import access_log_choice
from plugin.consul.api import AccessLogs
from proxy.http.message import RequestHead, ResponseHead, Version
from proxy.records.access_format import render, start_time
from proxy.records.access_record import AccessRecord

OPENED_AT_S = 1_700_000_000.25
SERVER_NAME = "db.default.dc1.internal.x.consul"
CARRIED: dict[str, Any] = {
    "client": "127.0.0.1:50000",
    "verdict": "allowed",
    "reason": "client_eof",
    "service": "db",
    "server_name": SERVER_NAME,
    "source": "spiffe://x.consul/ns/default/dc/dc1/svc/web",
    "intention": "web => db (precedence 9)",
    "precedence": 9,
    "endpoint": "10.0.0.9:5432 (db.example.com)",
    "tls": "TLSv1.3",
    "local_address": "[::1]:8443",
}


def record(**fields: Any) -> AccessRecord:
    numbers = {"worker": 1, "number": 7, "bytes_received": 3, "bytes_sent": 4, "duration_ms": 12.9}
    return AccessRecord(
        time="", **{**numbers, "client": "127.0.0.1:1", "verdict": "refused", "reason": "not_tls", **fields}
    )


def line(text: str = "", json_format: str = "", **fields: Any) -> str:
    layout = access_log_choice(AccessLogs(enabled=True, text_format=text, json_format=json_format)).layout
    assert layout is not None
    return render(layout, record(**fields), OPENED_AT_S).decode()


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("%START_TIME%", "2023-11-14T22:13:20.250Z"),
        ("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2023/11/14T22:13:20+0000 1700000000"),
        ("%START_TIME(%s.%3f)%", "1700000000.250"),
        ("%BYTES_RECEIVED% %BYTES_SENT% %DURATION% 100%%", "3 4 12 100%"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "127.0.0.1:50000 127.0.0.1"),
        ("%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "[::1]:8443 ::1"),
        ("%DOWNSTREAM_LOCAL_PORT% %UPSTREAM_REMOTE_PORT%", "8443 5432"),
        ("%UPSTREAM_HOST% %UPSTREAM_CLUSTER%", f"10.0.0.9:5432 {SERVER_NAME}"),
        ("%REQUESTED_SERVER_NAME% %DOWNSTREAM_TLS_VERSION%", f"{SERVER_NAME} TLSv1.3"),
        ("%DOWNSTREAM_PEER_URI_SAN%", "spiffe://x.consul/ns/default/dc/dc1/svc/web"),
        ("%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% %RESPONSE_CODE%", "- - 0"),
        ("%REQ(:METHOD)% %RESP(A?B):9% %PROTOCOL% %ROUTE_NAME%", "- - - -"),
        ("%CONSUL_TGW_VERDICT% %CONSUL_TGW_REASON% %CONSUL_TGW_SERVICE%", "allowed client_eof db"),
        ("%CONSUL_TGW_INTENTION% %CONSUL_TGW_PRECEDENCE%", "web => db (precedence 9) 9"),
    ],
)
def test_each_operator_has_its_value(layout: str, text: str) -> None:
    assert line(layout, **CARRIED) == text + "\n"


def test_a_line_has_exactly_one_end() -> None:
    assert line("x\n") == line("x") == "x\n"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"reason": "unknown_server_name", "server_name": "x"}, "NC - - -"),
        ({"reason": "not_tls", "detail": "no TLS record"}, "NC - - no_TLS_record"),
        ({"reason": "no_endpoints"}, "UH - - -"),
        (
            {"reason": "dial_failed", "detail": "10.0.0.9:1: Connection refused"},
            "UF,URX - 10.0.0.9:1:_Connection_refused -",
        ),
        ({"reason": "denied", "verdict": "denied"}, "- rbac_access_denied_matched_policy[none] - -"),
        (
            {"reason": "denied", "verdict": "denied", "precedence": 9, "intention": "web => db (precedence 9)"},
            "- rbac_access_denied_matched_policy[web_=>_db] - -",
        ),
    ],
)
def test_why_a_connection_failed(fields: dict[str, Any], text: str) -> None:
    layout = (
        "%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% %UPSTREAM_TRANSPORT_FAILURE_REASON%"
        " %DOWNSTREAM_TRANSPORT_FAILURE_REASON%"
    )
    assert line(layout, **fields) == text + "\n"


def test_json_keeps_numbers_and_knows_null() -> None:
    layout = {
        "z": "%BYTES_SENT%",
        "a": "%UPSTREAM_HOST%",
        "mixed": "%DURATION% ms to %UPSTREAM_HOST%, 100%%",
        "nested": {"x": ["%BYTES_RECEIVED%", 1, True, None, "plain"]},
    }
    written = line(json_format=json.dumps(layout))
    assert json.loads(written) == {
        "a": None,
        "mixed": "12 ms to -, 100%",
        "nested": {"x": [3, 1, True, None, "plain"]},
        "z": 4,
    }
    assert written.startswith('{"a":null,"mixed":')
    assert written.endswith("}\n")


def test_what_a_client_sends_breaks_no_line() -> None:
    hostile = 'a"b\nc\x1b\u2028'
    assert line("%REQUESTED_SERVER_NAME%", server_name=hostile) == 'a"b\\x0ac\\x1b\\x2028\n'
    written = line(json_format='{"n":"%REQUESTED_SERVER_NAME%","m":"<%REQUESTED_SERVER_NAME%>"}', server_name=hostile)
    assert written.count("\n") == 1
    assert json.loads(written) == {"n": hostile, "m": f"<{hostile}>"}


def test_fractions_of_a_second() -> None:
    assert start_time("%f %1f %6f %% %s", 1_700_000_000.852246) == "852246000 8 852246 % 1700000000"


def test_a_layout_of_the_time_may_hold_anything() -> None:
    assert start_time("%Y\0%s%", 1.5) == "1970\x001%"


class Exchange:
    """The heads of a request and of its response."""

    def __init__(self) -> None:
        headers = [(b"user-agent", b"curl\n"), (b"x-twice", b"one"), (b"x-twice", b"two")]
        self.head = RequestHead(b"GET", b"/a/b?token=1", b"db.example", Version.HTTP_2, headers)
        self.response: ResponseHead | None = ResponseHead(503, [(b"content-type", b"text/plain")], announced_length=5)


ASKED: dict[str, Any] = {
    **CARRIED,
    "event": "request",
    "reason": "request_timeout",
    "status": 504,
    "flags": "UT",
    "protocol": "HTTP/2",
    "request_id": "7",
    "upstream_ms": 12.7,
    "permission": 2,
}


@pytest.mark.parametrize(
    ("layout", "text"),
    [
        ("%REQ(:METHOD)% %REQ(:PATH)% %REQ_WITHOUT_QUERY(:PATH)%", "GET /a/b?token=1 /a/b"),
        ("%REQ(:AUTHORITY)% %REQ(HOST)% %REQ(:SCHEME)%", "db.example db.example https"),
        ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):4%", "/a/b"),
        ("%REQ(X-Twice)% %REQ(NONE)% %REQ(NONE?X-TWICE):2%", "one - on"),
        ("%REQ(USER-AGENT)%", "curl\\x0a"),
        ("%REQ(X-REQUEST-ID)%", "7"),
        ("%RESP(CONTENT-TYPE)% %RESP(CONTENT-LENGTH)%", "text/plain 5"),
        ("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%", "12"),
        ("%PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS%", "HTTP/2 504 UT"),
        ("%RESPONSE_CODE_DETAILS% %ACCESS_LOG_TYPE%", "response_timeout DownstreamEnd"),
        ("%CONSUL_TGW_PERMISSION%", "2"),
    ],
)
def test_operators_of_a_request(layout: str, text: str) -> None:
    parts = access_log_choice(AccessLogs(enabled=True, text_format=layout))
    assert parts.warnings == ()
    assert parts.layout is not None
    assert render(parts.layout, record(**ASKED), OPENED_AT_S, Exchange()).decode() == text + "\n"


def test_a_request_that_was_denied() -> None:
    layout = access_log_choice(
        AccessLogs(enabled=True, text_format="%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS%")
    ).layout
    assert layout is not None
    denied = record(**{**ASKED, "verdict": "denied", "reason": "denied"})
    assert render(layout, denied, OPENED_AT_S, Exchange()) == b"rbac_access_denied_matched_policy[web_=>_db] -\n"


def test_numbers_of_a_request_stay_numbers() -> None:
    layout = access_log_choice(
        AccessLogs(enabled=True, json_format='{"a":"%RESPONSE_CODE%","b":"%REQ(:PATH):2%","c":"%RESP(NONE)%"}')
    ).layout
    assert layout is not None
    line = render(layout, record(**ASKED), OPENED_AT_S, Exchange())
    assert json.loads(line) == {"a": 504, "b": "/a", "c": None}
