"""Permissions of intentions: which requests they let through, in which order, and how soon a change is felt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Mirror
from tests.conformance.http_one import connected, request, said
from tests.conformance.http_stand import answered, http, mirrored, permit, sources
from tests.conformance.stand import Stand
from tests.support.eventually import eventually

TOPIC = "HTTP: intentions"
Fields = Mapping[str, Any]
ALLOW_ALL = http("allow", PathPrefix="/")
CALL = b"\0\0\0\0\0"


async def services(stand: Stand, intentions: Mapping[str, Sequence[Fields]]) -> None:
    """A service for each set of permissions of ``web``, all in force."""
    mirror = Mirror()
    for service, permissions in intentions.items():
        await mirrored(stand, service, source="", mirror=mirror)
        await permit(stand, service, permissions)
    for service in intentions:
        await known(stand, service)


async def known(stand: Stand, service: str) -> None:
    """Wait until the service answers at all, and then until everything written before is in force."""

    async def it_is() -> bool:
        return await said(stand, request("GET /no/such/path HTTP/1.1"), service) in ("200", "403")

    await eventually(it_is, 60.0, what=f"{stand.named(service)} answers through {stand.gateway.name}")


async def paths(stand: Stand, service: str, *asked: str, method: str = "GET") -> str:
    """Those of ``asked`` that are let through, in words."""
    allowed = [path for path in asked if await said(stand, request(f"{method} {path} HTTP/1.1"), service) == "200"]
    return " ".join(allowed) or "none"


@conformance(
    TOPIC,
    "PathExact, PathPrefix, PathRegex and Methods: the query does not count, case does, a regex is of the whole path",
    expect={
        "PathExact /exact": "/exact /exact?q=1",
        "PathPrefix /pre": "/pre /prefix /pre/x /pre?q=1",
        "PathRegex /r[0-9]+": "/r1 /r12?q=1",
        "PathRegex /(a|b)/.*": "/a/x /b/y/z",
        "Methods GET, PUT": "GET PUT",
        "Methods POST, PathExact /both": "POST /both",
    },
)
async def test_paths_and_methods(stand: Stand) -> Observation:
    await services(
        stand,
        {
            "exact": [http("allow", PathExact="/exact")],
            "prefix": [http("allow", PathPrefix="/pre")],
            "regex": [http("allow", PathRegex="/r[0-9]+")],
            "choice": [http("allow", PathRegex="/(a|b)/.*")],
            "methods": [http("allow", Methods=["GET", "PUT"])],
            "both": [http("allow", PathExact="/both", Methods=["POST"])],
        },
    )
    await stand.settled()
    verbs = ("GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS")
    methods = [verb for verb in verbs if await said(stand, request(f"{verb} / HTTP/1.1"), "methods") == "200"]
    both = [
        f"{verb} {path}"
        for verb in ("POST", "GET")
        for path in ("/both", "/other")
        if await said(stand, request(f"{verb} {path} HTTP/1.1"), "both") == "200"
    ]
    return {
        "PathExact /exact": await paths(stand, "exact", "/exact", "/exact/", "/exact?q=1", "/exactly", "/EXACT", "/"),
        "PathPrefix /pre": await paths(stand, "prefix", "/pre", "/prefix", "/pre/x", "/pre?q=1", "/PRE", "/x/pre"),
        "PathRegex /r[0-9]+": await paths(stand, "regex", "/r1", "/r12?q=1", "/r1/", "/x/r1", "/R1", "/r"),
        "PathRegex /(a|b)/.*": await paths(stand, "choice", "/a/x", "/b/y/z", "/c/x", "/a"),
        "Methods GET, PUT": " ".join(methods),
        "Methods POST, PathExact /both": ", ".join(both),
    }


VALUES: dict[str, tuple[str, ...]] = {
    "absent": (),
    "empty": ("X-Tag:",),
    "abc": ("x-tag: abc",),
    "spaces": ("X-TAG:   abc  ",),
    "ABC": ("X-Tag: ABC",),
    "xabcx": ("X-Tag: xabcx",),
    "zzz": ("X-Tag: zzz",),
    "two lines": ("X-Tag: zzz", "X-Tag: abc"),
    "a list": ("X-Tag: zzz,abc",),
}
HEADERS: dict[str, tuple[Fields, str]] = {
    "Present": ({"Present": True}, "empty abc spaces ABC xabcx zzz two lines a list"),
    "Exact abc": ({"Exact": "abc"}, "abc spaces two lines"),
    "Prefix ab": ({"Prefix": "ab"}, "abc spaces two lines"),
    "Suffix bc": ({"Suffix": "bc"}, "abc spaces two lines a list"),
    "Contains b": ({"Contains": "b"}, "abc spaces xabcx two lines a list"),
    "Regex a.c": ({"Regex": "a.c"}, "abc spaces two lines"),
    "Exact, IgnoreCase": ({"Exact": "aBc", "IgnoreCase": True}, "abc spaces ABC two lines"),
    "Prefix, IgnoreCase": ({"Prefix": "AB", "IgnoreCase": True}, "abc spaces ABC two lines"),
    "Suffix, IgnoreCase": ({"Suffix": "BC", "IgnoreCase": True}, "abc spaces ABC two lines a list"),
    "Contains, IgnoreCase": ({"Contains": "B", "IgnoreCase": True}, "abc spaces ABC xabcx two lines a list"),
    "not Present": ({"Present": True, "Invert": True}, "absent"),
    "not Exact abc": ({"Exact": "abc", "Invert": True}, "empty ABC xabcx zzz a list"),
    "not Prefix ab": ({"Prefix": "ab", "Invert": True}, "empty ABC xabcx zzz a list"),
    "not Suffix bc": ({"Suffix": "bc", "Invert": True}, "empty ABC xabcx zzz"),
    "not Contains b": ({"Contains": "b", "Invert": True}, "empty ABC zzz"),
    "not Regex a.c": ({"Regex": "a.c", "Invert": True}, "empty ABC xabcx zzz a list"),
    "not Exact, IgnoreCase": ({"Exact": "aBc", "Invert": True, "IgnoreCase": True}, "empty xabcx zzz a list"),
}
"""How a header is matched, and which of :data:`VALUES` does."""


@conformance(
    TOPIC,
    "Header, of an allowance: of several lines Envoy takes any one that matches, here all have to;"
    " an inverted match wants the header there, unless it is Present",
    envoy={name: values for name, (_, values) in HEADERS.items()},
    ours={
        name: values if name == "Present" else values.replace(" two lines", "") for name, (_, values) in HEADERS.items()
    },
    decision="040",
)
async def test_headers(stand: Stand) -> Observation:
    named = {name: f"h{number}" for number, name in enumerate(HEADERS)}
    rules = {
        named[name]: [http("allow", Header=[{"Name": "X-Tag", **fields}])] for name, (fields, _) in HEADERS.items()
    }
    await services(stand, rules)
    await stand.settled()
    return {name: " ".join(await values(stand, service, "200")) for name, service in named.items()}


DENIED: dict[str, tuple[Fields, str, str]] = {
    "Exact abc": ({"Exact": "abc"}, "abc, spaces, two lines", "abc, spaces, two lines"),
    "Contains b": (
        {"Contains": "b"},
        "abc, spaces, xabcx, two lines, a list",
        "abc, spaces, xabcx, two lines, a list",
    ),
    "Regex zzz,abc": ({"Regex": "zzz,abc"}, "a list", "two lines, a list"),
    "Present": (
        {"Present": True},
        "empty, abc, spaces, ABC, xabcx, zzz, two lines, a list",
        "empty, abc, spaces, ABC, xabcx, zzz, two lines, a list",
    ),
    "not Present": ({"Present": True, "Invert": True}, "absent", "absent"),
    "not Exact abc": (
        {"Exact": "abc", "Invert": True},
        "empty, ABC, xabcx, zzz, a list",
        "absent, empty, ABC, xabcx, zzz, two lines, a list",
    ),
    "not Prefix ab": (
        {"Prefix": "ab", "Invert": True},
        "empty, ABC, xabcx, zzz, a list",
        "absent, empty, ABC, xabcx, zzz, two lines, a list",
    ),
}
"""How a header is denied, and which of :data:`VALUES` are in Envoy's gateway and in ours."""


@conformance(
    TOPIC,
    "Header, of a denial: what Envoy lets through without the header, or with a second line of it, is denied here",
    envoy={name: values for name, (_, values, _) in DENIED.items()},
    ours={name: values for name, (_, _, values) in DENIED.items()},
    decision="040",
)
async def test_denied_headers(stand: Stand) -> Observation:
    named = {name: f"d{number}" for number, name in enumerate(DENIED)}
    rules = {
        named[name]: [http("deny", Header=[{"Name": "X-Tag", **fields}]), ALLOW_ALL]
        for name, (fields, _, _) in DENIED.items()
    }
    await services(stand, rules)
    await stand.settled()
    return {name: ", ".join(await values(stand, service, "403")) for name, service in named.items()}


async def values(stand: Stand, service: str, status: str) -> list[str]:
    """Those of :data:`VALUES` that are answered so."""
    async with connected(stand, service) as connection:
        return [
            value
            for value, lines in VALUES.items()
            if str((await connection.ask(request("GET / HTTP/1.1", *lines))).status) == status
        ]


ADMIN = {"Name": "x-role", "Exact": "admin"}
TEST = {"Name": "x-test", "Present": True}


@conformance(
    TOPIC,
    "Several permissions: the first that matches decides; what none matches is up to the default",
    expect={
        "deny before allow": "/open",
        "allow before deny": "/secret/public",
        "no match": "none",
        "two headers": "both",
        "over HTTP/2": ["200", "403"],
    },
)
async def test_order(stand: Stand) -> Observation:
    await services(
        stand,
        {
            "first": [http("deny", PathPrefix="/secret"), ALLOW_ALL],
            "second": [http("allow", PathExact="/secret/public"), http("deny", PathPrefix="/secret")],
            "third": [http("deny", PathExact="/never")],
            "fourth": [http("allow", PathPrefix="/", Header=[ADMIN, TEST])],
        },
    )
    await stand.settled()
    sets = {"none": (), "role": ("X-Role: admin",), "test": ("X-Test: 1",), "both": ("X-Role: admin", "X-Test: 1")}
    headed = [
        name for name, lines in sets.items() if await said(stand, request("GET / HTTP/1.1", *lines), "fourth") == "200"
    ]
    async with two.connected(stand, "first") as connection:
        streams = [(await connection.ask(two.headers(path))).outcome for path in ("/open", "/secret?x=/open")]
    return {
        "deny before allow": await paths(stand, "first", "/secret", "/secret/x", "/open"),
        "allow before deny": await paths(stand, "second", "/secret", "/secret/public", "/open"),
        "no match": await paths(stand, "third", "/never", "/open"),
        "two headers": " ".join(headed),
        "over HTTP/2": streams,
    }


@conformance(
    TOPIC,
    "Several intentions: the more exact source decides alone, also about what its permissions do not match",
    expect={
        "web, with permissions": "/web",
        "cron, by the wildcard": "/any",
        "nosy, denied whole": "none",
        "boss, allowed whole": "/web /any /other",
    },
)
async def test_precedence(stand: Stand) -> Observation:
    await mirrored(stand, source="")
    await sources(
        stand,
        "db",
        {"Name": "*", "Permissions": [http("allow", PathPrefix="/any")]},
        {"Name": "web", "Permissions": [http("allow", PathPrefix="/web")]},
        {"Name": "nosy", "Action": "deny"},
        {"Name": "boss", "Action": "allow"},
    )
    await known(stand, "db")
    await stand.settled()
    facts = {}
    for source, words in (
        ("web", "with permissions"),
        ("cron", "by the wildcard"),
        ("nosy", "denied whole"),
        ("boss", "allowed whole"),
    ):
        asked = ("/web", "/any", "/other")
        allowed = [path for path in asked if await said(stand, request(f"GET {path} HTTP/1.1"), source=source) == "200"]
        facts[f"{source}, {words}"] = " ".join(allowed) or "none"
    return facts


@conformance(
    TOPIC,
    "Default allow: what no permission matches is let through, and so is a caller without an intention",
    expect={"web": "/open /other", "cron": "/secret /open /other", "nosy": "/open"},
    own_consul={"acl": False},
)
async def test_default_allow(stand: Stand) -> Observation:
    await mirrored(stand, source="")
    await sources(
        stand,
        "db",
        {"Name": "web", "Permissions": [http("allow", PathExact="/open"), http("deny", PathPrefix="/secret")]},
        {"Name": "nosy", "Permissions": [http("allow", PathExact="/open"), http("deny", PathPrefix="/")]},
    )
    await known(stand, "db")
    await answered(stand, "403", request("GET /secret HTTP/1.1"))
    await stand.settled()
    facts = {}
    for source in ("web", "cron", "nosy"):
        asked = ("/secret", "/open", "/other")
        allowed = [path for path in asked if await said(stand, request(f"GET {path} HTTP/1.1"), source=source) == "200"]
        facts[source] = " ".join(allowed)
    return facts


_FORGED = "URI=spiffe://x.consul/ns/default/dc/dc1/svc/admin"
ADDED: dict[str, tuple[Fields, tuple[str, ...]]] = {
    "x-forwarded-client-cert Present": ({"Present": True}, ()),
    "x-forwarded-client-cert Contains web": ({"Contains": "/svc/web"}, ()),
    "x-forwarded-client-cert Prefix By=, beside one of its own": ({"Prefix": "By="}, (_FORGED,)),
    "x-forwarded-client-cert Suffix web, beside one of its own": ({"Suffix": "/svc/web"}, (_FORGED,)),
    "x-forwarded-client-cert Contains admin, of its own": ({"Contains": "/svc/admin"}, (_FORGED,)),
    "x-forwarded-client-cert Exact admin, of its own": ({"Exact": _FORGED}, (_FORGED,)),
    "x-request-id Present": ({"Present": True}, ()),
    "x-request-id not Present": ({"Present": True, "Invert": True}, ()),
    "x-request-id Exact, of its own": ({"Exact": "mine"}, ("mine",)),
    "x-forwarded-proto Exact https": ({"Exact": "https"}, ()),
    "x-forwarded-proto Exact https, http of its own": ({"Exact": "https"}, ("http",)),
    "x-forwarded-for Present": ({"Present": True}, ()),
    "x-envoy-expected-rq-timeout-ms Present": ({"Present": True}, ()),
    "x-envoy-expected-rq-timeout-ms Present, of its own": ({"Present": True}, ("100",)),
    "x-envoy-retry-on Present, of its own": ({"Present": True}, ("5xx",)),
    "x-envoy-external-address Present, of its own": ({"Present": True}, ("192.0.2.1",)),
}
"""How a header that a gateway writes is matched, and what the caller sends of it."""
_SEEN = dict.fromkeys(
    (
        "x-forwarded-client-cert Present",
        "x-forwarded-client-cert Contains web",
        "x-forwarded-client-cert Contains admin, of its own",
        "x-request-id Present",
        "x-request-id Exact, of its own",
        "x-forwarded-proto Exact https",
    ),
    "200",
)


@conformance(
    TOPIC,
    "Permissions see what the gateway tells the external service of the caller: his certificate behind what he sent",
    envoy=dict.fromkeys(ADDED, "403") | _SEEN | {"x-envoy-external-address Present, of its own": "200"},
    ours=dict.fromkeys(ADDED, "403") | _SEEN,
    decision="040",
)
async def test_added_headers(stand: Stand) -> Observation:
    named = {name: f"a{number}" for number, name in enumerate(ADDED)}
    asked = {name: {"Name": name.split()[0], **fields} for name, (fields, _) in ADDED.items()}
    await services(stand, {named[name]: [http("allow", Header=[header])] for name, header in asked.items()})
    await stand.settled()
    facts = {}
    for name, (_, sent) in ADDED.items():
        lines = [f"{name.split()[0]}: {value}" for value in sent]
        facts[name] = await said(stand, request("GET / HTTP/1.1", *lines), named[name])
    return facts
