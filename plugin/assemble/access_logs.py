"""``AccessLogs`` of proxy-defaults: how a line of the access log looks, and what of it cannot be had.

Takes the operator's format apart, so that a worker only fills it in. A mistake in a format costs its own place in the
line and is reported by name; it never stops anything. Where the lines go is decided elsewhere.
Source: https://developer.hashicorp.com/consul/docs/reference/config-entry/proxy-defaults (AccessLogs).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from plugin.consul.api import AccessLogs
from proxy.model import AccessLogFormat, LogPart, LogPartForm

_COMMAND = re.compile(r"%%|%([A-Z][A-Z0-9_]*)(?:\(([^)]*)\))?(?::([0-9]+))?%")
OPERATORS = frozenset(
    (
        "ACCESS_LOG_TYPE",
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "CONNECTION_ID",
        "CONNECTION_TERMINATION_DETAILS",
        "CONSUL_TGW_DETAIL",
        "CONSUL_TGW_INTENTION",
        "CONSUL_TGW_PERMISSION",
        "CONSUL_TGW_PRECEDENCE",
        "CONSUL_TGW_REASON",
        "CONSUL_TGW_SERVICE",
        "CONSUL_TGW_VERDICT",
        "CONSUL_TGW_WORKER",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_ADDRESS",
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_LOCAL_PORT",
        "DOWNSTREAM_PEER_URI_SAN",
        "DOWNSTREAM_REMOTE_ADDRESS",
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "DOWNSTREAM_REMOTE_PORT",
        "DOWNSTREAM_TLS_VERSION",
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
        "DURATION",
        "HOSTNAME",
        "PROTOCOL",
        "REQ",
        "REQ_WITHOUT_QUERY",
        "REQUESTED_SERVER_NAME",
        "RESP",
        "RESPONSE_CODE",
        "RESPONSE_CODE_DETAILS",
        "RESPONSE_FLAGS",
        "START_TIME",
        "UPSTREAM_CLUSTER",
        "UPSTREAM_CLUSTER_RAW",
        "UPSTREAM_HOST",
        "UPSTREAM_REMOTE_ADDRESS",
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        "UPSTREAM_REMOTE_PORT",
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
    )
)
"""What a connection, or a request, has a value for here: operators of Envoy, and our own."""
_NAMING = frozenset({"REQ", "RESP", "REQ_WITHOUT_QUERY"})
"""Those that name a header, and take a length."""
_ELSEWHERE = re.compile(
    r"TRAILER|GRPC_.*|ROUTE_NAME|VIRTUAL_CLUSTER_NAME|RESPONSE_.*|REQUEST_.*|"
    r"UPSTREAM_.*|DOWNSTREAM_.*|DYNAMIC_METADATA|CLUSTER_METADATA|METADATA|FILTER_STATE|UPSTREAM_FILTER_STATE|"
    r"FILTER_CHAIN_NAME|START_TIME_LOCAL|EMIT_TIME|EMIT_TIME_LOCAL|STREAM_ID|UNIQUE_ID|TRACE_ID|SPAN_ID|QUERY_PARAM.*|"
    r"PATH|ENVIRONMENT|REQUESTED_.*|TLS_.*|LOCAL_REPLY_BODY|CUSTOM_FLAGS|BYTES_.*|ROUNDTRIP_DURATION|COMMON_DURATION|"
    r"LISTENER_METADATA|VIRTUAL_HOST_METADATA|QUIC_.*"
)
"""Operators of Envoy that nothing here has a value for."""
_NO_BRACKETS = "takes no (...)"


@dataclass(frozen=True, slots=True)
class AccessLogChoice:
    layout: AccessLogFormat | None = None
    """``None``: the built-in JSON line."""
    warnings: tuple[str, ...] = ()


def access_log_choice(settings: AccessLogs | None) -> AccessLogChoice:
    """Read the entry; absent or not ``Enabled`` means the built-in line."""
    if settings is None or not settings.enabled:
        return AccessLogChoice()
    reader = _Reader()
    parts: tuple[LogPart, ...] = ()
    if settings.json_format:
        parts = reader.json(settings.json_format)
    elif settings.text_format:
        text = settings.text_format
        parts = tuple(reader.text(text if text.endswith("\n") else text + "\n", LogPartForm.TEXT))
    layout = AccessLogFormat(parts=_merged(parts), listener=not settings.disable_listener_logs)
    return AccessLogChoice(layout, tuple(dict.fromkeys(reader.warnings)))


class _Reader:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def json(self, text: str) -> tuple[LogPart, ...]:
        """Keys in order, as Envoy sorts them; nothing when it is no object: then the built-in line stays."""
        try:
            # Not the standard library's reader: it takes Infinity, NaN and halves of characters for JSON.
            decoded = msgspec.json.decode(text)
            if isinstance(decoded, dict):
                return (*self._json_value(decoded), LogPart("\n"))
        except ValueError as error:
            self._warn("JSONFormat", f"is not JSON ({error}); the built-in line is written")
        except RecursionError:
            self._warn("JSONFormat", "is nested too deeply; the built-in line is written")
        else:
            self._warn("JSONFormat", "is not an object; the built-in line is written")
        return ()

    def _json_value(self, value: Any) -> Iterator[LogPart]:
        if isinstance(value, dict):
            yield LogPart("{")
            for number, key in enumerate(sorted(value)):
                yield LogPart(("," if number else "") + json.dumps(key) + ":")
                yield from self._json_value(value[key])
            yield LogPart("}")
        elif isinstance(value, list):
            yield LogPart("[")
            for number, element in enumerate(value):
                yield LogPart("," if number else "")
                yield from self._json_value(element)
            yield LogPart("]")
        elif isinstance(value, str):
            yield from self._json_string(value)
        else:
            yield LogPart(json.dumps(value))

    def _json_string(self, text: str) -> Iterator[LogPart]:
        parts = list(self.text(text, LogPartForm.JSON_TEXT))
        if len(parts) == 1 and parts[0].operator:
            # Alone in its string: numbers stay numbers, and nothing is null.
            yield LogPart(parts[0].text, parts[0].operator, LogPartForm.JSON_VALUE, parts[0].length)
            return
        yield LogPart('"')
        for part in parts:
            yield part if part.operator else LogPart(json.dumps(part.text)[1:-1])
        yield LogPart('"')

    def text(self, text: str, form: LogPartForm) -> Iterator[LogPart]:
        end = 0
        for match in _COMMAND.finditer(text):
            if between := text[end : match.start()]:
                yield self._literal(between)
            end = match.end()
            yield LogPart("%") if match[0] == "%%" else self._operator(match, form)
        if rest := text[end:]:
            yield self._literal(rest)

    def _literal(self, text: str) -> LogPart:
        if "%" in text:
            self._warn(repr(text.strip()), "has a % that begins no operator; write %% for the character")
        return LogPart(text)

    def _operator(self, match: re.Match[str], form: LogPartForm) -> LogPart:
        name, argument, length = match.groups()
        if name in _NAMING:
            if argument is None:
                self._warn(f"%{name}%", "names no header, as in %REQ(:METHOD)%; - is written")
                return LogPart("-")
            return LogPart(argument, name, form, int(length or 0))
        if name in OPERATORS:
            if length is not None:
                self._warn(f"%{name}%", "takes no length; it is written whole")
            if argument is not None and name != "START_TIME":
                self._warn(f"%{name}%", f"{_NO_BRACKETS}; they are left out")
            return LogPart(argument or "" if name == "START_TIME" else "", name, form)
        if not _ELSEWHERE.fullmatch(name):
            self._warn(f"%{name}%", "is not known; - is written")
            return LogPart("-")
        return LogPart("", name, form)

    def _warn(self, what: str, why: str) -> None:
        self.warnings.append(f"AccessLogs of proxy-defaults: {what} {why}. Correct the entry")


def _merged(parts: tuple[LogPart, ...]) -> tuple[LogPart, ...]:
    """Neighbouring texts as one: fewer pieces for each line."""
    merged: list[LogPart] = []
    for part in parts:
        if merged and not part.operator and not merged[-1].operator:
            merged[-1] = LogPart(merged[-1].text + part.text)
        else:
            merged.append(part)
    return tuple(merged)
