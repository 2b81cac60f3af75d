"""How requests reach the Consul agent: one aiohttp session, TLS or a Unix socket, the token, deadlines and errors.

It knows nothing of what is asked. Tokens and bodies never reach a log or an error text: a body may hold a private
key, and only the short texts of refusals are quoted.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from base64 import b64encode
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import yarl
from consul import base

from plugin.consul import endpoints
from plugin.errors import ConfigError, ConsulBusy, ConsulForbidden, ConsulRejected, ConsulUnavailable, UnknownKind
from plugin.settings import ConsulSettings

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024 * 1024
"""More than any answer of a real agent; a larger one is an agent that is not one."""
MAX_CONNECTIONS = 64
"""Of the 200 that an agent allows to one client address (``limits.http_max_conns_per_client``)."""
MARGIN_S = 10.0
"""Added to how long an answer may take by Consul's own rules before it counts as lost."""
CONNECT_TIMEOUT_S = 5.0

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a body raises; the last one for lists within lists without end."""

_QUOTED_LENGTH = 300
_UNAVAILABLE = frozenset({408, 429})
_UNKNOWN_KIND = "invalid config entry kind"
_RATE_LIMITED = "Rate limit reached"
_NO_PEERING = "peering must be enabled"
_REFUSED_AS_500 = (
    "does not have associated TTL",
    "Failed to create boolean expression evaluator",
    "is a consul enterprise feature",
)
"""Refusals that Consul (1.8 above all) sends as 500 although asking again cannot help."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of status 200 or 404."""

    status: int
    index: int | None
    """``X-Consul-Index``; ``None`` when it is absent or not a number."""
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)

    @property
    def remembered(self) -> bool:
        """The agent had the answer already, and asked no server for it."""
        return self.headers.get("X-Cache", "") == "HIT"

    @property
    def filtered(self) -> bool:
        """Rows are missing because the token may not see them (Consul 1.11 and later say so)."""
        return self.headers.get("X-Consul-Results-Filtered-By-ACLs", "") == "true"


_ANONYMOUS = "00000000-0000-0000-0000-000000000002"
"""The accessor ID of Consul's token for those who send none."""
_AS_ANYBODY = "anonymous token lacks permission"
_ALL_THERE_IS_IN_CE = frozenset({("ns", "default"), ("ns", "*"), ("partition", "default")})


class Token:
    """The ACL token; a token file is read again when it changes, and what it held before stays if it cannot be.

    An empty file is one that is being written: without a token Consul answers too, as to a stranger.
    """

    def __init__(self, settings: ConsulSettings) -> None:
        self._file = settings.token_file
        self._value = settings.token
        self._stamp: tuple[int, ...] | None = None
        self._problem = ""
        self.changes = 0
        """How often the file has brought another token."""

    def current(self) -> str:
        """:raises ConfigError: when there is a token file that has never been readable, or held nothing yet."""
        if self._file is None:
            return self._value
        try:
            stamp = file_stamp(self._file)
            if stamp != self._stamp:
                self._take(_token_in(self._file), stamp)
        except (OSError, ValueError) as error:
            if self._stamp is None:
                raise ConfigError(
                    f"cannot use the Consul token file {self._file}: {error}; write the token's secret ID into it"
                ) from error
            self._keep(str(error))
        return self._value

    def _take(self, value: str, stamp: tuple[int, ...]) -> None:
        if self._stamp is not None and value != self._value:
            self.changes += 1
            logger.info("the token in %s has been replaced: using the new one", self._file)
        self._value, self._stamp, self._problem = value, stamp, ""

    def _keep(self, problem: str) -> None:
        if problem != self._problem:
            logger.warning("keeping the Consul token read before: %s: %s", self._file, problem)
        self._problem = problem


def _token_in(path: Path) -> str:
    """:raises ValueError: when there is none. :raises OSError: when it cannot be read."""
    text = path.read_text().strip()
    if not text or len(text.splitlines()) > 1:
        raise ValueError("it holds more than one line" if text else "it is empty")
    return text


class TLS:
    """The client side of HTTPS towards the agent; made again when one of its files changes."""

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        files = (settings.ca_file, settings.client_cert, settings.client_key)
        self._files = tuple(path for path in files if path is not None)
        self._stamps: tuple[tuple[int, ...], ...] = ()
        self._context: ssl.SSLContext | None = None

    def current(self) -> ssl.SSLContext:
        """:raises ConfigError: when the files cannot be used and never could."""
        try:
            stamps = tuple(file_stamp(path) for path in self._files)
            if self._context is None or stamps != self._stamps:
                self._context = self._make()
                self._stamps = stamps
        except (OSError, ssl.SSLError, ValueError) as error:
            if self._context is None:
                names = ", ".join(map(str, self._files)) or str(self._settings.ca_path)
                raise ConfigError(f"cannot use the TLS files for Consul ({names}): {error}") from error
            logger.warning("keeping the TLS files for Consul read before: %s", error)
        return self._context

    def _make(self) -> ssl.SSLContext:
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.ca_file, capath=settings.ca_path)
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.client_cert is not None:
            context.load_cert_chain(settings.client_cert, settings.client_key)
        return context


def file_stamp(path: Path) -> tuple[int, ...]:
    """Differs whenever the file was written or replaced. :raises OSError: when it is not there."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


class _Accessor(msgspec.Struct):
    accessor_id: str = msgspec.field(name="AccessorID", default="")


class Transport(base.HTTPClient):
    """The HTTP client of :class:`plugin.consul.client.ConsulClient`, in the shape that python-consul2 asks for."""

    def __init__(self, settings: ConsulSettings, *, max_connections: int = MAX_CONNECTIONS) -> None:
        scheme, self._socket_path, self._base = _parse_address(settings.address)
        super().__init__(host=self._base.host or "", port=self._base.port or 0, scheme=scheme)
        self.address = settings.address
        self._settings = settings
        self.token = Token(settings)
        self._accessors: dict[str, str] = {}
        """Of the token that is in use, once it is known."""
        self._asking_accessor = asyncio.Lock()
        self._tls = TLS(settings) if scheme == "https" else None
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        self.has_namespaces = bool(settings.namespace or settings.partition)
        """This is Consul Enterprise, by what the settings or its answers say."""

    async def request(
        self,
        method: str,
        path: str,
        params: Iterable[tuple[str, str]] = (),
        *,
        body: bytes | str | None = None,
        timeout_s: float = MARGIN_S,
    ) -> Reply:
        """Ask once. :raises ConsulError, ConfigError: for every answer but 200 and a 404 to a GET."""
        asked = tuple(params)
        url = self._base.with_path(self._base.path.rstrip("/") + path, encoded=True).with_query(self._tenant(asked))
        token = self.token.current()
        reply, text = await self._within(timeout_s, self._exchange(method, url, body, token))
        if _is_forbidden(reply, text) and (newer := self.token.current()) != token:
            # The token file was replaced while Consul held the request; the old token may be deleted by now.
            token = newer
            reply, text = await self._within(timeout_s, self._exchange(method, url, body, token))
        if reply.filtered or (_is_forbidden(reply, text) and not _is_unknown_token(text)):
            await self._learn_accessor(token)
        _check(method, path, asked, reply, text, self.accessor)
        return reply

    @property
    def accessor(self) -> str:
        """The accessor ID of the token in use, which is no secret; empty while it is not known.

        It is asked for at the first sign that the token may not do everything, and remembered: of a token that was
        deleted nobody would tell it any more.
        """
        return next(iter(self._accessors.values()), "")

    async def _learn_accessor(self, token: str) -> None:
        """``GET /v1/acl/token/self``, which every token may read; once for each token."""
        async with self._asking_accessor:
            if token in self._accessors:
                return
            url = self._base.with_path(self._base.path.rstrip("/") + endpoints.TOKEN_SELF, encoded=True)
            try:
                reply, _ = await self._within(MARGIN_S, self._exchange("GET", url, None, token))
                accessor = msgspec.json.decode(reply.body, type=_Accessor).accessor_id if reply.status == 200 else ""
            except (ConsulUnavailable, *UNREADABLE):
                # It only makes texts better.
                return
            if accessor or reply.status != 403:
                self._accessors = {token: accessor}

    async def _within(self, timeout_s: float, exchange: Coroutine[Any, Any, tuple[Reply, str]]) -> tuple[Reply, str]:
        try:
            async with asyncio.timeout(timeout_s):
                return await exchange
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            why = f"no answer within {timeout_s:.0f} s" if isinstance(error, TimeoutError) else str(error)
            raise ConsulUnavailable(f"the Consul agent at {self.address} cannot be used: {why}") from error

    async def _exchange(self, method: str, url: yarl.URL, body: bytes | str | None, token: str) -> tuple[Reply, str]:
        headers = {"Accept-Encoding": "identity"}
        if token:
            headers["X-Consul-Token"] = token
        if self._settings.basic_auth:
            headers["Authorization"] = f"Basic {b64encode(self._settings.basic_auth.encode()).decode()}"
        tls = self._tls.current() if self._tls else True
        server_name = self._settings.tls_server_name or None if self._tls else None
        async with self._open().request(
            method, url, data=body, headers=headers, ssl=tls, server_hostname=server_name, allow_redirects=False
        ) as response:
            content = await _read(response)
            reply = Reply(response.status, _index(response.headers), content, response.headers)
        text = "" if reply.status == 200 else content.decode(errors="replace").strip()[:_QUOTED_LENGTH]
        return reply, text

    def _tenant(self, params: tuple[tuple[str, str], ...]) -> list[tuple[str, str]]:
        """Namespace and partition are those of the request, else those of the settings; Consul CE hears of neither."""
        named = {name for name, _ in params}
        defaults = (("ns", self._settings.namespace), ("partition", self._settings.partition))
        asked = [*params, *((name, value) for name, value in defaults if value and name not in named)]
        if self.has_namespaces:
            return asked
        return [(name, value) for name, value in asked if (name, value) not in _ALL_THERE_IS_IN_CE]

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            limit = self._max_connections
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._socket_path, limit=limit, keepalive_timeout=30.0)
                if self._socket_path
                else aiohttp.TCPConnector(limit=limit, keepalive_timeout=30.0),
                # The deadline around each exchange counts; this one only tells a dead host from a slow answer.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # What python-consul2 calls; its token headers are ignored in favour of the current token.

    async def get(self, callback: base.Callback, path: str, params: base.Params = None, headers: object = None) -> Any:
        return await self._called("GET", callback, path, params, None)

    async def put(
        self,
        callback: base.Callback,
        path: str,
        params: base.Params = None,
        data: str = "",
        headers: object = None,
    ) -> Any:
        return await self._called("PUT", callback, path, params, data)

    async def delete(
        self,
        callback: base.Callback,
        path: str,
        params: base.Params = None,
        data: str = "",
        headers: object = None,
    ) -> Any:
        return await self._called("DELETE", callback, path, params, data)

    async def post(
        self,
        callback: base.Callback,
        path: str,
        params: base.Params = None,
        data: str = "",
        headers: object = None,
    ) -> Any:
        return await self._called("POST", callback, path, params, data)

    async def _called(
        self, method: str, callback: base.Callback, path: str, params: base.Params, data: str | None
    ) -> Any:
        asked = ((str(name), str(value)) for name, value in params or ())
        reply = await self.request(method, path, asked, body=data)
        text = reply.body.decode(errors="replace")
        return callback(base.Response(reply.status, reply.headers, text, reply.body))


def _parse_address(address: str) -> tuple[str, str, yarl.URL]:
    """Return scheme, path of the Unix socket (or ``""``) and the base URL."""
    if address.startswith("unix://"):
        return "http", address.removeprefix("unix://"), yarl.URL("http://localhost")
    try:
        url = yarl.URL(address if "://" in address else f"http://{address}")
    except ValueError as error:
        raise ConfigError(f"the Consul address {address!r} is not a URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"the Consul address {address!r} must be http://, https:// or unix://")
    return url.scheme, "", url


def _index(headers: Mapping[str, str]) -> int | None:
    text = headers.get("X-Consul-Index", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            response.close()
            raise aiohttp.ClientPayloadError(f"the answer is larger than {MAX_BODY_BYTES} bytes")
    return bytes(content)


def _is_forbidden(reply: Reply, text: str) -> bool:
    """Consul says it with other statuses, too."""
    return reply.status == 403 or "Permission denied" in text or _is_unknown_token(text)


def _is_unknown_token(text: str) -> bool:
    return "ACL not found" in text


def _check(method: str, path: str, params: tuple[tuple[str, str], ...], reply: Reply, text: str, accessor: str) -> None:
    status = reply.status
    if status == 200 or (status == 404 and method == "GET"):
        return
    said = f"Consul answered {status} to {method} {path}: {text}"
    if _is_forbidden(reply, text):
        raise _forbidden(path, params, text, accessor)
    if _NO_PEERING in text:
        raise UnknownKind(f"this Consul has no peering ({text})", status)
    if _UNKNOWN_KIND in text:
        raise UnknownKind(f"this Consul has no such kind of config entry ({text})", status)
    if any(known in text for known in _REFUSED_AS_500):
        raise ConsulRejected(said, status)
    if _RATE_LIMITED in text:
        raise ConsulBusy(said)
    if status >= 500 or status in _UNAVAILABLE:
        raise ConsulUnavailable(said)
    raise ConsulRejected(said, status)


def _forbidden(path: str, params: tuple[tuple[str, str], ...], text: str, accessor: str) -> ConsulForbidden:
    if _is_unknown_token(text):
        known = f" with accessor {accessor}" if accessor else ""
        return ConsulForbidden(
            f"Consul does not know the ACL token{known} (ACL not found): it was deleted, expired or is of another "
            "cluster; set CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE to a valid one",
            accessor=accessor,
        )
    if accessor not in ("", _ANONYMOUS) and _AS_ANYBODY in text:
        # Seen when a datacenter passes a request on: another one takes a local token for none at all.
        return ConsulForbidden(
            f"Consul refuses {path} in another datacenter ({text}): the token with accessor {accessor} is one of its"
            " own datacenter alone; use a token that was created without -local",
            accessor=accessor,
        )
    rule = endpoints.missing_rule(path, params, text)
    return ConsulForbidden(
        f"Consul refuses {path}: {text or 'Permission denied'}{remedy(rule, accessor)}", rule, accessor
    )


def remedy(rule: str, accessor: str) -> str:
    """How to get what the token lacks, to be appended to a sentence; empty when the rule is not known."""
    if not rule:
        return f" (the token's accessor is {accessor})" if accessor else ""
    whose = f"a policy of the token with accessor {accessor}" if accessor else "the token's policy"
    return f"; add to {whose}: {rule}"
