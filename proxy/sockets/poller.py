"""Which sockets the worker waits for: one epoll set of our own, watched by the event loop as a single descriptor.

The loop's own ``add_reader`` and ``remove_reader`` cost several system calls each, and a connection needs a dozen of
them in its short life. Here a socket is registered once, interest is kept in this process, and the kernel is told only
when it reports something that nobody wants any more.

Level-triggered: what is not consumed is reported again. A callback may be called without need, and must then find out
by itself that there is nothing to do.
"""

from __future__ import annotations

import asyncio
import math
import select
import selectors
import socket
import time
from collections.abc import Callable

from proxy.sockets.timers import Timers

_IN, _OUT = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
_ENDED = select.EPOLLERR | select.EPOLLHUP
_IN_OR_ENDED, _OUT_OR_ENDED = _IN | _ENDED, _OUT | _ENDED
_EVENTS_PER_WAKE = 256

Callback = Callable[[], None]


class _Interest:
    """What is wanted of one descriptor, and what the kernel was told."""

    __slots__ = ("broken", "lost", "mask", "reader", "writer")

    def __init__(self) -> None:
        self.mask = 0
        self.reader: Callback | None = None
        self.writer: Callback | None = None
        self.broken: Callable[[Exception], None] | None = None
        self.lost: Callback | None = None


class Poller(selectors.EpollSelector):
    """Readiness callbacks for non-blocking sockets, in the epoll set of the event loop itself."""

    def __init__(self) -> None:
        super().__init__()
        self._epoll: select.epoll = self._selector  # type: ignore[attr-defined]
        self._interests: dict[int, _Interest] = {}
        self._loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop(self)
        # What the method calls, without its frame: each request asks for the time again and again.
        self._loop.time = time.monotonic  # type: ignore[method-assign]
        self.timers = Timers(self._loop)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that waits in this set."""
        return self._loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait, call who waits for a socket, and return what the event loop itself has registered."""
        if timeout is None:
            timeout = -1
        elif timeout <= 0:
            timeout = 0
        else:
            # Rounded up to epoll's milliseconds, or the loop would spin through the last one.
            timeout = math.ceil(timeout * 1e3) * 1e-3
        own: list[tuple[selectors.SelectorKey, int]] = []
        try:
            events = self._epoll.poll(timeout, _EVENTS_PER_WAKE)
        except InterruptedError:
            return own
        for descriptor, mask in events:
            interest = self._interests.get(descriptor)
            if interest is not None:
                self._dispatch(descriptor, interest, mask)
            elif (key := self._fd_to_key.get(descriptor)) is not None:  # type: ignore[attr-defined]
                wanted = (selectors.EVENT_WRITE if mask & ~select.EPOLLIN else 0) | (
                    selectors.EVENT_READ if mask & ~select.EPOLLOUT else 0
                )
                own.append((key, wanted & key.events))
        return own

    def on_readable(self, descriptor: int, callback: Callback) -> None:
        """Call ``callback`` while there is something to read, or an end or an error to find by reading."""
        interest = self._interests.get(descriptor) or self._interest(descriptor)
        interest.reader = callback
        if not interest.mask & _IN:
            self._tell(descriptor, interest)

    def on_writable(self, descriptor: int, callback: Callback) -> None:
        """Call ``callback`` while there is room to write, or an error to find by writing."""
        interest = self._interests.get(descriptor) or self._interest(descriptor)
        interest.writer = callback
        if not interest.mask & _OUT:
            self._tell(descriptor, interest)

    def supervise(self, descriptor: int, broken: Callable[[Exception], None], lost: Callback | None = None) -> None:
        """Call ``broken`` when a callback of this descriptor raises: a bug, which ends what it belongs to, and is
        reported by it.

        :param lost: is called when the connection breaks down (a reset) while nobody reads or writes."""
        interest = self._interest(descriptor)
        interest.broken, interest.lost = broken, lost

    def run(self, descriptor: int, callback: Callback) -> None:
        """Call ``callback`` now, supervised as if ``descriptor`` had been reported."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - the supervisor of all callbacks
            self._failed(self._interest(descriptor), error)

    def ignore_readable(self, descriptor: int) -> None:
        """Cheap: the kernel is told when it next reports the descriptor readable."""
        if interest := self._interests.get(descriptor):
            interest.reader = None

    def ignore_writable(self, descriptor: int) -> None:
        """Cheap, as for reading."""
        if interest := self._interests.get(descriptor):
            interest.writer = None

    def forget(self, descriptor: int) -> None:
        """To be called before the descriptor is closed: closing removes it from the kernel's set.

        Also by a callback of this descriptor: what else was reported of it is then told to nobody."""
        if (interest := self._interests.pop(descriptor, None)) is not None:
            interest.reader = interest.writer = None

    def close_socket(self, one: socket.socket) -> None:
        """Forget and close. Sockets that were ever waited for are closed only so: their numbers come back soon."""
        self.forget(one.fileno())
        one.close()

    def _interest(self, descriptor: int) -> _Interest:
        interest = self._interests.get(descriptor)
        if interest is None:
            interest = self._interests[descriptor] = _Interest()
        return interest

    def _tell(self, descriptor: int, interest: _Interest) -> None:
        wanted = (_IN if interest.reader else 0) | (_OUT if interest.writer else 0)
        if not wanted and interest.lost is not None:
            wanted = select.EPOLLONESHOT  # with nothing but this flag the kernel reports a broken connection, once
        told = interest.mask
        if wanted == told:
            return
        if not wanted:
            # Errors are reported even to an empty mask, again and again: out of the set with it.
            try:
                self._epoll.unregister(descriptor)
            except OSError:
                pass  # it was closed by somebody else
        elif told:
            self._epoll.modify(descriptor, wanted)
        else:
            self._epoll.register(descriptor, wanted)
        # Only now: what the kernel has refused must be told it again, when the number is another socket's.
        interest.mask = wanted

    def _dispatch(self, descriptor: int, interest: _Interest, events: int) -> None:
        called = False  # something was reported that nobody wants
        try:
            if events & _IN_OR_ENDED and (reader := interest.reader) is not None:
                reader()
                called = True
            if events & _OUT_OR_ENDED and (writer := interest.writer) is not None:
                writer()
                called = True
        except Exception as error:  # noqa: BLE001 - the supervisor of all callbacks
            self._failed(interest, error)
            called = False
        if not called and self._interests.get(descriptor) is interest:
            if events & select.EPOLLERR and (lost := interest.lost) is not None:
                interest.lost = None
                lost()
            self._tell(descriptor, interest)

    def _failed(self, interest: _Interest, error: Exception) -> None:
        """A bug of the callback, or no memory: it must neither stop the others nor be repeated for ever."""
        interest.reader = interest.writer = None
        if interest.broken is not None:
            interest.broken(error)
        else:
            self._loop.call_exception_handler({"message": "a readiness callback failed", "exception": error})
