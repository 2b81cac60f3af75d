"""The contents of the files that links name, kept up to date.

Polling is used because it sees every way in which files are replaced (rename, symbolic link, network file system,
bind mount). A file that is written in place counts only when it has stopped changing. What was read before stays
known when a file cannot be read any more. What the contents mean is not looked at here.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

from plugin.errors import FileUnreadable
from plugin.facts import Fact

MAX_BYTES = 16 * 1024 * 1024
"""A bundle of all public authorities is about 0.3 MiB."""

Stamp = tuple[int, ...]
"""Device, inode, size, and times of change: what differs when the content may differ."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at a path found."""

    stamp: Stamp | str
    """The text of a problem takes the place of the stamp of a file."""
    content: bytes | None = None
    """Set when the file was read and did not change meanwhile."""


@dataclass(slots=True)
class _Watched:
    fact: Fact[bytes]
    taken: Stamp | str | None = None
    """What ``fact`` is from."""
    seen: Stamp | str | None = None
    """What the look before found; only what is found twice, or is old enough, is taken."""


class FileWatcher:
    """Watches the set of paths that is in use. For one event loop; reads happen in a thread of its own."""

    def __init__(
        self,
        on_change: Callable[[frozenset[str]], None],
        *,
        interval_s: float = 1.0,
        settle_s: float = 0.25,
        read_timeout_s: float = 10.0,
    ) -> None:
        """``on_change`` gets the paths whose fact changed. A file counts as finished after ``settle_s`` without a
        change."""
        self._on_change = on_change
        self._interval_s = interval_s
        self._settle_s = settle_s
        self._read_timeout_s = read_timeout_s
        self._watched: dict[str, _Watched] = {}
        self._wake = asyncio.Event()

    @property
    def contents(self) -> Mapping[str, Fact[bytes]]:
        """The fact of every watched path; not known until it was first read."""
        return MappingProxyType({path: watched.fact for path, watched in self._watched.items()})

    def fact(self, path: str) -> Fact[bytes]:
        watched = self._watched.get(path)
        return watched.fact if watched is not None else Fact()

    def set_paths(self, paths: Iterable[str]) -> None:
        """Watch exactly these paths; new ones are read at once."""
        wanted = frozenset(paths)
        for path in self._watched.keys() - wanted:
            del self._watched[path]
        for path in wanted - self._watched.keys():
            self._watched[path] = _Watched(Fact())
            self._wake.set()

    def check_now(self) -> None:
        """Look at all files now instead of at the next interval."""
        self._wake.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        executor = ThreadPoolExecutor(1, thread_name_prefix="files")
        try:
            while True:
                self._wake.clear()
                unsettled = await self._look(executor)
                pause_s = self._settle_s if unsettled else self._interval_s
                try:
                    await asyncio.wait_for(self._wake.wait(), pause_s)
                except TimeoutError:
                    continue
        finally:
            executor.shutdown(wait=False, cancel_futures=True)

    async def _look(self, executor: ThreadPoolExecutor) -> bool:
        """Look at every path once; return whether some file may still be in the middle of a change."""
        known = {path: (watched.taken, watched.seen) for path, watched in self._watched.items()}
        if not known:
            return False
        looks = await self._finished(executor.submit(_look_at_all, known, self._settle_s), known)
        changed = {path for path, look in looks.items() if self._take(path, look)}
        if changed:
            self._on_change(frozenset(changed))
        return any(watched.seen != watched.taken for watched in self._watched.values())

    async def _finished(self, future: Future[dict[str, _Look]], paths: Iterable[str]) -> dict[str, _Look]:
        """Wait for the thread. A file system that hangs is reported, and waited for: a thread cannot be stopped."""
        waiting = asyncio.wrap_future(future)
        done, _ = await asyncio.wait({waiting}, timeout=self._read_timeout_s)
        if not done:
            problem = FileUnreadable(
                f"reading the files of links takes longer than {self._read_timeout_s:g} s; "
                "check the file system that holds them"
            )
            stuck = [path for path in paths if path in self._watched]
            for path in stuck:
                self._watched[path].fact = self._watched[path].fact.failed(problem)
                self._watched[path].taken = None
            self._on_change(frozenset(stuck))
        return await waiting

    def _take(self, path: str, look: _Look) -> bool:
        """Take over what was found. Return whether the fact changed."""
        watched = self._watched.get(path)
        if watched is None:
            return False
        twice, watched.seen = look.stamp == watched.seen, look.stamp
        if look.stamp == watched.taken:
            return False
        before = watched.fact
        if isinstance(look.stamp, str):
            # Between the removal of a file and its replacement there is a moment without a file.
            if before.known and not twice:
                return False
            watched.fact = before.failed(FileUnreadable(look.stamp))
        elif look.content is None:
            return False
        else:
            watched.fact = before.learned(look.content, at_s=time.time())
        watched.taken = look.stamp
        return (
            watched.fact.value != before.value or str(watched.fact.problem) != str(before.problem) or not before.known
        )


def read_once(path: str) -> bytes | str:
    """What is in a file at this moment, or why it cannot be used. May take as long as its file system does."""
    look = _look_at(path, None, None, 0.0)
    if look.content is not None:
        return look.content
    return look.stamp if isinstance(look.stamp, str) else f"{path} is being written at this moment; try again"


def _look_at_all(
    known: Mapping[str, tuple[Stamp | str | None, Stamp | str | None]], settle_s: float
) -> dict[str, _Look]:
    return {path: _look_at(path, taken, seen, settle_s) for path, (taken, seen) in known.items()}


def _look_at(path: str, taken: Stamp | str | None, seen: Stamp | str | None, settle_s: float) -> _Look:
    try:
        before = os.stat(path)
        if not stat.S_ISREG(before.st_mode):
            return _Look(f"{path} is not a regular file; name a file in PEM format")
        if before.st_size > MAX_BYTES:
            return _Look(f"{path} has {before.st_size} bytes, more than {MAX_BYTES}; name a file in PEM format")
        stamp = _stamp(before)
        settled = stamp == seen or time.time() - max(before.st_mtime, before.st_ctime) >= settle_s
        if stamp == taken or not settled:
            return _Look(stamp)
        with open(path, "rb", opener=_open_without_waiting) as file:
            content = file.read(MAX_BYTES + 1)
        after = _stamp(os.stat(path))
        return _Look(after, content if after == stamp else None)
    except OSError as error:
        return _Look(_explain(path, error))
    except ValueError:
        return _Look(f"{path!r} is not a path; correct it in the terminating-gateway entry")


def _open_without_waiting(path: str, flags: int) -> int:
    # A pipe that took the file's place after the check would otherwise be waited for.
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _explain(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist on the gateway's host; put the file there or correct the link"
    if isinstance(error, PermissionError):
        return (
            f"{path} may not be read by the gateway's user (uid {os.geteuid()}); "
            "allow it with chown or chmod, of the file and of the folders above it"
        )
    return f"{path} cannot be read: {error.strerror or error}; check the file and its file system"
