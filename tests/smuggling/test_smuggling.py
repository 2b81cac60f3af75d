"""The gateway and what stands behind it never disagree about where a message ends, or about its path.

Every message of the corpus goes through a real worker to nginx, to nginx over HTTP/2 and to a Python server, each with
a plain request after it. What the servers say that they have seen is compared with what the gateway's access log says
that it forwarded, and with what the corpus says about the message.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest

from proxy.model import HTTPSettings
from proxy.rules import Action
from tests.smuggling import drive
from tests.smuggling.case import MARKER, AnyCase, Case, Outcome, Seen
from tests.smuggling.corpus import CORPUS
from tests.smuggling.drive import Answer
from tests.support.eventually import eventually
from tests.support.http_client import HTTPClient, http_client
from tests.support.mesh import TRUST_DOMAIN, HandMadeMesh, sni
from tests.support.nginx import Nginx
from tests.support.python_server import PythonServer
from tests.support.seeing import SeeingServer, Sight
from tests.support.worker import WorkerProcess, running_worker

_MARKER = Seen("GET", MARKER.decode())
_CALLER = f"URI=spiffe://{TRUST_DOMAIN}/ns/default/dc/dc1/svc/web"
"""The end of the element that the gateway appends, whatever a client has put before it."""


@dataclass(slots=True)
class Outcomes:
    """What became of one message."""

    case: AnyCase
    answer: Answer
    sights: list[Sight]
    """What the back end has seen meanwhile."""


@dataclass(slots=True)
class Stand:
    """One back end behind the worker, and how far its log has been read."""

    name: str
    server: SeeingServer
    worker: WorkerProcess
    context: ssl.SSLContext
    network: str
    """``127.N``: each message comes from an address of its own, by which the access log tells them apart."""
    read: int = 0
    """Lines of the back end's log."""
    fences: int = 0

    async def all(self, found: dict[str, list[str]]) -> None:
        """Send the corpus; add what is wrong to ``found``."""
        async with http_client(self.worker.port, self.context, sni(self.name)) as fences:
            outcomes = [await self._send(number, case, fences) for number, case in enumerate(CORPUS)]
        await self.worker.record(service=self.name, path=f"/fence-{self.fences}")
        for one in outcomes:
            try:
                _check(one, self._forwarded(one.answer))
            except AssertionError as problem:
                found.setdefault(one.case.name, []).append(f"{self.name}: {problem}")

    async def _send(self, number: int, case: AnyCase, fences: HTTPClient) -> Outcomes:
        address = f"{self.network}.{number // 250}.{number % 250 + 1}"
        answer = await drive.send(self.worker.port, self.context, sni(self.name), case, address)
        return Outcomes(case, answer, await self._news(fences))

    async def _news(self, fences: HTTPClient) -> list[Sight]:
        """What the back end has seen since the last time.

        One more request on a connection of its own, a *fence*, shows that nothing else is on its way, and that nothing
        was left behind on a connection to the back end: that would be taken for its beginning.
        """
        self.fences += 1
        target = f"/fence-{self.fences}"
        assert (await fences.get(target)).status == 200

        def fenced() -> list[Sight] | None:
            new = self.server.sights()[self.read :]
            return new if any(sight.target == target for sight in new) else None

        found: list[Sight] = await eventually(fenced, what=f"{self.name} sees {target}")
        self.read += len(found)
        return [sight for sight in found if sight.target != target]

    def _forwarded(self, answer: Answer) -> list[dict[str, Any]]:
        """What the access log says of that connection's requests that went on to a back end."""
        of_it = [record for record in self.worker.records if record["client"] == answer.client]
        return [record for record in of_it if record.get("event") == "request" and record.get("endpoint")]


@asynccontextmanager
async def stands() -> AsyncIterator[list[Stand]]:
    mesh = HandMadeMesh()
    async with Nginx() as nginx, Nginx() as newer, PythonServer() as python, running_worker() as worker:
        servers: dict[str, tuple[SeeingServer, int, str]] = {
            "nginx": (nginx, nginx.port, "http"),
            "nginx-http2": (newer, newer.http2_port, "http2"),
            "python": (python, python.port, "http"),
        }
        services = [
            mesh.service(name, port, protocol=protocol, http=HTTPSettings())
            for name, (_, port, protocol) in servers.items()
        ]
        await worker.update(mesh=mesh.settings(Action.ALLOW), upserts=tuple(services))
        context = mesh.client_context(mesh.leaf("web"))
        yield [
            Stand(name, server, worker, context, f"127.{number}")
            for number, (name, (server, _, _)) in enumerate(servers.items(), 1)
        ]


@pytest.fixture(scope="module")
def findings() -> dict[str, list[str]]:
    """What was wrong, by the name of the message: all of them are sent once, each is a test."""
    return asyncio.run(_all())


async def _all() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    async with stands() as all_of_them, asyncio.TaskGroup() as group:
        for stand in all_of_them:
            group.create_task(stand.all(found))
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_nobody_disagrees_about(case: AnyCase, findings: dict[str, list[str]]) -> None:
    assert findings.get(case.name, []) == [], f"{case.why}: {getattr(case, 'sent', case)!r:.300}"


def _check(one: Outcomes, forwarded: list[dict[str, Any]]) -> None:
    case, answer = one.case, one.answer
    sights = [sight for sight in one.sights if sight.complete]
    seen = [Seen(sight.method, sight.target, sight.body or b"") for sight in sights]
    whole = [record for record in forwarded if _completed(record)]
    told = f"status {answer.statuses or answer.received[:15]!r}, seen {seen}, forwarded {forwarded}"
    assert _as_seen(sights) == _as_logged(whole), f"{_as_seen(sights)} is not what the log says: {told}"
    for sight in sights:
        _same_path(sight)
        assert sight.caller.endswith(_CALLER), f"not written by the gateway: {sight}"
    outcome = _outcome(case, seen)
    assert outcome in case.outcomes, f"{outcome}, not {' or '.join(one.value for one in case.outcomes)}: {told}"
    if isinstance(case, Case):
        assert answer.ended or case.marker_served is None, f"the gateway does not end it: {told}"
        if outcome is Outcome.CARRIED:
            _answered(case, answer, seen)


def _answered(case: Case, answer: Answer, seen: list[Seen]) -> None:
    """The client too knows where each response ends."""
    methods = [one.method for one in case.seen]
    try:
        statuses = list(drive.responses(answer.received, methods))
    except ValueError as error:
        raise AssertionError(f"the client cannot tell the responses apart, {error}: {answer.received!r}") from error
    served = [status for status in statuses if status < 400]
    assert len(served) == len(seen), f"{statuses} for {seen}"


def _completed(record: dict[str, Any]) -> bool:
    """A back end that does not take a request, or has not got all of it, has not seen it."""
    return record["status"] not in (0, 400, 405, 503)


def _as_seen(sights: list[Sight]) -> list[tuple[str, str, str]]:
    """In no order: requests of one connection of HTTP/2 overtake each other. The log leaves out queries."""
    return sorted((sight.method, sight.target.partition("?")[0], sight.host) for sight in sights)


def _as_logged(records: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return sorted((record["method"], record["path"], record.get("authority", "")) for record in records)


def _same_path(sight: Sight) -> None:
    """What the gateway decided about is what is opened."""
    path = unquote_to_bytes(sight.target.partition("?")[0].encode("latin-1")).decode("latin-1")
    if path.isascii():  # how others are decoded is the server's business
        assert sight.path == path, f"{sight.target} is {sight.path} for the back end"


def _outcome(case: AnyCase, seen: list[Seen]) -> Outcome | str:
    rest = [one for one in seen if one != _MARKER]
    marker = len(rest) < len(seen)
    if not rest:
        return Outcome.TURNED_AWAY if marker else Outcome.REFUSED
    if sorted(map(_looked_at, rest)) != sorted(map(_looked_at, case.seen)):
        return f"seen as {rest}"
    wanted = case.marker_served if isinstance(case, Case) else None
    if wanted is not None and marker != wanted:
        return f"carried, and the marker {'too' if marker else 'not'}"
    return Outcome.CARRIED


def _looked_at(one: Seen) -> tuple[str, str, bytes]:
    # nginx answers this one without looking at the body.
    return one.method, one.target, b"" if one.target == "/early" else one.body
