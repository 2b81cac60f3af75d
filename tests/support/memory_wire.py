"""A wire that only keeps what is written: a protocol in memory, as fast as it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from proxy.http.message import Data
from proxy.http.wire import Wire, WireOwner


class _Loop:
    """Keeps what is to be called later; nothing is ever late."""

    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        self.soon.append((callback, arguments))


class _Timer:
    def cancel(self) -> None:
        pass


class MemoryWire:
    """Feed it with :meth:`receive` and :meth:`end`."""

    owner: WireOwner

    def __init__(self) -> None:
        self.loop = _Loop()
        self.sent = bytearray()
        self.finished = False
        self.closed = False
        self.reset = False
        self.untouched = False
        self.bytes_received = 0
        self.waiting = 0
        self.held = 0
        self.short = False
        self._reading = False
        self._unread: list[bytes] = []

    @property
    def wire(self) -> Wire:
        return cast("Wire", self)

    def receive(self, data: bytes) -> None:
        """From the peer; what comes while nobody reads waits."""
        self._unread.append(data)
        self._run()

    def end(self, *, cut: bool = False) -> None:
        """The peer ends. What was not read yet comes first."""
        if self._reading and not self.closed:
            assert not self._unread
            self.owner.on_end(cut=cut)
            self._run()

    def _run(self) -> None:
        while self.loop.soon or (self._reading and self._unread and not self.closed):
            if self.loop.soon:
                callback, arguments = self.loop.soon.pop(0)
                callback(*arguments)
            else:
                data = self._unread.pop(0)
                self.bytes_received += len(data)
                self.owner.on_bytes(memoryview(data))

    def listen(self) -> None:
        self._reading = True

    def pause(self) -> None:
        self._reading = False

    def soon(self, callback: Callable[[], object]) -> None:
        self.loop.call_soon(lambda: None if self.closed else callback())

    def after(self, delay_s: float, callback: Callable[[], object]) -> _Timer:
        return _Timer()

    def hold(self, change: int) -> None:
        self.held += change
        assert self.held >= 0

    def mark(self) -> None:
        pass

    def write(self, data: Data) -> bool:
        assert not self.finished
        if not self.closed:
            self.sent += data
        return True

    def finish(self, *, cut: bool = False) -> None:
        self.finished = True

    def close(self, *, reset: bool) -> None:
        self.closed = True
        self.reset = reset

    def hint(self) -> str:
        return ""
