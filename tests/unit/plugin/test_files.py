"""Files are followed through every way in which they are replaced, and never lost to a fault."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from plugin.errors import FileUnreadable
from plugin.observe.files import MAX_BYTES, FileWatcher

PATIENCE_S = 20.0


class Watched:
    """A running watcher whose changes can be waited for."""

    def __init__(self, *, settle_s: float = 0.05, interval_s: float = 0.05) -> None:
        self.changes: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        self.watcher = FileWatcher(self.changes.put_nowait, settle_s=settle_s, interval_s=interval_s)

    async def until(self, path: Path, content: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.watcher.fact(str(path)).value != content:
                await self.changes.get()

    async def until_problem(self, path: Path, text: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while text not in str(self.watcher.fact(str(path)).problem):
                await self.changes.get()

    @asynccontextmanager
    async def running(self, *paths: Path) -> AsyncIterator[FileWatcher]:
        self.watcher.set_paths(map(str, paths))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.watcher.run(), name="files")
            yield self.watcher
            task.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(b"one")
    return path


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


async def test_a_file_is_not_known_until_it_was_read(path: Path) -> None:
    watched = Watched()
    async with watched.running(path) as watcher:
        assert not watcher.fact(str(path)).known
        await watched.until(path, b"one")
        assert watcher.contents[str(path)].known
        assert watched.changes.empty()


async def test_a_file_that_is_renamed_over_it_is_read(path: Path, tmp_path: Path) -> None:
    watched = Watched()
    async with watched.running(path):
        await watched.until(path, b"one")
        fresh = tmp_path / "fresh"
        write(fresh, b"two")
        fresh.rename(path)
        await watched.until(path, b"two")


async def test_a_symbolic_link_that_points_elsewhere_is_followed(path: Path, tmp_path: Path) -> None:
    link, other = tmp_path / "link", tmp_path / "other"
    write(other, b"two")
    link.symlink_to(path)
    watched = Watched()
    async with watched.running(link):
        await watched.until(link, b"one")
        swapped = tmp_path / "swapped"
        swapped.symlink_to(other)
        swapped.rename(link)
        await watched.until(link, b"two")


async def test_a_change_of_the_same_size_in_place_is_read(path: Path) -> None:
    watched = Watched()
    async with watched.running(path):
        await watched.until(path, b"one")
        write(path, b"two")
        await watched.until(path, b"two")


async def test_a_file_that_is_being_written_is_taken_only_when_it_is_finished(path: Path) -> None:
    watched = Watched(settle_s=0.5)
    async with watched.running(path) as watcher:
        await watched.until(path, b"one")
        with path.open("wb", buffering=0) as file:
            for _ in range(20):
                file.write(b"x")
                watcher.check_now()
                await asyncio.sleep(0.01)
                assert watcher.fact(str(path)).value == b"one"
        await watched.until(path, b"x" * 20)


async def test_what_was_read_before_stays_when_the_file_vanishes_and_the_problem_is_told(path: Path) -> None:
    watched = Watched()
    async with watched.running(path) as watcher:
        await watched.until(path, b"one")
        remove(path)
        await watched.until_problem(path, "does not exist on the gateway's host; put the file there")
        fact = watcher.fact(str(path))
        assert isinstance(fact.problem, FileUnreadable)
        assert fact.known
        assert fact.value == b"one"
        write(path, b"one")
        await watched.until_problem(path, "None")


async def test_the_moment_between_removal_and_replacement_is_no_problem(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = os.stat

    def stat(*arguments: object, **options: object) -> os.stat_result:
        try:
            return real(*arguments, **options)  # type: ignore[arg-type]
        except FileNotFoundError:
            loop.call_soon_threadsafe(missed.set)
            raise

    watched = Watched(settle_s=1.0, interval_s=30.0)
    async with watched.running(path) as watcher:
        await watched.until(path, b"one")
        monkeypatch.setattr(os, "stat", stat)
        remove(path)
        watcher.check_now()
        await asyncio.wait_for(missed.wait(), PATIENCE_S)
        write(path, b"two")
        await watched.until(path, b"two")
        assert watcher.fact(str(path)).problem is None
        assert watched.changes.empty(), "two was the one change that was told"


async def test_a_missing_file_is_a_problem_at_once_and_is_read_when_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "later.pem"
    watched = Watched()
    async with watched.running(path) as watcher:
        await watched.until_problem(path, f"{path} does not exist")
        assert not watcher.fact(str(path)).known
        write(path, b"here")
        await watched.until(path, b"here")
        assert watcher.fact(str(path)).problem is None


async def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    watched = Watched()
    async with watched.running(pipe, large, tmp_path) as watcher:
        await watched.until_problem(pipe, "is not a regular file")
        await watched.until_problem(tmp_path, "is not a regular file")
        await watched.until_problem(large, "more than 16777216")
        assert not any(fact.known for fact in watcher.contents.values())


async def test_one_bad_path_does_not_hold_up_another(path: Path) -> None:
    watched = Watched()
    async with watched.running(Path("bad\0path"), path):
        await watched.until(path, b"one")
        await watched.until_problem(Path("bad\0path"), "is not a path")


async def test_paths_come_and_go_while_it_runs(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write(other, b"two")
    watched = Watched(interval_s=30.0)
    async with watched.running(path) as watcher:
        await watched.until(path, b"one")
        watcher.set_paths([str(other)])
        await watched.until(other, b"two")
        assert set(watcher.contents) == {str(other)}


@contextmanager
def shut_out(path: Path) -> Iterator[None]:
    """Take the right to read ``path`` away from this process; no mode keeps root out, so root becomes nobody."""
    user = os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(0o600)


async def test_a_forbidden_file_names_the_user_and_is_read_once_it_is_allowed(path: Path) -> None:
    watched = Watched()
    with shut_out(path):
        user = os.geteuid()
        async with watched.running(path) as watcher:
            await watched.until_problem(path, f"{path} may not be read by the gateway's user (uid {user})")
            assert "chown or chmod, of the file and of the folders above it" in str(watcher.fact(str(path)).problem)
    async with watched.running(path):
        await watched.until(path, b"one")


async def test_a_folder_that_kubernetes_swaps_is_followed(tmp_path: Path) -> None:
    for version, content in (("..1", b"one"), ("..2", b"two")):
        (tmp_path / version).mkdir()
        write(tmp_path / version / "ca.pem", content)
    (tmp_path / "..data").symlink_to("..1")
    path = tmp_path / "ca.pem"
    path.symlink_to("..data/ca.pem")
    watched = Watched()
    async with watched.running(path):
        await watched.until(path, b"one")
        (tmp_path / "..data_tmp").symlink_to("..2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await watched.until(path, b"two")


async def test_a_file_system_that_hangs_is_reported_and_what_was_read_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    release, hang = threading.Event(), threading.Event()
    real = os.stat

    def slow(*arguments: object, **options: object) -> os.stat_result:
        if hang.is_set() and arguments == (str(path),):
            release.wait(PATIENCE_S)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", slow)
    changes: asyncio.Queue[frozenset[str]] = asyncio.Queue()
    watched = Watched()
    watched.watcher = FileWatcher(changes.put_nowait, interval_s=0.05, settle_s=0.05, read_timeout_s=0.2)
    watched.changes = changes
    try:
        async with watched.running(path) as watcher:
            await watched.until(path, b"one")
            hang.set()
            await watched.until_problem(path, "takes longer than 0.2 s")
            assert watcher.fact(str(path)).value == b"one"
            release.set()
            hang.clear()
            await watched.until_problem(path, "None")
    finally:
        release.set()
