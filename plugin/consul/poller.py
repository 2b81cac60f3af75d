"""Drives one watch against the agent: the IO around :mod:`plugin.consul.watch`, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from plugin.consul.client import ConsulClient
from plugin.consul.transport import Reply
from plugin.consul.watch import News, Pause, Poll, Watch
from plugin.errors import ConsulForbidden, GatewayError, NotTold, UnknownKind
from plugin.process import tasks

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
        wait_s: float | None = None,
        explain: Callable[[GatewayError], Awaitable[GatewayError]] | None = None,
        absent: str = "",
        prompt: bool = False,
    ) -> None:
        """``absent`` says what it means when this Consul does not have ``path``, which most can do without: then it is
        no failure either that the token may not ask for it. Empty: both are failures.
        ``wait_s`` is the client's unless it is given. ``explain`` may say more exactly what is wrong, before
        ``failed`` is told. ``prompt`` as in :class:`Watch`."""
        self.name = name
        self.watch = Watch(decode, wait_s=client.wait_s if wait_s is None else wait_s, prompt=prompt)
        self._client = client
        self._path = path
        self._params = tuple(params)
        self._learned = learned
        self._failed = failed
        self._explain = explain
        self._absent = absent
        self.not_told: NotTold | None = None
        """The newest answer."""
        self._stopped = asyncio.Event()
        self._hurry = asyncio.Event()
        """Set to end a pause, or to leave a request behind that is held for nothing."""
        self._left_behind: asyncio.Task[Reply | GatewayError] | None = None
        self._forbidden = False
        self._reported = ""
        self._noted = ""

    def stop(self) -> None:
        """Say nothing more, and return from :meth:`run` when the poll under way is answered.

        Cancelling instead would free the connection here and leave its slot taken in the agent.
        """
        self._stopped.set()
        self._hurry.set()

    def ask_afresh(self) -> None:
        """The token may read more than before: ask now if it was refused, or was told only a part."""
        if isinstance(self.watch.problem, ConsulForbidden) or self.watch.filtered or self.not_told is not None:
            self._hurry.set()

    def retry_now(self) -> None:
        """Whatever made questions fail may have passed."""
        if self.watch.problem is not None:
            self._hurry.set()

    def forget(self) -> None:
        """What was answered is of another cluster: ask anew, and take whatever comes for news."""
        self.watch.forget()
        self._hurry.set()

    async def run(self) -> None:
        while not self._stopped.is_set():
            if self._hurry.is_set():
                self._hurry.clear()
                self.watch.ask_afresh()
            step = self.watch.next(time.monotonic())
            if isinstance(step, Pause):
                await self._pause(step.until_s - time.monotonic())
            else:
                await self._poll(step)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _poll(self, step: Poll) -> None:
        answer = await self._answer(step)
        if answer is None:
            return
        news: News[T] | None = None
        if isinstance(answer, UnknownKind):
            news = self.watch.unknown_kind(answer, time.monotonic())
            self.not_told = answer if isinstance(answer, NotTold) else None
        elif isinstance(answer, GatewayError):
            self.watch.fail(answer, time.monotonic())
        else:
            news = self.watch.receive(answer, time.monotonic())
            self.not_told = None
        if self.watch.problem is not None and self._explain is not None:
            self.watch.problem = await self._explain(self.watch.problem)
        if self._stopped.is_set():
            return
        if news is not None:
            self._recovered()
            self._note(self.watch.note)
            self._learned(news)
        elif self.watch.problem is not None:
            self._report(self.watch.problem)

    async def _answer(self, step: Poll) -> Reply | GatewayError | None:
        """``None`` when the answer would say only what the token could read when it was asked for."""
        request = tasks.spawn(self._request(step), name=self.name)
        hurry = tasks.spawn(self._hurry.wait(), name=f"{self.name}: hurry")
        try:
            await asyncio.wait((request, hurry), return_when=asyncio.FIRST_COMPLETED)
            # The agent keeps the slot of a request that is given up, so it goes on, and no second one is left so.
            spare = self._left_behind is None or self._left_behind.done()
            if not request.done() and step.index and spare and not self._stopped.is_set():
                self._left_behind = request
                return None
            return await request
        except asyncio.CancelledError:
            request.cancel()
            raise
        finally:
            hurry.cancel()

    async def _request(self, step: Poll) -> Reply | GatewayError:
        try:
            reply = await self._client.blocking_get(self._path, self._params, index=step.index, wait_s=step.wait_s)
            if self._absent and reply.status == 404 and reply.index is None:
                return UnknownKind(self._absent, 404)
            return reply
        except ConsulForbidden as problem:
            # What is known already stays known, and that it can no longer be asked for is a problem.
            if not self._absent or not problem.rule or self.watch.value is not None:
                return problem
            return NotTold(f"it is not told to this token, which takes the rule {problem.rule}", problem.rule)
        except GatewayError as problem:
            return problem

    def _report(self, problem: GatewayError) -> None:
        if isinstance(problem, ConsulForbidden):
            self.watch.postpone(self._client.refusals.wait_s(time.monotonic()))
            self._forbidden = True
        text = str(problem)
        if text != self._reported:
            # That the agent is away is said once, for all.
            level = logging.DEBUG if problem is self._client.presence.problem else logging.WARNING
            logger.log(level, "%s: %s", self.name, text)
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
        if self._forbidden:
            self._forbidden = False
            self._client.refusals.lifted(time.monotonic())

    def state(self) -> WatchState:
        return watch_state(self.name, self.watch)


def watch_state_since(name: str, confirmed_s: float | None) -> WatchState:
    """Of several watches together, of which one was confirmed last at ``confirmed_s``, monotonic."""
    age_s = None if confirmed_s is None else time.monotonic() - confirmed_s
    return WatchState(name=name, index=0, age_s=age_s, problem="", requests=0)


def watch_state(name: str, watch: Watch[T]) -> WatchState:
    age_s = None if watch.confirmed_s is None else time.monotonic() - watch.confirmed_s
    problem = str(watch.problem) if watch.problem else ""
    return WatchState(
        name=name, index=watch.index, age_s=age_s, problem=problem, requests=watch.requests, note=watch.note
    )
