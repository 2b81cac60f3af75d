"""Reads the jwt-provider entries, from when an intention names the first one.

All of them in one list: a token may read every one or none, and a list shows what was deleted. With a token that
may write no service and not read the mesh, the list is empty, which is taken for a refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from plugin.consul import endpoints
from plugin.consul.client import ConsulClient, decode_rows
from plugin.consul.poller import Poller, WatchState
from plugin.consul.watch import News, Watch
from plugin.errors import ConsulForbidden
from plugin.observe.store import FactStore

PATH = endpoints.config("jwt-provider")


class ProviderReader:
    def __init__(self, client: ConsulClient, store: FactStore) -> None:
        self._store = store
        self._wanted = asyncio.Event()
        self._poller: Poller[tuple[Any, ...]] = Poller(
            client,
            "jwt-provider",
            PATH,
            decode=lambda reply: decode_rows(reply, Any, PATH),
            learned=self._learned,
            failed=store.providers.failed,
            params=endpoints.DEFAULT_NAMESPACE,
        )

    @property
    def watch(self) -> Watch[tuple[Any, ...]]:
        return self._poller.watch

    async def run(self) -> None:
        """Until cancelled; ask nothing before somebody needs it."""
        self._store.subscribe_providers(self._look)
        await self._wanted.wait()
        await self._poller.run()

    def states(self) -> Iterator[WatchState]:
        if self._wanted.is_set():
            yield self._poller.state()

    def ask_afresh(self) -> None:
        self._poller.ask_afresh()

    def retry_now(self) -> None:
        self._poller.retry_now()

    def forget(self) -> None:
        self._poller.forget()

    def _look(self) -> None:
        if self._store.mesh_facts().wanted_providers:
            self._wanted.set()

    def _learned(self, news: News[tuple[Any, ...]]) -> None:
        if self._poller.watch.filtered:
            rule = endpoints.rule("mesh", "", "read")
            text = f"the token may not read jwt-provider entries: it takes service:write on some service, or {rule}"
            self._store.providers.failed(ConsulForbidden(text, rule))
        else:
            self._store.providers.learned(news.value, index=news.index)
