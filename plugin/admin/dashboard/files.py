"""The files of the page, as they are in ``plugin/admin/ui``: few, small, read once and kept.

They hold no state and so need no token; what the page shows it asks for itself, as any other client.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path

from aiohttp import ETag, web

FOLDER = Path(__file__).parent.parent / "ui"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Of CSP level 3: nothing from elsewhere, nothing inline, and no text ever becomes markup."""
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    content_type: str
    etag: str


class Files:
    def __init__(self) -> None:
        self._files: dict[str, _File] = {}

    async def page(self, request: web.Request) -> web.Response:
        """The dashboard; it holds no data of its own."""
        return await self._answer(request, "index.html")

    async def file(self, request: web.Request) -> web.Response:
        """What the dashboard is made of."""
        return await self._answer(request, request.match_info["name"])

    async def _answer(self, request: web.Request, name: str) -> web.Response:
        if not self._files:
            self._files = await asyncio.to_thread(_read)
        found = self._files.get(name)
        if found is None:
            raise web.HTTPNotFound(text=f"the dashboard has no file {name}\n")
        headers = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if any(one.value in (found.etag, "*") for one in request.if_none_match or ()):
            answer = web.Response(status=304, headers=headers)
        else:
            answer = web.Response(body=found.body, content_type=found.content_type, charset="utf-8", headers=headers)
        answer.etag = ETag(found.etag)
        return answer


def _read() -> dict[str, _File]:
    found: dict[str, _File] = {}
    for path in FOLDER.iterdir():
        if path.suffix in _TYPES:
            body = path.read_bytes()
            found[path.name] = _File(body, _TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:24])
    return found
