"""Where facts are written: one, or all config entries of one kind. They tell who owns the facts what has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from plugin.errors import GatewayError
from plugin.facts import Fact
from proxy.model import ServiceName

T = TypeVar("T")


class Slot(Generic[T]):
    """Where one fact is written. Writing what is known already, and was confirmed, is not a change."""

    def __init__(self, read: Callable[[], Fact[T] | None], write: Callable[[Fact[T], bool], None]) -> None:
        self._read = read
        self._write = write

    @property
    def fact(self) -> Fact[T]:
        return self._read() or Fact()

    def learned(self, value: T | None, *, index: int = 0) -> None:
        old = self._read()
        if old is not None:
            changed = not old.known or old.problem is not None or old.value != value
            self._write(old.learned(value, index=index, at_s=time.time()), changed)

    def restore(self, value: T | None, *, as_of_s: float) -> None:
        """Know again what was known at ``as_of_s``, Unix time."""
        old = self._read()
        if old is not None:
            self._write(old.learned(value, at_s=as_of_s), True)

    def failed(self, problem: GatewayError) -> None:
        old = self._read()
        if old is not None:
            self._write(old.failed(problem), str(problem) != str(old.problem or ""))


class _Entry(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def partition(self) -> str: ...


E = TypeVar("E", bound=_Entry)


class EntryList(Generic[E]):
    """All config entries of one kind, each a fact of the service that it is named after."""

    def __init__(self, touched: Callable[[Iterable[ServiceName] | None], None]) -> None:
        self._touched = touched
        self._whole: Fact[dict[ServiceName, E]] = Fact()
        self._unsure: set[ServiceName] = set()

    @property
    def current(self) -> bool:
        """Known, and the newest attempt to learn it did not fail."""
        return self._whole.known and self._whole.problem is None

    @property
    def all(self) -> Fact[tuple[E, ...]]:
        whole = self._whole
        value = tuple(whole.value.values()) if whole.value is not None else None
        return Fact(value, whole.known, whole.problem, whole.index, whole.as_of_s)

    def of(self, name: ServiceName) -> Fact[E]:
        if name in self._unsure:
            return Fact()
        whole = self._whole
        value = whole.value.get(name) if whole.value is not None else None
        return Fact(value, whole.known, whole.problem, whole.index, whole.as_of_s)

    def learned(self, entries: Iterable[E], *, index: int = 0) -> None:
        old, was_known = self._whole.value or {}, self._whole.known
        new = _by_name(entries)
        self._whole = self._whole.learned(new, index=index, at_s=time.time())
        if was_known:
            self._touched(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        else:
            self._touched(None)

    def doubt(self, names: Iterable[ServiceName]) -> bool:
        """Know nothing of the entries of ``names`` until :meth:`sure`: the list may be older than they are. Returns
        false when there is nothing to doubt: the list is not known, or not from this Consul."""
        if not self.current or not self._whole.index:
            return False
        self._unsure.update(names)
        return True

    def sure(self, names: Iterable[ServiceName]) -> None:
        self._unsure.difference_update(names)
        self._touched(names)

    @property
    def index(self) -> int:
        """Of the answer that the list is from."""
        return self._whole.index

    def restore(self, entries: Iterable[E], *, as_of_s: float) -> None:
        """Know again what was known at ``as_of_s``, Unix time."""
        self._whole = self._whole.learned(_by_name(entries), at_s=as_of_s)
        self._touched(None)

    def forget(self) -> None:
        self._whole = Fact()

    def failed(self, problem: GatewayError) -> None:
        news = not self._whole.known and str(problem) != str(self._whole.problem or "")
        self._whole = self._whole.failed(problem)
        if news:
            self._touched(None)


def _by_name(entries: Iterable[E]) -> dict[ServiceName, E]:
    return {ServiceName(entry.name, entry.namespace, entry.partition): entry for entry in entries}
