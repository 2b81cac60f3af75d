"""Who may ask the admin API what: checked for every request before any page sees it.

Nothing here knows a page. Reading is free on loopback and on a Unix socket; whatever changes something needs the
token, and on any other address the state does too. Web pages of other sites get nothing, by whatever name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from plugin.admin.token import AdminToken

LARGEST_BODY = 64 * 1024
"""Bytes."""
_READING = frozenset({"GET", "HEAD"})
_PROBES = frozenset({"/health", "/ready", "/metrics"})
"""Asked by machines that hold no token; they tell numbers and names, no addresses of callers."""
_PAGE = "/ui/"
"""Files of the dashboard, which hold no state: the page asks for the token."""
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    token: AdminToken | None = None
    """Without one, nothing can be changed."""
    remote: bool = False
    """Other hosts reach the address: the state is shown to who has the token only."""


ACCESS: web.AppKey[Access] = web.AppKey("access", Access)


def guarded(app: web.Application, access: Access) -> None:
    """Put the checks in front of every page of ``app``, which must have none yet, and the headers on every answer."""
    app[ACCESS] = access
    app.middlewares.extend((_own_host, _own_site, _with_token, _json_body))
    app.on_response_prepare.append(_harden)


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "consul-tgw"
    response.headers["Connection"] = "close"
    response.force_close()


@web.middleware
async def _own_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A web page cannot reach us by letting its own name resolve to this machine (DNS rebinding)."""
    if not is_local_name(request.host):
        raise web.HTTPForbidden(text="ask by IP address or as localhost: other names are refused\n")
    return await handler(request)


@web.middleware
async def _own_site(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Browsers say where a request comes from (Fetch Metadata, W3C); following a link to a page of ours is no harm."""
    headers = request.headers
    origin = headers.get("Origin")
    followed = (
        request.method in _READING
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )
    foreign = headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin") and not followed
    if foreign or (origin is not None and origin != f"http://{request.host}"):
        raise web.HTTPForbidden(text="pages of other sites are refused\n")
    return await handler(request)


@web.middleware
async def _with_token(request: web.Request, handler: Handler) -> web.StreamResponse:
    access = request.app[ACCESS]
    reading = request.method in _READING
    if not reading or (access.remote and not _open_to_all(request.path)):
        if access.token is None:
            raise web.HTTPForbidden(text="this gateway has no admin token, so nothing can be changed\n")
        if not access.token.admits(request.headers.get("Authorization", "")):
            text = "this needs the admin token: Authorization: Bearer TOKEN\n"
            raise web.HTTPUnauthorized(text=text, headers={"WWW-Authenticate": "Bearer"})
    return await handler(request)


def _open_to_all(path: str) -> bool:
    return path in _PROBES or path == "/" or path.startswith(_PAGE)


@web.middleware
async def _json_body(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A form of another site can send any type but this one."""
    if request.method not in _READING:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="send application/json\n")
        if (request.content_length or 0) > LARGEST_BODY:
            raise web.HTTPRequestEntityTooLarge(max_size=LARGEST_BODY, actual_size=request.content_length or 0)
    return await handler(request)


def is_local_name(host: str) -> bool:
    """An address literal needs no DNS and so cannot be rebound."""
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
