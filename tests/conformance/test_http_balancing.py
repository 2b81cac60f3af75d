"""How requests are spread over the instances, request by request."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from plugin.dev.external import ExternalService
from tests.conformance import http_two as two
from tests.conformance.case import Observation, conformance
from tests.conformance.http_mirror import Exchange, Mirror, Script
from tests.conformance.http_one import Answer, ask, connected, request
from tests.conformance.http_stand import answered, reached
from tests.conformance.stand import Stand
from tests.support.eventually import eventually

TOPIC = "HTTP: balancing"
NAMES = ("one", "two", "three")
_MANY = 40
"""Values that meet each of three instances if they are spread at all: the odds against are beyond a million to one."""


def named(name: str, status: str = "200 OK") -> Script:
    async def answer(exchange: Exchange) -> bool:
        await exchange.read_body()
        body = name.encode()
        await exchange.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return True

    return answer


async def instance(stand: Stand, name: str, script: Script | None = None, **register: Any) -> Mirror:
    """One that says its name to whatever it is asked."""
    mirror = Mirror()
    mirror.scripts = _Always(script or named(name))
    backend = await stand.backend(mirror.serve)
    await stand.register("db", backend.port, node=name, **register)
    return mirror


class _Always(dict[str, Script]):
    """The same script for every path."""

    def __init__(self, script: Script) -> None:
        super().__init__()
        self.script = script

    def get(self, key: str, default: Any = None) -> Any:
        return self.script


async def balanced(stand: Stand, policy: str = "", hash_policies: Sequence[Any] = (), **config: Any) -> None:
    """Link ``db``, whose instances are registered."""
    await stand.config("service-defaults", "db", Protocol="http")
    if policy:
        balancer = {"Policy": policy, "HashPolicies": list(hash_policies), **config}
        await stand.config("service-resolver", "db", LoadBalancer=balancer)
    await stand.intention("web", "db")
    await stand.link("db")
    await reached(stand)
    await stand.settled()


async def offered(stand: Stand, policy: str = "", hash_policies: Sequence[Any] = (), **config: Any) -> None:
    for name in NAMES:
        await instance(stand, name)
    await balanced(stand, policy, hash_policies, **config)


async def tally(stand: Stand, *requests: bytes) -> dict[str, int]:
    """Who answered so many of these requests, all on one connection."""
    async with connected(stand) as connection:
        names = Counter([(await connection.ask(data)).text for data in requests])
    return dict(sorted(names.items()))


@conformance(
    TOPIC,
    "Requests on one connection are balanced one by one, whichever version their client speaks",
    expect={"HTTP/1.1": [4, 4, 4], "HTTP/2": [4, 4, 4]},
)
async def test_by_request(stand: Stand) -> Observation:
    await offered(stand)
    one = await tally(stand, *[request()] * 12)
    async with two.connected(stand) as connection:
        other = Counter([(await connection.ask(two.headers())).body for _ in range(12)])
    return {"HTTP/1.1": list(one.values()), "HTTP/2": list(other.values())}


HASHED: dict[str, tuple[Any, Callable[[int], bytes]]] = {
    "header": (
        {"Field": "header", "FieldValue": "x-user"},
        lambda user: request("GET / HTTP/1.1", f"X-User: {user}"),
    ),
    "cookie": (
        {"Field": "cookie", "FieldValue": "session"},
        lambda user: request("GET / HTTP/1.1", f"Cookie: a=b; session={user}"),
    ),
    "query_parameter": (
        {"Field": "query_parameter", "FieldValue": "user"},
        lambda user: request(f"GET /?x=y&user={user} HTTP/1.1"),
    ),
}


def hashing(policy: str, field: str) -> Callable[[Stand], Awaitable[Observation]]:
    hashed, of = HASHED[field]

    async def body(stand: Stand) -> Observation:
        await offered(stand, policy, [hashed])
        same = await tally(stand, *[of(7)] * 20)
        others = await tally(stand, *map(of, range(_MANY)))
        absent = await tally(stand, *[request()] * _MANY)
        return {
            "instances that serve one value": len(same),
            "instances that serve 40": len(others),
            "requests without it": len(absent),
        }

    return body


_STICKY = {"instances that serve one value": 1, "instances that serve 40": 3, "requests without it": 3}

test_header = conformance(TOPIC, "ring_hash by a header", expect=_STICKY)(hashing("ring_hash", "header"))
test_cookie = conformance(TOPIC, "ring_hash by a cookie", expect=_STICKY)(hashing("ring_hash", "cookie"))
test_query = conformance(TOPIC, "maglev by a query parameter", expect=_STICKY)(hashing("maglev", "query_parameter"))


@conformance(
    TOPIC,
    "A cookie with a CookieConfig is given to a client that has none, and leads it back",
    expect={"cookie": "session=VALUE; Max-Age=60; Path=/; HttpOnly", "who answers with it": 1, "given again": False},
)
async def test_given_cookie(stand: Stand) -> Observation:
    given = {"Field": "cookie", "FieldValue": "session", "CookieConfig": {"TTL": "60s", "Path": "/"}}
    await offered(stand, "ring_hash", [given])
    answer = await ask(stand, request())
    cookie = answer.value("set-cookie")
    value = cookie.partition(";")[0]
    answers: list[Answer] = [await ask(stand, request("GET / HTTP/1.1", f"Cookie: {value}")) for _ in range(10)]
    return {
        "cookie": re.sub(r'session="?[^;"]+"?', "session=VALUE", cookie),
        "who answers with it": len({one.text for one in answers} | {answer.text}),
        "given again": any(one.value("set-cookie") for one in answers),
    }


@conformance(
    TOPIC,
    "Several hash policies: a terminal one that has a value decides alone, without a value the next one does",
    expect={"header decides": 1, "query decides without the header": 1, "queries apart": 3},
)
async def test_terminal(stand: Stand) -> Observation:
    header = {"Field": "header", "FieldValue": "x-user", "Terminal": True}
    query = {"Field": "query_parameter", "FieldValue": "user"}
    await offered(stand, "ring_hash", [header, query])

    def both(user: int) -> bytes:
        return request(f"GET /?user={user} HTTP/1.1", "X-User: 7")

    def alone(user: int) -> bytes:
        return request(f"GET /?user={user} HTTP/1.1")

    return {
        "header decides": len(await tally(stand, *map(both, range(_MANY)))),
        "query decides without the header": len(await tally(stand, *[alone(7)] * 20)),
        "queries apart": len(await tally(stand, *map(alone, range(_MANY)))),
    }


@conformance(
    TOPIC,
    "least_request: requests that wait keep an instance from the next ones",
    expect={"open requests of each": [4, 4, 4]},
)
async def test_least_request(stand: Stand) -> Observation:
    release = asyncio.Event()
    waiting: Counter[str] = Counter()

    async def wait(exchange: Exchange, name: str) -> bool:
        if exchange.seen.path != "/wait":
            return await named(name)(exchange)
        waiting[name] += 1
        await release.wait()
        return await named(name)(exchange)

    for name in NAMES:
        await instance(stand, name, functools.partial(wait, name=name))
    await balanced(stand, "least_request", LeastRequestConfig={"ChoiceCount": 50})
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(stand)) for _ in range(12)]
        for number, connection in enumerate(connections, 1):
            await connection.send(request("GET /wait HTTP/1.1"))
            await eventually(lambda: waiting.total() == number, what="the request came")  # noqa: B023
        found = sorted(waiting.values())
        release.set()
        for connection in connections:
            await connection.receive()
    return {"open requests of each": found}


@conformance(
    TOPIC,
    "Subsets of a resolver by server name, over HTTP",
    expect={"v1": ["one"], "v2": ["two"], "no subset": ["one", "two"]},
)
async def test_subsets(stand: Stand) -> Observation:
    for name, version in (("one", "v1"), ("two", "v2")):
        await instance(stand, name, meta={"version": version})
    subsets = {version: {"Filter": f"Service.Meta.version == {version}"} for version in ("v1", "v2")}
    await stand.config("service-resolver", "db", Subsets=subsets)
    await balanced(stand)
    facts = {}
    for subset in ("v1", "v2", ""):
        await reached(stand, subset=subset)
        async with connected(stand, subset=subset) as connection:
            names = {(await connection.ask(request())).text for _ in range(8)}
        facts[subset or "no subset"] = sorted(names)
    return facts


_ASKED = 120


async def spread(stand: Stand) -> Counter[str]:
    """What became of many requests."""
    async with connected(stand) as connection:
        return Counter([str((await connection.ask(request())).status) for _ in range(_ASKED)])


def _words(errors: int, share: int) -> str:
    """How many of the requests failed, as far as chance allows."""
    if errors == 0:
        return "none"
    if errors == share:
        return "every one that came to it"
    return "about five" if 3 <= errors <= 7 else str(errors)


async def failing(stand: Stand, sound: int, script: Script | None) -> str:
    """What one instance costs that answers by ``script``, or refuses connections, beside ``sound`` others."""
    for number in range(sound):
        await instance(stand, f"sound-{number}", named("sound"))
    await balanced(stand)
    if script is not None:
        await instance(stand, "bad", script)
    else:
        gone: ExternalService = await stand.backend()
        await gone.stop()
        await stand.register("db", gone.port, node="bad")
    await stand.settled()
    first, second = [_ASKED - (await spread(stand))["200"] for _ in range(2)]
    share = _ASKED // (sound + 1)
    return f"{_words(first, share)}, then {_words(second, share)}"


_BAD = named("bad", "500 Internal Server Error")


@conformance(
    TOPIC,
    "One of three instances answers with 500 to all requests: Envoy's limit of 10 % of the instances keeps it in",
    expect={"requests that fail": "every one that came to it, then every one that came to it"},
)
async def test_failing_of_three(stand: Stand) -> Observation:
    return {"requests that fail": await failing(stand, 2, _BAD)}


@conformance(
    TOPIC,
    "One of twelve instances answers with 500 to all requests: it is left out after five",
    expect={"requests that fail": "about five, then none"},
)
async def test_failing_of_many(stand: Stand) -> Observation:
    return {"requests that fail": await failing(stand, 11, _BAD)}


@conformance(
    TOPIC,
    "One of three instances refuses connections: Envoy fails every request that comes to it, here another one answers",
    envoy={"requests that fail": "every one that came to it, then every one that came to it"},
    ours={"requests that fail": "none, then none"},
    decision="012",
)
async def test_dead_of_three(stand: Stand) -> Observation:
    return {"requests that fail": await failing(stand, 2, None)}


@conformance(
    TOPIC,
    "The only instance answers with 500 time and again: it is used all the same",
    expect={"answers": {"500": 20}},
)
async def test_only_instance(stand: Stand) -> Observation:
    await instance(stand, "bad", named("bad", "500 Internal Server Error"))
    await stand.config("service-defaults", "db", Protocol="http")
    await stand.intention("web", "db")
    await stand.link("db")
    await answered(stand, "500")
    async with connected(stand) as connection:
        return {"answers": dict(Counter([str((await connection.ask(request())).status) for _ in range(20)]))}
