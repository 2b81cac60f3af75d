"""Notices that the token may read more than before: its file holds another one, or somebody has changed its policies.

What is refused asks again by itself. What Consul leaves out without a word looks like an answer, and a blocking query
ends neither for another token nor for another policy. It only notices; :mod:`plugin.consul.refusals` tells the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient
from plugin.errors import ConfigError, GatewayError

TOKEN_CHECK_S = 0.5
POLICY_CHECK_S = 2.0


class RightsWatcher:
    def __init__(self, client: ConsulClient, partial: Callable[[], bool]) -> None:
        """``partial`` says whether an answer that matters lacks rows because of the token."""
        self._client = client
        self._partial = partial
        self._changes = client.transport.token.changes
        self._policies = b""
        self._looked_s = 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TOKEN_CHECK_S)
            self._look_at_token()
            if not self._partial():
                self._policies = b""
            elif time.monotonic() - self._looked_s >= POLICY_CHECK_S:
                await self._look_at_policies()

    def _look_at_token(self) -> None:
        token = self._client.transport.token
        try:
            token.current()
        except ConfigError:
            # Whoever asks Consul with it says so.
            return
        if token.changes != self._changes:
            self._changes = token.changes
            self._policies = b""
            self._client.refusals.rights_changed(time.monotonic())

    async def _look_at_policies(self) -> None:
        """``GET /v1/acl/token/self?expanded``, which every token may read: its policies with their rules (Consul 1.12
        and later). Only a digest is kept, since the token itself is in it, too."""
        self._looked_s = time.monotonic()
        try:
            reply = await self._client.blocking_get(endpoints.TOKEN_SELF, (("expanded", "true"),))
        except GatewayError:
            return
        policies = hashlib.blake2b(reply.body, digest_size=16).digest()
        before, self._policies = self._policies, policies
        # The first time, too: they may have changed since the answer that lacks rows.
        if before != policies:
            self._client.refusals.rights_changed(time.monotonic())
