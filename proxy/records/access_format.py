"""A line of the access log in the operator's own words.

The control process has taken the format apart; here its parts are filled in. Values are those of Envoy's command
operators, as far as they exist here; what a connection, or a request, does not have is ``-`` in text and ``null`` as a
JSON value, as Envoy writes it. Nothing that a client sends can break a line: what is not printable is escaped.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/advanced/substitution_formatter.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable

import msgspec

from proxy.model import AccessLogFormat, CloseReason, LogPart, LogPartForm
from proxy.records.access_heads import Heads, request_value, response_value
from proxy.records.access_record import AccessRecord

Value = str | int | None
_DEFAULT_TIME = "%Y-%m-%dT%H:%M:%S.%3fZ"
_FRACTION = re.compile(r"%([1-9]?)f|%s|%%")
_HOSTNAME = socket.gethostname()

_DIAL_FAILURES = frozenset(
    {CloseReason.DIAL_FAILED, CloseReason.DIAL_TIMEOUT, CloseReason.EXHAUSTED, CloseReason.UPSTREAM_TLS_FAILED}
)
_HANDSHAKE_FAILURES = frozenset(
    {
        CloseReason.NOT_TLS,
        CloseReason.NO_CERTIFICATE,
        CloseReason.UNTRUSTED_CERTIFICATE,
        CloseReason.BAD_IDENTITY,
        CloseReason.TLS_FAILED,
        CloseReason.HANDSHAKE_TIMEOUT,
    }
)
_FLAGS = {
    CloseReason.NOT_TLS: "NC",
    CloseReason.NO_SERVER_NAME: "NC",
    CloseReason.UNKNOWN_SERVER_NAME: "NC",
    CloseReason.NO_ENDPOINTS: "UH",
    CloseReason.OVER_LIMIT: "OM",
    **dict.fromkeys(_DIAL_FAILURES, "UF,URX"),
}
_DETAILS = {
    CloseReason.COMPLETED: "via_upstream",
    CloseReason.NO_ENDPOINTS: "no_healthy_upstream",
    CloseReason.REQUEST_TIMEOUT: "response_timeout",
    CloseReason.IDLE: "stream_idle_timeout",
}
"""Envoy's words for them; other reasons are named as everywhere else."""
_OF_HEADS = frozenset({"REQ", "RESP", "REQ_WITHOUT_QUERY"})


def render(layout: AccessLogFormat, record: AccessRecord, opened_at_s: float, heads: Heads | None = None) -> bytes:
    """The line, with its end. ``opened_at_s`` is Unix time."""
    return "".join([_fill(part, record, opened_at_s, heads) for part in layout.parts]).encode()


def _fill(part: LogPart, record: AccessRecord, opened_at_s: float, heads: Heads | None) -> str:
    if not part.operator:
        return part.text
    value = _value(part, record, opened_at_s, heads)
    if part.form is LogPartForm.JSON_VALUE:
        if part.length and isinstance(value, str):
            value = value[: part.length]
        return msgspec.json.encode(value).decode()
    text = "-" if value is None else str(value)
    if part.length:
        text = text[: part.length]
    if part.form is LogPartForm.JSON_TEXT:
        return msgspec.json.encode(text).decode()[1:-1]
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _value(part: LogPart, record: AccessRecord, opened_at_s: float, heads: Heads | None) -> Value:
    if part.operator == "START_TIME":
        return start_time(part.text or _DEFAULT_TIME, opened_at_s)
    if part.operator in _OF_HEADS:
        found = _of_heads(part, record, heads)
    else:
        find = _FIELDS.get(part.operator)
        found = find(record) if find is not None else None
    return None if found == "" else found


def _of_heads(part: LogPart, record: AccessRecord, heads: Heads | None) -> Value:
    if part.operator == "RESP":
        return response_value(part.text, record, heads)
    return request_value(part.text, record, heads, query=part.operator == "REQ")


def start_time(layout: str, wall_s: float) -> str:
    """``layout`` as of strftime, with ``%s`` (Unix seconds), ``%3f`` (fraction, so many digits) and ``%f`` (nine)."""
    microseconds = round(wall_s * 1_000_000)
    seconds, fraction = divmod(microseconds, 1_000_000)

    def own(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%%"
        return str(seconds) if match[0] == "%s" else f"{fraction:06d}000"[: int(match[1] or 9)]

    now = time.gmtime(seconds)
    # The C library would stop at a NUL, and Python refuses it.
    return "\0".join(time.strftime(piece, now) for piece in _FRACTION.sub(own, layout).split("\0"))


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _port(address: str) -> int | None:
    port = address.rpartition(":")[2]
    return int(port) if port else None


def _endpoint(record: AccessRecord) -> str:
    """Without the hostname that it was resolved from."""
    return record.endpoint.partition(" ")[0]


def _carried(record: AccessRecord) -> str:
    """The server name stands for Envoy's cluster, once it has led to a service."""
    return record.server_name if record.service else ""


def _is_request(record: AccessRecord) -> bool:
    return record.event == "request"


def _flags(record: AccessRecord) -> str:
    return (record.flags or "-") if _is_request(record) else _FLAGS.get(CloseReason(record.reason), "-")


def _code_details(record: AccessRecord) -> str:
    if not _is_request(record):
        return ""
    return _denied(record) or _DETAILS.get(CloseReason(record.reason), record.reason)


def _termination(record: AccessRecord) -> str:
    return "" if _is_request(record) else _denied(record)


def _denied(record: AccessRecord) -> str:
    if record.verdict != "denied":
        return ""
    by = record.intention.partition(" (")[0] if record.precedence else ""
    return f"rbac_access_denied_matched_policy[{by.replace(' ', '_') or 'none'}]"


def _detail(record: AccessRecord, reasons: frozenset[CloseReason]) -> str:
    return record.detail.replace(" ", "_") if record.reason in reasons else ""


_FIELDS: dict[str, Callable[[AccessRecord], Value]] = {
    "ACCESS_LOG_TYPE": lambda record: "DownstreamEnd" if _is_request(record) else "TcpConnectionEnd",
    "BYTES_RECEIVED": lambda record: record.bytes_received,
    "BYTES_SENT": lambda record: record.bytes_sent,
    "CONNECTION_ID": lambda record: record.number,
    "CONNECTION_TERMINATION_DETAILS": _termination,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": lambda record: record.client,
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": lambda record: _host(record.client),
    "DOWNSTREAM_LOCAL_ADDRESS": lambda record: record.local_address,
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda record: _host(record.local_address),
    "DOWNSTREAM_LOCAL_PORT": lambda record: _port(record.local_address),
    "DOWNSTREAM_PEER_URI_SAN": lambda record: record.via or record.source,
    "DOWNSTREAM_REMOTE_ADDRESS": lambda record: record.client,
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda record: _host(record.client),
    "DOWNSTREAM_REMOTE_PORT": lambda record: _port(record.client),
    "DOWNSTREAM_TLS_VERSION": lambda record: record.tls,
    "DOWNSTREAM_TRANSPORT_FAILURE_REASON": lambda record: _detail(record, _HANDSHAKE_FAILURES),
    "DURATION": lambda record: int(record.duration_ms),
    "HOSTNAME": lambda record: _HOSTNAME,
    "REQUESTED_SERVER_NAME": lambda record: record.server_name,
    "PROTOCOL": lambda record: record.protocol,
    "RESPONSE_CODE": lambda record: record.status if _is_request(record) else 0,
    "RESPONSE_CODE_DETAILS": _code_details,
    "RESPONSE_FLAGS": _flags,
    "UPSTREAM_CLUSTER": _carried,
    "UPSTREAM_CLUSTER_RAW": _carried,
    "UPSTREAM_HOST": _endpoint,
    "UPSTREAM_REMOTE_ADDRESS": _endpoint,
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda record: _host(_endpoint(record)),
    "UPSTREAM_REMOTE_PORT": lambda record: _port(_endpoint(record)),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": lambda record: _detail(record, _DIAL_FAILURES),
    "CONSUL_TGW_DETAIL": lambda record: record.detail,
    "CONSUL_TGW_INTENTION": lambda record: record.intention,
    "CONSUL_TGW_PERMISSION": lambda record: record.permission or None,
    "CONSUL_TGW_PRECEDENCE": lambda record: record.precedence or None,
    "CONSUL_TGW_REASON": lambda record: record.reason,
    "CONSUL_TGW_SERVICE": lambda record: record.service,
    "CONSUL_TGW_VERDICT": lambda record: record.verdict,
    "CONSUL_TGW_WORKER": lambda record: record.worker,
}
OPERATORS = frozenset(_FIELDS) | {"START_TIME"} | _OF_HEADS
