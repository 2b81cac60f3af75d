"""Notices that the token may read more than before: its file holds another one, or somebody has changed its policies.

What is refused asks again by itself. What Consul leaves out without a word looks like an answer, and a blocking query
ends neither for another token nor for another policy. It only notices; :mod:`plugin.consul.refusals` tells the rest.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from plugin.consul.client import ConsulClient
from plugin.consul.watch import Watch
from plugin.errors import ConfigError, GatewayError

TOKEN_CHECK_S = 0.5
LIST_CHECK_S = 2.0


class RightsWatcher:
    def __init__(self, client: ConsulClient, path: str, watch: Watch[Any]) -> None:
        """``watch`` is the one on ``path``, a list of which Consul leaves out what the token may not read."""
        self._client = client
        self._path = path
        self._watch = watch
        self._changes = client.transport.token.changes
        self._looked_s = 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TOKEN_CHECK_S)
            self._look_at_token()
            if self._watch.filtered and time.monotonic() - self._looked_s >= LIST_CHECK_S:
                await self._look_at_list()

    def _look_at_token(self) -> None:
        token = self._client.transport.token
        try:
            token.current()
        except ConfigError:
            # Whoever asks Consul with it says so.
            return
        if token.changes != self._changes:
            self._changes = token.changes
            self._client.refusals.rights_changed(time.monotonic())

    async def _look_at_list(self) -> None:
        """A token may not read its own policies, so the list itself shows that they have changed."""
        self._looked_s = time.monotonic()
        try:
            reply = await self._client.blocking_get(self._path)
        except GatewayError:
            return
        if self._watch.filtered and self._watch.is_outdated_by(reply):
            self._client.refusals.rights_changed(time.monotonic())
