"""Fetches a key set from where a ``jwt-provider`` entry says.

Who may write such an entry (``mesh:write``) makes this process send a request to an address of their choice. So it is a
plain GET that carries nothing of ours (no token, no cookie, no proxy of the environment), follows no redirect, takes
1 MiB at most and only what is a key set; no text quotes what came instead. A host of the gateway's own network can
still be *asked*: whoever must not be asked has to be closed to the gateway by the network. See docs/decisions/044.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Self

import aiohttp
import yarl

from plugin.consul.strict import NotUnderstood, shortened
from plugin.errors import KeysUnavailable
from plugin.facts import Fact
from plugin.jwks.keyset import LARGEST_BYTES, read_key_set
from plugin.jwks.provider import RemoteKeys

AT_A_TIME = 4
"""Fetches: more of them wait for their turn."""

ReadFile = Callable[[str], Fact[bytes]]


class KeyFetcher:
    """Usable inside one event loop, as an asynchronous context manager."""

    def __init__(self, file: ReadFile) -> None:
        """``file`` is asked for the content of a ``TrustedCA.Filename``."""
        self._file = file
        self._session: aiohttp.ClientSession | None = None
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        """Made for the first fetch: most gateways have nothing to fetch."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Not with threads: one that hangs in a lookup cannot be ended, and others need them.
                connector=aiohttp.TCPConnector(resolver=aiohttp.AsyncResolver(), force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={
                    "Accept": "application/jwk-set+json, application/json",
                    "Accept-Encoding": "identity",
                    "User-Agent": "consul-tgw",
                },
            )
        return self._session

    async def fetch(self, source: RemoteKeys) -> str:
        """Return the keys (:class:`plugin.jwks.keyset.KeySet`). :raises KeysUnavailable: with what to do."""
        try:
            async with self._turns, asyncio.timeout(source.timeout_s):
                content = await self._content(source)
            return read_key_set(content).json
        except NotUnderstood as error:
            raise _unavailable(source, str(error), "correct the jwt-provider entry") from error
        except aiohttp.ServerTimeoutError as error:
            raise _unavailable(source, f"no connection within {source.connect_timeout_s:g} s") from error
        except TimeoutError as error:
            raise _unavailable(source, f"no answer within {source.timeout_s:g} s") from error
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            remedy = "correct its certificate, or TrustedCA of the jwt-provider entry"
            raise _unavailable(source, _told(error), remedy) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unavailable(source, _told(error)) from error

    async def _content(self, source: RemoteKeys) -> bytes:
        verify = await self._trust(source) if source.uri.startswith("https:") else False
        async with self._open().get(
            yarl.URL(source.uri, encoded=True),
            allow_redirects=False,
            ssl=verify,
            timeout=aiohttp.ClientTimeout(sock_connect=source.connect_timeout_s),
        ) as response:
            if 300 <= response.status < 400:
                raise NotUnderstood(f"it answers with a redirect ({response.status}), which is not followed")
            if response.status != 200:
                raise aiohttp.ClientError(f"it answers with status {response.status}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise aiohttp.ClientError("it compresses its answer, although it was asked not to")
            content = bytearray()
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > LARGEST_BYTES:
                    raise NotUnderstood(f"the key set has more than {LARGEST_BYTES} bytes")
            return bytes(content)

    async def _trust(self, source: RemoteKeys) -> ssl.SSLContext:
        """:raises NotUnderstood: when what should be trusted cannot be read."""
        pem = source.ca_pem
        if source.ca_file:
            fact = self._file(source.ca_file)
            if fact.value is None:
                raise NotUnderstood(str(fact.problem or f"{source.ca_file} is not read yet"))
            pem = fact.value.decode("ascii", "replace")
        elif source.ca_variable:
            pem = os.environ.get(source.ca_variable, "")
            if not pem:
                what = f"the variable {shortened(source.ca_variable)}"
                raise NotUnderstood(f"{what} of TrustedCA is not set in the gateway's environment")
        elif not pem:
            return await asyncio.to_thread(ssl.create_default_context)
        try:
            return await asyncio.to_thread(ssl.create_default_context, cadata=pem)
        except (ssl.SSLError, TypeError, ValueError):
            raise NotUnderstood("its TrustedCA holds no certificate in PEM format") from None


def _told(error: Exception) -> str:
    """The same whenever the same happens: aiohttp's own texts say where an object lies in memory."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return str(error.certificate_error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return str(error.os_error)
    return str(error) or type(error).__name__


def _unavailable(source: RemoteKeys, why: str, remedy: str = "") -> KeysUnavailable:
    what = f"the keys at {source.where} cannot be had: {shortened(why)}"
    return KeysUnavailable(f"{what}; {remedy or 'see that it answers from the gateway host'}")
