"""A real browser: Debian's Chromium without a window, driven through its DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import aiohttp

from plugin.dev import locate
from plugin.dev.processes import Child, Launcher, wait_until
from tests.support.eventually import SCALE

_DEADLINE_S = 30.0 * SCALE
# Nothing but what the test asks for is to be looked up or connected to.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--remote-debugging-port=0",
)


class Browser(Launcher):
    """One page of it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="consul-tgw-browser-", ignore_cleanup_errors=True)
        self._numbers = itertools.count(1)
        self._http: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._session = ""
        self.child: Child | None = None
        self.requested: list[str] = []
        """Addresses that pages have asked for, since :meth:`watch`."""
        self.problems: list[str] = []
        """What the console of the page has said of errors, since then."""

    async def start(self) -> None:
        profile = Path(self._folder.name) / "profile"
        log = Path(self._folder.name) / "chromium.log"
        command = [str(locate.chromium()), *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.child = Child("Chromium", command, log)
        chosen = profile / "DevToolsActivePort"
        await self.child.started(lambda: chosen.exists() and len(chosen.read_text().splitlines()) == 2)
        port, path = chosen.read_text().splitlines()
        self._http = aiohttp.ClientSession()
        self._socket = await self._http.ws_connect(f"ws://127.0.0.1:{port}{path}", max_msg_size=0)
        target = await self._call("Target.createTarget", url="about:blank")
        attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]

    async def stop(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._http is not None:
            await self._http.close()
        if self.child is not None:
            await self.child.terminate()
            self.child = None
        self._folder.cleanup()

    async def open(self, address: str) -> None:
        """:raises AssertionError: when the page cannot be loaded."""
        loading = await self._call("Page.navigate", url=address)
        assert "errorText" not in loading, loading["errorText"]

        async def loaded() -> bool:
            wanted = f"document.readyState === 'complete' && location.href.startsWith({address!r})"
            return bool(await self.run(wanted))

        await wait_until(loaded, _DEADLINE_S, what=f"the page {address} is loaded")

    async def run(self, script: str) -> Any:
        """The value of an expression, or what its promise becomes. :raises AssertionError: when it throws."""
        done = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def watch(self) -> None:
        """Note from now on what pages ask for, and what goes wrong in them."""
        for domain in ("Network", "Runtime", "Log"):
            await self._call(f"{domain}.enable")

    async def size(self, width: int, height: int, scheme: str = "light") -> None:
        """Of the window, in CSS pixels; ``scheme`` is what the system prefers, ``light`` or ``dark``."""
        await self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        await self._call("Emulation.setEmulatedMedia", features=media)

    async def picture(self) -> bytes:
        """PNG of what the window shows."""
        return base64.b64decode((await self._call("Page.captureScreenshot", format="png"))["data"])

    async def press(self, key: str, *, control: bool = False) -> None:
        """``Tab``, ``ArrowDown`` ..., as the keyboard does, with Ctrl held if ``control``."""
        codes = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowUp": 38, "ArrowDown": 40}
        pressed: dict[str, object] = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        if control:
            pressed["modifiers"] = 2
        if key == "Enter":
            # Without its text it is no Enter to a form.
            pressed["text"] = "\r"
        for kind in ("keyDown" if key == "Enter" else "rawKeyDown", "keyUp"):
            await self._call("Input.dispatchKeyEvent", type=kind, **pressed)

    async def type(self, selector: str, text: str) -> None:
        """Put ``text`` into an input, in place of what is there."""
        field = f"document.querySelector({json.dumps(selector)})"
        told = f"{field}.value = {json.dumps(text)}; {field}.dispatchEvent(new Event('input'))"
        await self.run(told)

    def _note(self, event: dict[str, Any]) -> None:
        method, said = event.get("method", ""), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requested.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(said["exceptionDetails"])[:1000])
        elif (method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning")) or (
            method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert")
        ):
            self.problems.append(json.dumps(said)[:1000])

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        assert self._socket is not None
        number = next(self._numbers)
        call: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        await self._socket.send_json(call)
        while True:
            answer = await self._socket.receive_json(timeout=_DEADLINE_S)
            self._note(answer)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
