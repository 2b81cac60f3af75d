"""What entries that are not written yet would change: how they are read, and what is compared."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugin.consul.api import IntentionMatch, LinkedService, TerminatingGatewayEntry
from plugin.errors import ConfigError
from plugin.explain.caller import Caller
from plugin.facts import Fact, MeshFacts, ServiceFacts
from plugin.linking.hcl import to_hcl
from plugin.simulate.answer import AccessChange, Simulation
from plugin.simulate.compare import Side, access_change, callers, cut, request_changes, service_change
from plugin.simulate.entries import checked
from plugin.simulate.facts import World, matches_of, precedence, propose
from plugin.simulate.hcl import read_entries
from proxy.model import HTTPSettings, Leaf, Mesh, ServerName, Service, ServiceName
from proxy.policy.identity import Identity
from proxy.rules import Action, Intention, Match, Permission

DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
DB, API = ServiceName("db"), ServiceName("api")
ALLOW, DENY = Action.ALLOW, Action.DENY
MESH = Mesh(DOMAIN, "dc1", (), default_action=DENY)
HOME = Identity(DOMAIN, "", datacenter="dc1")


def who(name: str) -> Caller:
    return Caller(Identity(DOMAIN, name, datacenter="dc1"))


def intention(source: str, action: Action = ALLOW, *permissions: Permission) -> Intention:
    precedence = 8 if source == "*" else 9
    return Intention(source, action, precedence, destination="db", layer7=bool(permissions), permissions=permissions)


def side(*intentions: Intention, http: bool = False, linked: bool = True, mesh: Mesh = MESH) -> Side:
    service = Service(
        DB, Leaf("", "", "", "", 0.0, 0.0), (ServerName("db"),), intentions, http=HTTPSettings() if http else None
    )
    return Side.of(service if linked else None, mesh, linked=linked)


def effects(before: Side, after: Side) -> dict[str, str]:
    sources = {one.text: one for each in (before, after) for one in callers((who("seen"),), each.service, HOME)}
    changes = (access_change(DB, one, before, after) for one in sources.values())
    return {one.source: one.effect for one in changes if isinstance(one, AccessChange)}


GET = Permission(ALLOW, methods=("GET",))
ADMIN = Permission(DENY, Match.PREFIX, "/admin")


def test_who_gains_and_who_loses() -> None:
    assert effects(side(intention("web")), side(intention("web"))) == {}
    assert effects(side(intention("web")), side(intention("web", DENY), intention("batch"))) == {
        "web": "loses",
        "batch": "gains",
    }
    everybody = {"web": "gains", "seen": "gains", "*": "gains"}
    assert effects(side(intention("web", DENY)), side(intention("*"), )) == everybody  # fmt: skip
    allowing = msgspec.structs.replace(MESH, default_action=ALLOW)
    assert effects(side(), side(mesh=allowing)) == {"seen": "gains", "*": "gains"}
    assert effects(side(intention("web")), side(linked=False)) == {"web": "loses"}


def test_permissions_are_something_between() -> None:
    whole, part = side(intention("web"), http=True), side(intention("web", DENY, GET), http=True)
    assert effects(whole, part) == {"web": "loses"}
    assert effects(part, whole) == {"web": "gains"}
    assert effects(part, part) == {}
    assert effects(part, side(intention("web", DENY, ADMIN, GET), http=True)) == {"web": "changes"}
    opened = msgspec.structs.replace(MESH, default_action=ALLOW)
    assert effects(part, side(intention("web", DENY, GET), http=True, mesh=opened))["web"] == "changes"
    # At layer 4 permissions deny, before and after.
    assert effects(side(intention("web", DENY, GET)), side(intention("web", DENY))) == {}


def test_what_becomes_of_requests_that_came() -> None:
    before = side(intention("web", DENY, GET), http=True)
    after = side(intention("web", DENY, ADMIN, GET), http=True)
    web = who("web")
    came = [(web, "GET", "/admin/x", "db")] * 3 + [(web, "GET", "/items", "db"), (web, "POST", "/admin", "db")]
    (change,) = request_changes(DB, came, before, after, 0.0)
    assert (change.request, change.requests, change.effect) == ("GET /admin/x", 3, "loses")
    (back,) = request_changes(DB, came, after, before, 0.0)
    assert back.effect == "gains"
    assert list(request_changes(DB, came, before, side(intention("web")), 0.0)) == []


def test_what_is_cut() -> None:
    web = who("web")
    assert cut(web, side(intention("web")), side(intention("web")), None, 0.0) == ""
    assert "denied by intention" in cut(web, side(intention("web")), side(intention("web", DENY)), None, 0.0)
    assert cut(web, side(intention("web")), side(linked=False), None, 0.0) == "the service is no longer linked"
    strict = side(intention("web", DENY, ADMIN, GET), http=True)
    assert "the request is denied" in cut(web, side(http=True), strict, ("GET", "/admin", "db"), 0.0)
    assert cut(web, side(http=True), strict, ("GET", "/", "db"), 0.0) == ""


def test_services_that_are_other_than_before() -> None:
    assert service_change(DB, side(), side(intention("web")), ()) is None
    change = service_change(DB, side(), side(http=True), ())
    assert change is not None
    assert change.differences == ("settings for HTTP: none -> " + str(HTTPSettings()),)
    gone = service_change(DB, side(), side(linked=False), ())
    assert gone is not None
    assert Simulation(entries=(), services=(gone,)).judged().harms
    assert not Simulation(entries=()).judged().harms


@pytest.mark.parametrize(
    ("names", "number"),
    [
        (("web", "default", "db", "default"), 9),
        (("*", "default", "db", "default"), 8),
        (("*", "*", "db", "default"), 7),
        (("web", "default", "*", "default"), 6),
        (("*", "default", "*", "default"), 5),
        (("*", "*", "*", "*"), 1),
    ],
)
def test_precedence_is_that_of_consul(names: tuple[str, str, str, str], number: int) -> None:
    assert precedence(*names) == number


def match(source: str, destination: str, action: str, number: int) -> IntentionMatch:
    return IntentionMatch(source_name=source, destination_name=destination, action=action, precedence=number)


def world(**services: ServiceFacts) -> World:
    facts = {ServiceName(name): one for name, one in services.items()}
    links = tuple(one.link for one in facts.values())
    entry = TerminatingGatewayEntry(name="gw", services=links)
    return World(services=facts, mesh=MeshFacts(), gateway="gw", entry=entry)


def linked(name: str, *matches: IntentionMatch) -> ServiceFacts:
    known: Fact[tuple[IntentionMatch, ...]] = Fact[tuple[IntentionMatch, ...]]().learned(matches)
    return ServiceFacts(name=ServiceName(name), link=LinkedService(name=name), intentions=known)


def sources(proposed: Any, name: ServiceName) -> list[tuple[str, str, str]]:
    rows = proposed.world.services[name].intentions.value
    return [(one.source_name, one.destination_name, one.action) for one in rows]


def entry_of(*rows: dict[str, Any], name: str = "db") -> dict[str, Any]:
    return {"Kind": "service-intentions", "Name": name, "Sources": list(rows)}


def test_an_entry_takes_the_place_of_the_one_before_and_of_no_other() -> None:
    before = world(db=linked("db", match("web", "db", "allow", 9), match("*", "*", "deny", 5)), api=linked("api"))
    (entry,) = checked([{"Kind": "service-intentions", "Name": "db", "Sources": [{"Name": "x", "Action": "deny"}]}])
    after = propose(before, [entry])
    assert sources(after, DB) == [("x", "db", "deny"), ("*", "*", "deny")]
    assert after.touched == {DB}
    assert sources(after, API) == []
    (for_all,) = checked([{"Kind": "service-intentions", "Name": "*", "Sources": [{"Name": "x", "Action": "allow"}]}])
    after = propose(before, [for_all])
    assert sources(after, DB) == [("web", "db", "allow"), ("x", "*", "allow")]
    assert sources(after, API) == [("x", "*", "allow")]
    assert before.services[DB].intentions.value == (match("web", "db", "allow", 9), match("*", "*", "deny", 5))


def test_links_of_this_gateway_alone() -> None:
    before = world(db=linked("db"), api=linked("api"))
    services = [{"Name": "db", "SNI": "x"}, {"Name": "new"}]
    (entry,) = checked([{"Kind": "terminating-gateway", "Name": "gw", "Services": services}])
    after = propose(before, [entry])
    assert (after.linked, after.unlinked) == ({ServiceName("new")}, {API})
    assert after.touched == {DB, ServiceName("new")}
    other = propose(before, checked([{**entry, "Name": "gw-2"}]))
    assert (other.touched, other.unlinked) == (set(), set())
    everything = {**entry, "Services": [{"Name": "*"}]}
    assert propose(before, checked([everything])).remarks == [
        "Which services `*` stands for is said by Consul when the entry is written."
    ]
    assert other.remarks == ["terminating-gateway gw-2 is the entry of another gateway than gw."]


def test_what_all_services_share_concerns_all() -> None:
    before = world(db=linked("db"), api=linked("api"))
    for entry in ({"Kind": "mesh"}, {"Kind": "proxy-defaults", "Config": {"protocol": "http"}}):
        assert propose(before, checked([entry])).touched == {DB, API}
    with pytest.raises(ConfigError, match="named global"):
        propose(before, checked([{"Kind": "proxy-defaults", "Name": "x"}]))
    with pytest.raises(ConfigError, match="is not understood"):
        propose(before, checked([{"Kind": "service-defaults", "Name": "db", "Protocol": 5}]))


def test_keys_in_any_spelling() -> None:
    asked = {"path_prefix": "/", "header": {"name": "x", "present": True}}
    raw = {
        "kind": "service-intentions",
        "name": "db",
        "jwt": {"providers": [{"name": "okta"}]},
        "sources": [{"name": "web", "permissions": [{"action": "allow", "http": asked}]}],
        "meta": {"some_key": "a"},
    }  # fmt: skip
    (entry,) = checked([raw])
    (only,) = matches_of(entry)
    assert only.permissions == [
        {"Action": "allow", "HTTP": {"PathPrefix": "/", "Header": [{"Name": "x", "Present": True}]}}
    ]
    assert only.jwt == {"Providers": [{"Name": "okta"}]}
    assert entry["Meta"] == {"some_key": "a"}
    gateway = {"kind": "terminating-gateway", "name": "gw", "services": [{"name": "db", "ca_file": "/a", "sni": "x"}]}
    assert checked([gateway])[0]["Services"] == [{"Name": "db", "CAFile": "/a", "SNI": "x"}]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("x", "is an object"),
        ({"Kind": "node"}, "cannot be simulated"),
        ({"Kind": "service-defaults"}, "has no Name"),
        (entry_of(), "has no Sources"),
        (entry_of({"Action": "allow"}), "source 1 has no Name"),
        (entry_of({"Name": "a", "Action": "allow"}, {"Name": "a", "Action": "deny"}), "is in it twice"),
        (entry_of({"Name": "a", "Permissions": [{}]}, name="*"), "has no Permissions"),
        ({"Kind": "mesh", "Sauces": 1}, "which no mesh entry has"),
    ],
)  # fmt: skip
def test_what_consul_would_not_take(entry: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked([entry])


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="%"), max_size=12)


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(TEXTS.filter(bool), TEXTS, max_size=3), TEXTS)
def test_hcl_is_read_as_it_was_written(meta: dict[str, str], value: str) -> None:
    entry = {"Kind": "service-intentions", "Name": "db", "Meta": meta, "Sources": [{"Name": value, "Action": "allow"}]}
    assert read_entries(to_hcl(entry), "it") == [entry]


def test_forms_of_entries() -> None:
    text = """
# who may call
Kind = "service-intentions"
Name = "db"
Sources { # a block
  Name   = "web"
  Action = "allow"
}
Sources {
  Name = "*"
  Permissions = [
    { Action = "allow", HTTP = { PathRegex = "^/a\\\\.b$", Methods = ["GET", "PUT"] } },
  ]
}
"""
    (read,) = read_entries(text, "it")
    assert checked([read])[0]["Sources"][1]["Permissions"][0]["HTTP"]["PathRegex"] == "^/a\\.b$"
    assert len(read["Sources"]) == 2
    entry = {"Kind": "mesh"}
    assert read_entries(json.dumps(entry), "it") == [entry]
    assert read_entries(json.dumps([entry, entry]), "it") == [entry, entry]


@pytest.mark.parametrize("text", ["", " \n", "{", "[1,", "Kind = ", "a = b", 'Kind = "x" }', "Name = var.x"])
def test_what_is_no_entry_in_any_form(text: str) -> None:
    with pytest.raises(ConfigError):
        checked(read_entries(text, "it"))
