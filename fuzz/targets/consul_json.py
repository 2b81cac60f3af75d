"""Any body of any endpoint is a value or ConsulUnavailable, and no intention is wider than the text of its row."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from fuzz.draw import Draw
from plugin.assemble.access_logs import access_log_choice
from plugin.assemble.intentions import decode_intentions
from plugin.assemble.links import linked_services
from plugin.assemble.mesh_http import mesh_http
from plugin.assemble.mesh_tls import incoming_tls
from plugin.assemble.proxy_config import upstream_config
from plugin.assemble.resolver import balance, connect_timeout, idle_timeout, max_lifetime
from plugin.consul import api
from plugin.consul.client import decode, decode_rows
from plugin.consul.strict import NotUnderstood
from plugin.consul.transport import Reply
from plugin.errors import ConsulUnavailable
from plugin.jwks.provider import read_provider
from proxy.rules import Action, Intention

CODE = ("plugin.consul.api", "plugin.assemble.intentions", "plugin.assemble.resolver", "plugin.assemble.proxy_config")

_ONE = (
    api.LeafCertificate,
    api.Roots,
    api.TerminatingGatewayEntry,
    dict[str, tuple[api.IntentionMatch, ...] | None],
    dict[str, Any],
)
_ROWS = (
    api.GatewayService,
    api.HealthEntry,
    api.TerminatingGatewayEntry,
    api.ServiceDefaults,
    api.ServiceResolver,
    api.ProxyDefaults,
    api.MeshEntry,
    api.Check,
    api.IntentionMatch,
    Any,
)


def run(data: bytes) -> None:
    draw = Draw(data)
    kind, body = draw.below(len(_ONE) + len(_ROWS)), draw.rest()
    reply = Reply(200, 1, body, {})
    try:
        values = (
            (decode(reply, _ONE[kind], "/v1/path"),)
            if kind < len(_ONE)
            else decode_rows(reply, _ROWS[kind - len(_ONE)], "/v1/path")
        )
    except ConsulUnavailable:
        return
    for value in values:
        _use(value)
    matches = [value for value in values if isinstance(value, api.IntentionMatch)]
    if matches:
        # What nobody reads need not be text.
        _compare(decode_intentions(matches), json.loads(body.decode("utf-8", "replace")))


def _use(value: object) -> None:
    """What is made of an entry before it is known whether it makes sense."""
    match value:
        case api.TerminatingGatewayEntry():
            linked_services(value, ())
        case api.ServiceDefaults():
            assert idle_timeout(value).value >= 0
            assert max_lifetime(value).value >= 0
        case api.ServiceResolver():
            balance(value)
            assert connect_timeout(value).value >= 0
        case api.ProxyDefaults():
            upstream_config({}, value.config or {})
            access_log_choice(value.access_logs)
        case api.MeshEntry():
            incoming_tls(value.tls.incoming if value.tls else None)
            mesh_http(value.http)
        case dict():
            with contextlib.suppress(NotUnderstood):
                read_provider(value)


def _compare(decoded: tuple[Intention, ...], rows: list[dict[str, Any]]) -> None:
    """The texts of the rows allow at least what was understood of them."""
    allowing = [
        (row["SourceName"], row.get("SourcePeer", ""), row.get("SourceNS", "default") or "default")
        for row in rows
        if row.get("Action") == "allow" and not row.get("SourceSamenessGroup")
        if not row.get("Permissions") and row.get("JWT") is None
    ]
    for one in decoded:
        if one.action is Action.ALLOW and not one.layer7:
            allowing.remove((one.source, one.source_peer, one.source_namespace))
