"""Every call that may change something is written to the audit log: who asked for what, and what came of it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from plugin.admin.token import presented
from plugin.audit.journal import Journal

MOST_BODY = 2_048
"""Bytes of a body that are told."""
MOST_REFUSED = 10.0
"""A second: whoever guesses tokens must not fill the disk."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def audited(journal: Journal) -> Middleware:
    """A middleware; the outermost but for what only counts."""
    budget = _Budget()

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if not journal.wanted or request.method in ("GET", "HEAD"):
            return await handler(request)
        status = 500
        try:
            response = await handler(request)
            status = response.status
            return response
        except web.HTTPException as error:
            status = error.status
            raise
        finally:
            known = status not in (401, 403)
            if known or budget.spend(time.monotonic()):
                journal.note("admin.call", **await _told(request, status, known=known), **budget.taken())

    return middleware


async def _told(request: web.Request, status: int, *, known: bool) -> dict[str, object]:
    fields: dict[str, object] = {
        "method": request.method,
        "path": request.path_qs[:MOST_BODY],
        "status": status,
        "client": request.remote or "unix socket",
        "token": fingerprint(presented(request.headers.get("Authorization", ""))) if known else "",
    }
    if known and request.can_read_body and (request.content_length or 0) <= MOST_BODY:
        fields["body"] = (await request.read())[:MOST_BODY].decode(errors="replace")
    return fields


def fingerprint(secret: str) -> str:
    """Tells tokens apart without telling them: the first eight bytes of SHA-256, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


class _Budget:
    """One line in a while; what was left out in between is counted."""

    def __init__(self) -> None:
        self._next_s = 0.0
        self._left_out = 0

    def spend(self, now_s: float) -> bool:
        if now_s < self._next_s:
            self._left_out += 1
            return False
        self._next_s = now_s + 1 / MOST_REFUSED
        return True

    def taken(self) -> dict[str, object]:
        taken, self._left_out = self._left_out, 0
        return {"left_out": taken} if taken else {}
