"""A real browser talks over a websocket through its sidecar and the gateway with a server that knows no mesh."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.http.conftest import PAGES, HTTPStage
from tests.support.browser import Browser
from tests.support.eventually import eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

_OPEN = """
new Promise((opened, failed) => {
    window.heard = [];
    window.ended = null;
    window.socket = new WebSocket(`ws://${location.host}/socket`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => opened("open");
    socket.onclose = (event) => { window.ended = event.code; failed(new Error(`closed with ${event.code}`)); };
    socket.onmessage = (event) => heard.push(event.data);
})
"""


@pytest_asyncio.fixture(loop_scope="session")
async def browser(http_stage: HTTPStage) -> AsyncIterator[Browser]:
    """With the page of the service, as the sidecar shows it."""
    async with Browser() as browser:
        await browser.open(f"http://127.0.0.1:{http_stage.ports[PAGES]}/")
        yield browser
    await http_stage.decide(PAGES, "allow")


async def heard(browser: Browser, count: int) -> list[str]:
    async def all_of_them() -> bool:
        return bool(await browser.run(f"heard.length >= {count}"))

    await eventually(all_of_them, what=f"{count} messages have come back")
    found: list[str] = await browser.run("heard")
    return found


async def test_a_websocket_lives_as_long_as_its_permission(http_stage: HTTPStage, browser: Browser) -> None:
    assert await browser.run("document.getElementById('greeting').textContent") == "Hello"
    assert await browser.run(_OPEN) == "open"
    await browser.run("for (let n = 0; n < 100; n++) socket.send(`message ${n}`)")
    assert await heard(browser, 100) == [f"echo of message {number}" for number in range(100)]
    await browser.run("heard.length = 0; socket.send(new Uint8Array(1_000_000).fill(7))")
    same = "heard.length === 1 && heard[0].byteLength === 1_000_000 && new Uint8Array(heard[0]).every((b) => b === 7)"
    await eventually(lambda: browser.run(same), what="a large message has come back as it was")

    await http_stage.decide(PAGES, "deny")
    await eventually(lambda: browser.run("ended"), what="the socket is closed")
    # 1006: without the words of a close. Nobody of both ends has closed it.
    assert await browser.run("ended") == 1006
    await eventually(lambda: http_stage.pages.sockets_ended, what="the server knows")
    assert "status is 403" in await browser.run("fetch('/').then((answer) => `status is ${answer.status}`)")
    with pytest.raises(AssertionError, match="closed with 1006"):
        await browser.run(_OPEN)

    await http_stage.decide(PAGES, "allow")
    assert await browser.run(_OPEN) == "open"
    await browser.run("socket.send('again')")
    assert await heard(browser, 1) == ["echo of again"]
