"""Notices that the token may read more than before: its file holds another one, or somebody has changed its policies.

What is refused asks again by itself. What Consul leaves out without a word looks like an answer, and a blocking query
ends neither for another token nor for another policy. It only notices; :mod:`plugin.consul.refusals` tells the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from plugin.consul.client import ConsulClient
from plugin.consul.watch import Watch
from plugin.errors import ConfigError, GatewayError

TOKEN_CHECK_S = 0.5
LIST_CHECK_S = 2.0


class RightsWatcher:
    def __init__(self, client: ConsulClient, watches: Mapping[str, Watch[Any]]) -> None:
        """``watches`` are those on lists of which Consul leaves out what the token may not read, by their paths."""
        self._client = client
        self._watches = watches
        self._changes = client.transport.token.changes
        self._looked_s = 0.0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(TOKEN_CHECK_S)
            self._look_at_token()
            if time.monotonic() - self._looked_s >= LIST_CHECK_S:
                self._looked_s = time.monotonic()
                for path, watch in self._watches.items():
                    if watch.filtered:
                        await self._look_at_list(path, watch)

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

    async def _look_at_list(self, path: str, watch: Watch[Any]) -> None:
        """A token may not read its own policies, so the list itself shows that they have changed."""
        try:
            reply = await self._client.blocking_get(path)
        except GatewayError:
            return
        if watch.filtered and watch.is_outdated_by(reply):
            self._client.refusals.rights_changed(time.monotonic())
