"""The files of the dashboard: complete, cached, harmless, and open where the state is not."""

from __future__ import annotations

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from plugin.admin.app import build_app
from plugin.admin.dashboard.files import FOLDER
from plugin.admin.guard import Access
from plugin.admin.search import PAGE, search_connections
from plugin.admin.token import AdminToken
from plugin.admin.view import ConnectionList, WorkerConnection
from proxy.messages import Connection
from tests.unit.plugin.admin.test_admin import View

Client = TestClient[web.Request, web.Application]
NAMES = sorted(path.name for path in FOLDER.iterdir())
TOKEN = "a-secret-of-enough-length"


@pytest.fixture
def access() -> Access:
    return Access(token=AdminToken(TOKEN), remote=True)


async def test_the_page_needs_no_token_and_its_data_do(access: Access) -> None:
    async with TestClient(TestServer(build_app(View(), access))) as client:
        for path in ("/", "/ui/main.js", "/ui/layout.css"):
            assert (await client.get(path)).status == 200
        for path in ("/api/stream", "/api/connections", "/ui", "/uix"):
            assert (await client.get(path)).status == 401
        with_token = {"Authorization": f"Bearer {TOKEN}"}
        async with client.get("/api/stream", headers=with_token) as answer:
            assert answer.status == 200
            assert (await answer.content.readline()) == b"event: snapshot\n"
        assert (await client.post("/ui/main.js")).status == 401


async def test_pages_of_other_sites_get_no_stream() -> None:
    async with TestClient(TestServer(build_app(View()))) as client:
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await client.get("/api/stream", headers=headers)).status == 403
            assert (await client.get("/ui/main.js", headers=headers)).status == 403


async def test_nothing_from_elsewhere_and_nothing_inline_is_allowed() -> None:
    async with TestClient(TestServer(build_app(View()))) as client:
        answer = await client.get("/")
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        page = await answer.text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page)


async def test_files_are_kept_by_browsers_until_they_change() -> None:
    async with TestClient(TestServer(build_app(View()))) as client:
        first = await client.get("/ui/main.js")
        assert first.headers["Cache-Control"] == "no-cache"
        assert first.content_type == "text/javascript"
        again = await client.get("/ui/main.js", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status, await again.read()) == (304, b"")
        assert (await client.get("/ui/main.js", headers={"If-None-Match": '"other"'})).status == 200


@pytest.mark.parametrize("path", ["/ui/none.js", "/ui/..%2fapp.py", "/ui/%2e%2e/app.py", "/ui/"])
async def test_no_other_file_is_served(path: str) -> None:
    async with TestClient(TestServer(build_app(View()))) as client:
        assert (await client.get(path)).status == 404


@pytest.mark.parametrize("name", NAMES)
def test_each_file_is_used_small_and_asks_nobody_else(name: str) -> None:
    text = (FOLDER / name).read_text()
    assert len(text) < 16_000
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\b|localStorage|document\.cookie", text)
    others = "".join((FOLDER / other).read_text() for other in NAMES if other != name)
    assert name == "index.html" or f"/{name}" in others


class Crowd(View):
    """Ten thousand connections of two workers, a page at a time."""

    async def connections(self, after: str, limit: int) -> ConnectionList:
        pid, number = (int(part) for part in (after or "1:0").split(":"))
        found = [self.one(pid, n) for n in range(number + 1, min(number + limit, 5000) + 1)]
        if number + limit < 5000:
            return ConnectionList(tuple(found), f"{pid}:{number + limit}")
        return ConnectionList(tuple(found), "2:0" if pid == 1 else "")

    @staticmethod
    def one(pid: int, number: int) -> WorkerConnection:
        connection = Connection(
            number=number,
            client=f"10.0.{number // 250}.{number % 250}:4000",
            source=f"spiffe://x/svc/source-{number % 100}",
            service="Billing" if number % 1000 == 0 else "other",
            sni="",
            endpoint="10.9.9.9:1",
            opened_at_s=1.0,
            bytes_received=0,
            bytes_sent=0,
            intention="",
            caller="cloud:web" if number == 4321 else "",
        )
        return WorkerConnection(pid - 1, pid, connection, f"{pid - 1}-{number}")


async def test_connections_are_found_in_all_workers_and_paged() -> None:
    assert PAGE == 1000
    crowd = Crowd()
    found, after = [], ""
    while True:
        page = await search_connections(crowd, "billing", after, 3)
        assert len(page.connections) <= 3
        found += [one.id for one in page.connections]
        after = page.next
        if not after:
            break
    assert found == [f"{worker}-{number}" for worker in (0, 1) for number in range(1000, 5001, 1000)]
    assert (await search_connections(crowd, "nowhere", "", 3)).connections == ()
    assert [one.id for one in (await search_connections(crowd, "cloud:w", "", 3)).connections] == ["0-4321", "1-4321"]
    (one,) = (await search_connections(crowd, "10.0.4.7:", "1:900", 1)).connections
    assert one.id == "0-1007"
