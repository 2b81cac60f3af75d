from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession, UnixConnector, web
from aiohttp.test_utils import TestClient, TestServer

from plugin.addresses import HostPort
from plugin.admin.app import AdminServer, build_app
from plugin.admin.guard import Access
from plugin.admin.metrics import GatewayCollector, exposition
from plugin.admin.token import VARIABLE, AdminToken, read_secret
from plugin.admin.view import ConnectionList
from plugin.answers.status import RegistrationStatus, ServiceStatus, Status, WatchStatus, WorkerStatus
from plugin.errors import ConfigError, StartError
from plugin.workers.counters import Dials, Sum, Totals

READY = Status(
    service="gw",
    service_id="gw-1",
    address="10.0.0.5:8443",
    version="1",
    pid=1,
    started_at_s=1.0,
    ready=True,
    not_ready=(),
    generation=7,
    datacenter="dc1",
    trust_domain="x.consul",
    default_action="deny",
    registration=RegistrationStatus(wanted=True, registered=True, check="passing"),
    services=(
        ServiceStatus(name="legacy", served=True, leaf_expires_at_s=9e9),
        ServiceStatus(name="broken", served=False, reasons=("no CAFile",)),
    ),
    workers=(
        WorkerStatus(index=0, pid=2, generation=7, adopted=False, draining=False, connected=True, started_at_s=1.0),
    ),
    watches=(
        WatchStatus(name="roots", known=True, age_s=3.0, problem="away"),
        WatchStatus(name="mesh", known=True, age_s=3.0, note="no such kind here"),
    ),
    consul_version="1.8.7",
    worker_restarts=4,
)
TOTALS = Totals(
    sums={
        ("legacy", "web", ""): Sum(2, 10, 20),
        ("legacy", "web", "client_eof"): Sum(5, 100, 200),
        ("", "", "no_certificate"): Sum(3),
    },
    accepted=10,
    dials={"legacy": Dials(6, 2, 1)},
)


@dataclass
class View:
    """The seam's other side, with fixed answers."""

    shown: Status = READY
    asked: list[tuple[str, int]] = field(default_factory=list)

    def not_ready(self) -> tuple[str, ...]:
        return self.shown.not_ready

    def status(self) -> Status:
        return self.shown

    def totals(self) -> Totals:
        return TOTALS

    async def connections(self, after: str, limit: int) -> ConnectionList:
        if after == "junk":
            raise ConfigError("after='junk' is not ours")
        self.asked.append((after, limit))
        return ConnectionList((), "")

    def snapshot(self) -> bytes:
        return b'{"generation": 7}'


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
async def client(view: View) -> AsyncIterator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(build_app(view))) as started:
        yield started


Client = TestClient[web.Request, web.Application]


async def test_health_says_that_the_process_lives(client: Client) -> None:
    answer = await client.get("/health")
    assert (answer.status, await answer.text()) == (200, "alive\n")


async def test_ready_names_what_is_lacking(client: Client, view: View) -> None:
    assert (await client.get("/ready")).status == 200
    view.shown = msgspec.structs.replace(READY, ready=False, not_ready=("roots are unknown",))
    answer = await client.get("/ready")
    assert (answer.status, await answer.text()) == (503, "roots are unknown\n")


async def test_status_can_be_decoded_as_what_it_is(client: Client) -> None:
    answer = await client.get("/api/status")
    assert msgspec.json.decode(await answer.read(), type=Status) == READY
    assert answer.headers["Cache-Control"] == "no-store"


async def test_connections_are_paged(client: Client, view: View) -> None:
    assert (await client.get("/api/connections?after=2:5&limit=99999999")).status == 200
    assert view.asked == [("2:5", 10_000)]
    assert (await client.get("/api/connections?limit=many")).status == 400
    answer = await client.get("/api/connections?after=junk")
    assert (answer.status, await answer.text()) == (400, "after='junk' is not ours\n")


async def test_the_snapshot_is_passed_on(client: Client) -> None:
    assert json.loads(await (await client.get("/api/snapshot")).read()) == {"generation": 7}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:19090", "localhost.evil.example", "127.0.0.1.nip.io", ""]
)
async def test_a_page_that_rebinds_its_name_is_refused(client: Client, host: str) -> None:
    assert (await client.get("/api/status", headers={"Host": host})).status == 403


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:19090", "[::1]:19090", "10.0.0.5:1"]
)
async def test_local_names_and_addresses_are_served(client: Client, host: str) -> None:
    assert (await client.get("/health", headers={"Host": host})).status == 200


async def test_metrics_are_labelled_sums(client: Client) -> None:
    answer = await client.get("/metrics")
    assert answer.content_type == "text/plain"
    lines = (await answer.text()).splitlines()
    for expected in (
        'consul_tgw_connections_open{service="legacy",source="web"} 2.0',
        'consul_tgw_connections_closed_total{reason="client_eof",service="legacy",source="web"} 5.0',
        'consul_tgw_received_bytes_total{service="legacy",source="web"} 110.0',
        'consul_tgw_handshakes_refused_total{reason="no_certificate"} 3.0',
        'consul_tgw_handshakes_refused_total{reason="not_tls"} 0.0',
        'consul_tgw_services{state="unserved"} 1.0',
        'consul_tgw_service_problems{service="broken"} 1.0',
        'consul_tgw_watches_failing{watch="roots"} 1.0',
        'consul_tgw_watches_failing{watch="mesh"} 0.0',
        'consul_tgw_denials_total{service="broken"} 0.0',
        'consul_tgw_service_unserved{service="broken"} 1.0',
        "consul_tgw_passing 1.0",
        'consul_tgw_dial_failures_total{service="legacy"} 6.0',
        'consul_tgw_endpoint_ejections_total{service="legacy"} 2.0',
        'consul_tgw_dial_shortages_total{service="legacy"} 1.0',
        'consul_tgw_dial_failures_total{service="broken"} 0.0',
        "consul_tgw_worker_restarts_total 4.0",
        "consul_tgw_generation 7.0",
        "consul_tgw_ready 1.0",
    ):
        assert expected in lines
    assert 'consul_tgw_leaf_expiry_timestamp_seconds{service="legacy"} 9e+09' in lines


def test_the_exposition_can_be_asked_for_again(view: View) -> None:
    collector = GatewayCollector(view)
    assert exposition(collector)[0].count(b"# TYPE") == exposition(collector)[0].count(b"# TYPE")


TOKEN = "a-secret-of-enough-length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def asking(access: Access, asked: list[str] | None = None) -> AsyncIterator[Client]:
    app = build_app(View(), access, refresh=lambda: (asked if asked is not None else []).append("refresh"))
    async with TestClient(TestServer(app)) as started:
        yield started


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": ""}, 401),
        ({"Authorization": TOKEN}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"Authorization": "Bearer \u00e9"}, 401),
        (BEARER, 202),
    ],
)
async def test_what_changes_something_needs_the_token(headers: dict[str, str], status: int) -> None:
    asked: list[str] = []
    async with asking(Access(token=AdminToken(TOKEN)), asked) as client:
        answer = await client.post("/api/refresh", json={}, headers=headers)
        assert answer.status == status
        assert asked == (["refresh"] if status == 202 else [])


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_a_method_that_is_not_reading_is_refused_before_any_page_sees_it(method: str) -> None:
    async with asking(Access(token=AdminToken(TOKEN))) as client:
        for path in ("/api/status", "/api/refresh", "/nowhere"):
            assert (await client.request(method, path, json={})).status == 401
    async with asking(Access()) as client:
        assert (await client.request(method, "/api/refresh", json={}, headers=BEARER)).status == 403


async def test_bodies_are_json_and_small() -> None:
    async with asking(Access(token=AdminToken(TOKEN))) as client:
        for body in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data"):
            answer = await client.post("/api/refresh", data=b"{}", headers={**BEARER, "Content-Type": body})
            assert answer.status == 415
        assert (await client.post("/api/refresh", headers=BEARER)).status == 415
        assert (await client.post("/api/refresh", json="x" * 70_000, headers=BEARER)).status == 413


async def test_other_hosts_see_the_state_with_the_token_only() -> None:
    async with asking(Access(token=AdminToken(TOKEN), remote=True)) as client:
        for path in ("/health", "/ready", "/metrics"):
            assert (await client.get(path)).status == 200
        for path in ("/api/status", "/api/snapshot", "/api/connections"):
            assert (await client.get(path)).status == 401
            assert (await client.get(path, headers=BEARER)).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:1"}, 200),
        ({"Origin": "https://localhost:1"}, 403),
    ],
)
async def test_pages_of_other_sites_get_nothing(client: Client, headers: dict[str, str], status: int) -> None:
    answer = await client.get("/api/status", headers={"Host": "localhost:1", **headers})
    assert answer.status == status
    assert not [name for name in answer.headers if name.startswith("Access-Control-")]


async def test_following_a_link_changes_nothing() -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    async with asking(Access(token=AdminToken(TOKEN))) as client:
        assert (await client.post("/api/refresh", json={}, headers={**BEARER, **followed})).status == 403


@pytest.mark.parametrize("path", ["/health", "/api/status", "/nowhere"])
async def test_every_answer_is_hardened(client: Client, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Connection"] == "close"
    assert headers["Server"] == "consul-tgw"


def test_a_token_is_never_shown() -> None:
    assert TOKEN not in f"{AdminToken(TOKEN)!r} {Access(token=AdminToken(TOKEN))!r}"


def test_a_token_comes_from_a_private_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match=f"is open to other users; run chmod 600 {file}"):
        read_secret(file, {})
    file.chmod(0o600)
    assert read_secret(file, {VARIABLE: "another-secret-of-enough-length"}) == TOKEN
    assert read_secret(None, {VARIABLE: TOKEN}) == TOKEN
    assert read_secret(None, {}) == ""
    for unusable in ("short", "with a space in the middle", "\u00e9" * 20):
        with pytest.raises(ConfigError, match="at least 16 printable") as raised:
            read_secret(None, {VARIABLE: unusable})
        assert unusable not in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_secret(tmp_path / "absent", {})


async def test_a_unix_socket_is_private_and_replaces_only_a_dead_one(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first, second = AdminServer(build_app(View())), AdminServer(build_app(View()))
    await first.start_unix(path)
    try:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        with pytest.raises(StartError, match="another process listens there; choose another"):
            await second.start_unix(path)
        async with (
            ClientSession(connector=UnixConnector(str(path))) as session,
            session.get("http://localhost/health") as answer,
        ):
            assert answer.status == 200
    finally:
        await first.stop()
        await second.stop()
    assert os.listdir(tmp_path) == []


async def test_a_taken_port_is_passed_over_unless_it_was_chosen(view: View) -> None:
    first, second, third = (AdminServer(build_app(view)) for _ in range(3))
    taken = await first.start(HostPort("127.0.0.1", 0), chosen=True)
    try:
        found = await second.start(taken, chosen=False)
        assert found.port > taken.port
        with pytest.raises(StartError, match="--admin-address"):
            await third.start(taken, chosen=True)
    finally:
        for server in (first, second, third):
            await server.stop()
