"""Running the first, short part of a connection: a coroutine that waits for sockets and nothing else.

It waits for one socket, or for the first of several, and is resumed straight from the readiness callback. An asyncio
task would do the same by way of a future, a handle and another turn of the event loop for each wait, which is a tenth
of what a new connection costs.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import types
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any

from proxy.sockets.poller import Poller
from proxy.sockets.timers import Timer

_READ, _WRITE = True, False
_Wait = tuple[socket.socket, bool]


class DeadlineExpired(Exception):
    """Raised inside the coroutine, where it waits."""


class Cancelled(BaseException):
    """Raised inside the coroutine, where it waits; like asyncio's, it passes every ``except Exception``."""


class Steps:
    """Drives one coroutine. ``finished`` is called once, with the exception that ended it, if any."""

    __slots__ = ("_coroutine", "_finished", "_timer", "_waiting", "poller")

    def __init__(self, poller: Poller, finished: Callable[[BaseException | None], None]) -> None:
        self.poller = poller
        self._finished = finished
        self._coroutine: Coroutine[_Wait | None, None, None] | None = None
        self._waiting: _Wait | None = None
        self._timer: Timer | asyncio.TimerHandle | None = None

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it as far as it gets without waiting."""
        self._coroutine = coroutine
        self._step(None)

    def cancel(self) -> None:
        """End the coroutine where it waits. Not to be called by the coroutine itself."""
        self._throw(Cancelled())

    def deadline(self, seconds: float) -> None:
        """From now on the coroutine has this long, all its waits together. Replaces the former deadline."""
        self.no_deadline()
        self._timer = self.poller.timers.call_later(seconds, self._expire)

    def no_deadline(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @types.coroutine
    def readable(self, waiting: socket.socket) -> Generator[_Wait, None, None]:
        """Return when ``waiting`` may have something to read, or has ended."""
        yield waiting, _READ

    @types.coroutine
    def writable(self, waiting: socket.socket) -> Generator[_Wait, None, None]:
        """Return when ``waiting`` may take bytes, or has failed."""
        yield waiting, _WRITE

    @types.coroutine
    def first_writable(
        self, waiting: Iterable[socket.socket], within_s: float | None
    ) -> Generator[None, None, socket.socket | None]:
        """Return the first of ``waiting`` that may take bytes, or has failed; ``None`` when ``within_s`` seconds have
        passed before. ``None`` for ``within_s`` is no such limit; the deadline holds in either case."""
        first: list[socket.socket] = []

        def ready(one: socket.socket) -> None:
            first.append(one)
            self._step(None)

        timer = None if within_s is None else self.poller.loop.call_later(within_s, self._step, None)
        descriptors = {one.fileno(): one for one in waiting}
        for descriptor, one in descriptors.items():
            self.poller.on_writable(descriptor, functools.partial(ready, one))
        try:
            yield None
        finally:
            if timer is not None:
                timer.cancel()
            for descriptor in descriptors:
                self.poller.ignore_writable(descriptor)
        return first[0] if first else None

    def _expire(self) -> None:
        self._timer = None
        self._throw(DeadlineExpired())

    def _throw(self, error: BaseException) -> None:
        if self._coroutine is not None:
            self._stop_waiting()
            self._step(error)

    def _resume(self) -> None:
        self._stop_waiting()
        self._step(None)

    def _stop_waiting(self) -> None:
        wait, self._waiting = self._waiting, None
        if wait is None:
            return
        waiting, reading = wait
        if reading:
            self.poller.ignore_readable(waiting.fileno())
        else:
            self.poller.ignore_writable(waiting.fileno())

    def _step(self, error: BaseException | None) -> None:
        assert self._coroutine is not None
        try:
            wait = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
        except StopIteration:
            self._end(None)
        except BaseException as ended:  # noqa: BLE001 - the supervisor of the coroutine passes it on
            self._end(ended)
        else:
            self._waiting = wait
            if wait is None:
                return  # for several sockets: they are registered where they are waited for
            waiting, reading = wait
            if reading:
                self.poller.on_readable(waiting.fileno(), self._resume)
            else:
                self.poller.on_writable(waiting.fileno(), self._resume)

    def _end(self, error: BaseException | None) -> None:
        self.no_deadline()
        self._coroutine = None
        self._finished(error)
