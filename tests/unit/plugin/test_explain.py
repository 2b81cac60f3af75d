"""What is said about a caller's way: whole texts, and each way in which one is kept out."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from plugin.cli.explain import render
from plugin.consul.api import IntentionMatch, LinkedService, TerminatingGatewayEntry
from plugin.errors import ConfigError
from plugin.explain.answer import Explanation, PastRecord, Recollected, Verdict
from plugin.explain.caller import caller, service_name
from plugin.explain.explanation import explain
from plugin.explain.past import connection_id, told, told_live
from plugin.explain.request import header, question
from plugin.explain.standing import Standing
from proxy.messages import Connection, LiveRequest
from proxy.model import (
    Balance,
    BalancePolicy,
    Endpoint,
    HTTPSettings,
    Leaf,
    Mesh,
    PeerBundle,
    ServerName,
    Service,
    ServiceName,
    UpstreamTLS,
)
from proxy.rules import (
    Action,
    EscapedSlashes,
    HeaderMatch,
    Intention,
    Match,
    Normalization,
    Permission,
    TokenRequirement,
)
from tests.support.tokens import CLAIMS, NOW_S, jwk, provider, rsa_key, signed

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
OTHER = "99999999-2222-3333-4444-555555555555.consul"
GOLDENS = Path(__file__).parents[1] / "goldens" / "explain"
DB = ServiceName("db")
ALLOW, DENY = Action.ALLOW, Action.DENY
MESH = Mesh(DOMAIN, "dc1", (), default_action=DENY)
LEAF = Leaf("", "", f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/db", "01", NOW_S - 10, NOW_S + 3 * 86400 + 7200)
ENDPOINTS = (
    Endpoint("10.0.0.9", 5432, instance="node-1/db-1"),
    Endpoint("10.0.0.10", 5432, "db.example", weight=3, healthy=False, instance="node-2/db-2"),
)
SERVICE = Service(DB, LEAF, (ServerName(f"db.default.dc1.internal.{DOMAIN}", ENDPOINTS),), intentions=())
EAST = ServerName(f"db.default.default.east.external.{DOMAIN}", ENDPOINTS, peer="east")
ENTRY = TerminatingGatewayEntry(name="gw", services=(LinkedService(name="db", ca_file="/ca.pem", sni="db.example"),))

READ = Permission(ALLOW, Match.PREFIX, "/", ("GET",))
NO_ADMIN = Permission(DENY, Match.PREFIX, "/admin")
BROKEN = Permission(ALLOW, Match.REGEX, "/(")
CERTIFIED = Permission(ALLOW, headers=(HeaderMatch("x-forwarded-client-cert", Match.CONTAINS, "/svc/web"),))
RAW: dict[Permission, Any] = {
    READ: {"Action": "allow", "HTTP": {"PathPrefix": "/", "PathExact": "", "Methods": ["GET"]}},
    NO_ADMIN: {"Action": "deny", "HTTP": {"PathPrefix": "/admin", "Methods": None}},
    BROKEN: {"Action": "allow", "HTTP": {"PathRegex": "/("}},
    CERTIFIED: {"Action": "allow", "HTTP": {"Header": [{"Name": "x-forwarded-client-cert", "Contains": "/svc/web"}]}},
}
"""As Consul tells them."""


def intention(source: str, action: Action, precedence: int = 9, **fields: Any) -> Intention:
    return Intention(source, action, precedence, destination="*" if precedence < 7 else "db", **fields)


def standing(*intentions: Intention, mesh: Mesh = MESH, **fields: Any) -> Standing:
    matches = tuple(
        IntentionMatch(
            source_name=one.source,
            destination_name=one.destination,
            action="" if one.permissions else one.action,
            permissions=[RAW[permission] for permission in one.permissions],
            precedence=one.precedence,
        )
        for one in intentions
    )
    changed = {name: fields.pop(name) for name in list(fields) if name in Service.__struct_fields__}
    service = msgspec.structs.replace(SERVICE, intentions=intentions, **changed)
    fields.setdefault("service", service)
    return Standing(
        name=DB,
        gateway="gw",
        entry=ENTRY,
        mesh=mesh,
        matches=matches,
        most_connections=7500,
        open_connections=2,
        generation=7,
        **fields,
    )


def ask(what: Standing, source: str = "web", method: str = "", path: str = "", *headers: str) -> Explanation:
    return explain(what, question(source, str(what.name), method, path, headers), now_s=NOW_S)


def text(explanation: Explanation) -> str:
    console = Console(file=io.StringIO(), highlight=False, soft_wrap=True)
    render(explanation, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


LAYER7 = intention("web", DENY, layer7=True, permissions=(NO_ADMIN, READ))
HTTP: dict[str, Any] = {"http": HTTPSettings(), "protocol": "http"}
WILDCARD = intention("*", DENY, 8)
PEERED = msgspec.structs.replace(MESH, peer_bundles=(PeerBundle("east", OTHER, ()),))

CASES = {
    "allowed": ask(standing(intention("web", ALLOW), WILDCARD, intention("web", DENY, 6), intention("api", ALLOW))),
    "denied-by-a-wildcard": ask(standing(WILDCARD)),
    "denied-by-its-own": ask(standing(intention("web", DENY))),
    "denied-by-default": ask(standing()),
    "allowed-by-default": ask(standing(mesh=msgspec.structs.replace(MESH, default_action=ALLOW))),
    "nothing-known": ask(standing(mesh=msgspec.structs.replace(MESH, default_action=None))),
    "not-linked": ask(replace(standing(linked=False, service=None, others=("cache",)), name=ServiceName("shop"))),
    "not-served": ask(standing(service=None, problems=("its leaf certificate: 403; grant it",))),
    "request-allowed": ask(standing(LAYER7, WILDCARD, **HTTP), "web", "GET", "/items?x=1"),
    "request-denied": ask(standing(LAYER7, **HTTP), "web", "GET", "/x/../admin/users"),
    "request-matches-nothing": ask(standing(LAYER7, **HTTP), "web", "POST", "/items"),
    "request-of-a-stranger": ask(standing(LAYER7, **HTTP), "batch", "GET", "/items"),
    "request-unusable": ask(standing(intention("web", DENY, layer7=True, permissions=(BROKEN,)), **HTTP)),
    "layer7-at-layer4": ask(standing(LAYER7)),
    "upstream": ask(
        standing(
            intention("web", ALLOW),
            upstream_tls=UpstreamTLS("CA", "CHAIN", "KEY", "db.example"),
            balance=Balance(BalancePolicy.LEAST_REQUEST),
            left_out=("10.0.0.9:5432 by worker 0",),
            warnings=("the client certificate ends in 2h",),
            max_connections=2,
        )
    ),
    "peer": ask(
        standing(
            server_names=(*SERVICE.server_names, EAST),
            mesh=PEERED,
        ),
        "east:web",
    ),
    "peer-over-http": ask(standing(LAYER7, importers=("east",), mesh=PEERED, **HTTP), "east:web", "GET", "/items"),
    "peer-without-export": ask(standing(LAYER7, mesh=PEERED, **HTTP), "east:web", "GET", "/items"),
    "no-endpoint": ask(standing(intention("web", ALLOW), server_names=(ServerName("db.x", ()),))),
    "too-old": ask(standing(intention("web", ALLOW), too_old=True)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_whole_text(name: str) -> None:
    path = GOLDENS / f"{name}.txt"
    said = text(CASES[name])
    if os.environ.get("GOLDENS") == "update":
        path.parent.mkdir(exist_ok=True)
        path.write_text(said)
    assert said == path.read_text()


def test_every_golden_has_its_case() -> None:
    assert {path.stem for path in GOLDENS.glob("*.txt")} == set(CASES)


def test_verdicts() -> None:
    allowed = {name for name, one in CASES.items() if one.verdict is Verdict.ALLOWED}
    assert allowed == {"allowed", "allowed-by-default", "request-allowed", "upstream"}
    unserved = {name for name, one in CASES.items() if one.verdict is Verdict.NOT_SERVED}
    assert unserved == {"not-linked", "not-served", "no-endpoint", "too-old", "peer-without-export"}


def test_an_expired_leaf_serves_nobody() -> None:
    late = explain(standing(intention("web", ALLOW)), question("web", "db", "", "", ()), now_s=LEAF.not_after_s + 60)
    assert (late.verdict, "expired 1m ago" in late.sentence) == (Verdict.NOT_SERVED, True)


def test_policy_that_is_not_known_denies() -> None:
    unknown = standing(service=msgspec.structs.replace(SERVICE, intentions=None))
    found = ask(unknown)
    assert found.verdict is Verdict.DENIED
    assert found.remedies == ()
    assert "its intentions are not known yet" in found.sentence


def test_tokens_are_looked_at_and_never_shown() -> None:
    key = rsa_key()
    known = msgspec.structs.replace(MESH, token_providers=(provider(jwk(key)),))
    asking = intention("web", ALLOW, layer7=True, tokens=(TokenRequirement(provider().name),))
    token = signed(CLAIMS, key).decode()
    with_token = ask(standing(asking, mesh=known, **HTTP), "web", "GET", "/", f"authorization: Bearer {token}")
    assert with_token.verdict is Verdict.ALLOWED, text(with_token)
    without = ask(standing(asking, mesh=known, **HTTP), "web", "GET", "/")
    assert without.verdict is Verdict.DENIED
    assert without.remedies == ()
    assert "a request with a good token is let in" in without.remarks[0]
    assert token not in text(with_token) + repr(question("web", "db", "", "", [f"authorization: Bearer {token}"]))


def test_what_is_refused_or_sent_elsewhere_before_policy() -> None:
    bad = ask(standing(LAYER7, **HTTP), "web", "GET", "/%zz")
    assert (bad.verdict, "Refused before policy is asked, as 400" in bad.sentence) == (Verdict.DENIED, True)
    redirecting = msgspec.structs.replace(MESH, normalization=Normalization(escaped_slashes=EscapedSlashes.REDIRECT))
    assert (
        "told to come back with the path /a/b"
        in ask(standing(LAYER7, mesh=redirecting, **HTTP), "web", "GET", "/a%2Fb").sentence
    )


def test_who_is_meant() -> None:
    assert caller("web", MESH).spiffe_id == f"spiffe://{DOMAIN}/ns/default/dc/dc1/svc/web"
    assert caller("shop/web", MESH).identity.namespace == "shop"
    assert caller("east:web", PEERED).peer == "east"
    assert caller(f"spiffe://{OTHER}/ns/default/dc/dc9/svc/web", PEERED).peer == "east"
    assert service_name("p/n/x") == ServiceName("x", "n", "p")
    stranger = ask(standing(), f"spiffe://{OTHER}/ns/default/dc/dc9/svc/web")
    assert (stranger.verdict, "bad_identity" in stranger.sentence) == (Verdict.DENIED, True)


@pytest.mark.parametrize("source", ["", "*", "a/b/c/d", "west:web", "spiffe://x", "/web", "a//b"])
def test_nobody_is_meant(source: str) -> None:
    with pytest.raises(ConfigError):
        caller(source, PEERED)


@pytest.mark.parametrize("line", ["nothing", ": x", "a b: c", "a: b\r\nc: d"])
def test_headers_that_no_request_has(line: str) -> None:
    with pytest.raises(ConfigError, match="is not written as"):
        header(line)


def test_a_mesh_gateway_is_told_with_those_it_asks_for() -> None:
    gateway = f"spiffe://{DOMAIN}/gateway/mesh/dc/dc1"
    asked = LiveRequest("GET", "/", "db", "HTTP/1.1", 1.0, "asked", caller="east:web")
    live = Connection(1, "10.1.1.1:5", gateway, "db", "db", "", 1.0, 0, 0, "", live_requests=(asked, asked))
    lines = list(told_live(live))
    assert "  It asks for east:web at the moment." in lines
    assert lines[-1].endswith("consul-tgw explain east:web db")
    record = PastRecord(
        time="T", event="request", worker=0, number=1, client="10.1.1.1:5", verdict="allowed", reason="completed",
        source="spiffe://x", peer="east", via=gateway, method="GET", path="/",
    )  # fmt: skip
    first = next(iter(told("0-1", Recollected((record,)))))
    assert first.startswith(f"Request GET / of spiffe://x of peer east through {gateway} from 10.1.1.1:5")


def test_connections_that_have_ended() -> None:
    denied = PastRecord(
        time="2026-01-01T00:00:00.000000Z",
        worker=0,
        number=17,
        client="10.1.1.1:5000",
        verdict="denied",
        reason="denied",
        service="db",
        source="spiffe://x",
        intention="* => db (precedence 8)",
        detail="web may not connect to db: denied by intention * => db (precedence 8)",
    )
    assert list(told("0-17", Recollected((denied,)))) == [
        "Connection of spiffe://x from 10.1.1.1:5000 to db, at 2026-01-01T00:00:00.000000Z, worker 0, number 17:",
        "  Policy denied it, by * => db (precedence 8).",
        "  It ended as denied: web may not connect to db: denied by intention * => db (precedence 8).",
        "  0 bytes came from the caller and 0 went to it, in 0.000 s.",
    ]
    (nothing,) = told("0-17", Recollected(()))
    assert nothing.startswith("Nothing is remembered of connection 0-17")
    assert connection_id("0-17") == (0, 17)
    for junk in ("17", "0-", "0-0", "a-1", "-1", "0-17-1", "٣-1"):
        with pytest.raises(ConfigError, match="is no connection"):
            connection_id(junk)


@pytest.mark.parametrize(("sanitized", "verdict"), [(False, Verdict.ALLOWED), (True, Verdict.DENIED)])
def test_headers_that_the_gateway_writes_are_there(sanitized: bool, verdict: Verdict) -> None:
    certified = intention("web", DENY, layer7=True, permissions=(CERTIFIED,))
    mesh = msgspec.structs.replace(MESH, sanitize_client_cert_header=sanitized)
    assert ask(standing(certified, mesh=mesh, **HTTP)).verdict is verdict
