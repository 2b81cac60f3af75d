"""Drives one watch against the agent: the IO around :mod:`plugin.consul.watch`, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from plugin.consul.client import ConsulClient
from plugin.consul.transport import Reply
from plugin.consul.watch import WAIT_S, News, Pause, Poll, Watch
from plugin.errors import GatewayError, UnknownKind

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """One watch, as shown to operators."""

    name: str
    index: int
    age_s: float | None
    """Seconds since the last good answer; ``None`` when there was none."""
    problem: str
    """Why the newest attempt failed; empty when it did not."""
    requests: int
    note: str = ""
    """Why there is no value although nothing is wrong: this Consul is too old to have one."""


class Poller(Generic[T]):
    """Asks ``path`` until it is cancelled, tells ``learned`` every good answer and ``failed`` every other."""

    def __init__(
        self,
        client: ConsulClient,
        name: str,
        path: str,
        *,
        decode: Callable[[Reply], T | None],
        learned: Callable[[News[T]], None],
        failed: Callable[[GatewayError], None],
        params: Iterable[tuple[str, str]] = (),
        wait_s: float = WAIT_S,
    ) -> None:
        self.name = name
        self.watch = Watch(decode, wait_s=wait_s)
        self._client = client
        self._path = path
        self._params = tuple(params)
        self._learned = learned
        self._failed = failed
        self._stopped = asyncio.Event()
        self._reported = ""
        self._noted = ""

    def stop(self) -> None:
        """Say nothing more, and return from :meth:`run` when the poll under way is answered.

        Cancelling instead would free the connection here and leave its slot taken in the agent.
        """
        self._stopped.set()

    async def run(self) -> None:
        while not self._stopped.is_set():
            step = self.watch.next(time.monotonic())
            if isinstance(step, Pause):
                await self._pause(step.until_s - time.monotonic())
            else:
                await self._poll(step)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _poll(self, step: Poll) -> None:
        news: News[T] | None = None
        try:
            reply = await self._client.blocking_get(self._path, self._params, index=step.index, wait_s=step.wait_s)
        except UnknownKind as problem:
            news = self.watch.unknown_kind(problem, time.monotonic())
        except GatewayError as problem:
            self.watch.fail(problem, time.monotonic())
        else:
            news = self.watch.receive(reply, time.monotonic())
        if self._stopped.is_set():
            return
        if news is not None:
            self._recovered()
            self._note(self.watch.note)
            self._learned(news)
        elif self.watch.problem is not None:
            self._report(self.watch.problem)

    def _report(self, problem: GatewayError) -> None:
        text = str(problem)
        if text != self._reported:
            logger.warning("%s: %s", self.name, text)
            self._reported = text
        self._failed(problem)

    def _note(self, note: str) -> None:
        if note != self._noted:
            logger.info("%s: %s", self.name, note or "this Consul has it now")
            self._noted = note

    def _recovered(self) -> None:
        if self._reported:
            logger.info("%s: known again", self.name)
            self._reported = ""

    def state(self) -> WatchState:
        return watch_state(self.name, self.watch)


def watch_state(name: str, watch: Watch[T]) -> WatchState:
    age_s = None if watch.confirmed_s is None else time.monotonic() - watch.confirmed_s
    problem = str(watch.problem) if watch.problem else ""
    return WatchState(
        name=name, index=watch.index, age_s=age_s, problem=problem, requests=watch.requests, note=watch.note
    )
