"""Keeps the keys of the providers that intentions name: files are watched, remote key sets fetched again in time.

It asks the store which providers are wanted and what their entries say, and writes the keys back. What was good stays
known while it cannot be had again, with the problem beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Collection, Iterable, Mapping
from math import inf

from tenacity import RetryCallState, Retrying, wait_exponential, wait_random

from plugin.consul.strict import NotUnderstood
from plugin.errors import KeysUnavailable
from plugin.facts import Fact
from plugin.jwks.fetch import KeyFetcher
from plugin.jwks.keyset import read_key_set
from plugin.jwks.provider import FileKeys, InlineKeys, KeptKeys, KeySource, RemoteKeys, by_name, read_provider
from plugin.observe.files import FileWatcher
from plugin.observe.store import FactStore
from proxy.logs import emit

logger = logging.getLogger(__name__)

RENEW_EACH_S = 10.0
"""Whoever sends tokens of keys that nobody has makes us ask a provider so often, and no more."""
REFRESH_AFTER = (0.75, 0.9)
"""Of ``CacheDuration``, by chance within: gateways that began together do not come together."""


class KeyKeeper:
    """For one store and one event loop."""

    def __init__(self, store: FactStore) -> None:
        self._store = store
        self._files = FileWatcher(self._files_changed)
        self._fetcher = KeyFetcher(self._files.fact)
        self._before: dict[KeptKeys, Fact[str]] = {}
        """What a saved state knew."""
        self._facts: dict[KeptKeys, Fact[str]] = {}
        self._fetching: dict[RemoteKeys, asyncio.Task[None]] = {}
        self._now: dict[RemoteKeys, asyncio.Event] = {}
        """Set to fetch again at once."""
        self._renewed_s: dict[RemoteKeys, float] = {}
        """When that was last done because of a token; monotonic."""
        self._group: asyncio.TaskGroup | None = None

    def know(self, keys: Mapping[KeptKeys, Fact[str]]) -> None:
        """Begin with these until the first answers."""
        self._before = dict(keys)

    def read_again(self) -> None:
        """Look at every file and ask for every remote key set now."""
        self._files.check_now()
        for event in self._now.values():
            event.set()

    def renew(self, providers: Collection[str]) -> None:
        """Tokens have named keys that these providers do not have, as far as is known: ask whether they have new ones.

        What could not be had last time is asked for as it would have been: the pauses grow while that fails.
        """
        now_s = time.monotonic()
        for source in self._sources(providers):
            if not isinstance(source, RemoteKeys) or source not in self._now:
                continue
            if self._facts[source].problem is None and now_s - self._renewed_s.get(source, -inf) >= RENEW_EACH_S:
                self._renewed_s[source] = now_s
                self._now[source].set()
                message = f"a token names a key that is not known, asking again for those at {source.where}"
                emit(logger, logging.INFO, "keys.asked_again", message)

    async def run(self) -> None:
        """Until cancelled."""
        async with self._fetcher:
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    group.create_task(self._files.run(), name="key files")
                    self._store.subscribe_providers(self._providers_changed)
            finally:
                self._group = None

    def _providers_changed(self) -> None:
        if self._group is None:
            return
        wanted = {
            source
            for source in self._sources(self._store.mesh_facts().wanted_providers)
            if not isinstance(source, InlineKeys)
        }
        for gone in self._facts.keys() - wanted:
            del self._facts[gone]
            if isinstance(gone, RemoteKeys):
                self._fetching.pop(gone).cancel()
                del self._now[gone]
                self._renewed_s.pop(gone, None)
        new = wanted - self._facts.keys()
        for source in new:
            self._facts[source] = self._before.get(source, Fact())
        self._files.set_paths(filter(None, map(_path, wanted)))
        for source in new:
            if isinstance(source, RemoteKeys):
                self._now[source] = asyncio.Event()
                task = self._group.create_task(self._keep(source), name=f"keys of {source.where}")
                self._fetching[source] = task
            else:
                self._read(source)
        self._store.set_keys(self._facts)

    def _sources(self, names: Collection[str]) -> Iterable[KeySource]:
        rows = by_name(self._store.mesh_facts().providers.value or ())
        for name in rows.keys() & set(names):
            try:
                yield read_provider(rows[name]).source
            except NotUnderstood:
                # Whoever assembles says so.
                continue

    def _files_changed(self, paths: frozenset[str]) -> None:
        for source in self._facts:
            if isinstance(source, FileKeys) and source.path in paths:
                self._read(source)
            elif isinstance(source, RemoteKeys) and source.ca_file in paths:
                self._now[source].set()
        self._store.set_keys(self._facts)

    def _read(self, source: FileKeys) -> None:
        """Take over what the file holds now, if that is a key set."""
        file, before = self._files.fact(source.path), self._facts[source]
        if file.problem is not None:
            self._facts[source] = before.failed(file.problem)
        elif file.value is not None:
            try:
                self._facts[source] = before.learned(read_key_set(file.value).json, at_s=file.as_of_s)
            except NotUnderstood as error:
                self._facts[source] = before.failed(KeysUnavailable(f"{source.path}: {error}; correct the file"))

    async def _keep(self, source: RemoteKeys) -> None:
        growing = wait_exponential(multiplier=source.retry_first_s, max=source.retry_longest_s)
        schedule = growing + wait_random(0, source.retry_first_s)
        state, now = RetryCallState(Retrying(), None, (), {}), self._now[source]
        failures = 0
        if source.ca_file:
            await self._first_look(source)
        while True:
            now.clear()
            failures = 0 if await self._fetch(source) else failures + 1
            # Capped, as the schedule is: an attempt number without bound would overflow its exponent.
            state.attempt_number = max(1, min(failures, 32))
            pause_s = float(schedule(state)) if failures else source.cache_s * random.uniform(*REFRESH_AFTER)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(now.wait(), pause_s)

    async def _first_look(self, source: RemoteKeys) -> None:
        """Until the file that says whom to trust was read, or could not be."""
        while not (fact := self._files.fact(source.ca_file)).known and fact.problem is None:
            self._now[source].clear()
            await self._now[source].wait()

    async def _fetch(self, source: RemoteKeys) -> bool:
        before = self._facts[source]
        try:
            keys = await self._fetcher.fetch(source)
        except KeysUnavailable as problem:
            self._facts[source] = before.failed(problem)
        else:
            self._facts[source] = before.learned(keys, at_s=time.time())
            if before.problem is not None:
                emit(logger, logging.INFO, "keys.known", f"the keys at {source.where} can be had again")
        self._store.set_keys(self._facts)
        return self._facts[source].problem is None


def _path(source: KeptKeys) -> str:
    return source.path if isinstance(source, FileKeys) else source.ca_file
