"""What is kept of events: for the next process, whole lines of ours alone, and never too many."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from plugin.events.keeper import MOST_LINES, EventKeeper
from plugin.events.ring import MOST, Event, EventRing
from plugin.process.tasks import spawn
from plugin.saved_state import file
from plugin.saved_state.form import Owner
from tests.support.eventually import eventually

OWNER = Owner(service="gw", service_id="gw", namespace="", partition="")


def modes(directory: Path) -> list[int]:
    return [path.stat().st_mode & 0o777 for path in (directory, kept(directory))]


class Process:
    """As much of a control process as keeps events."""

    def __init__(self, directory: Path | None) -> None:
        self.ring = EventRing()
        self.keeper = EventKeeper(directory, OWNER, self.ring)

    def hears(self, *names: str) -> None:
        for name in names:
            self.ring.heard(20, name, f"it was {name}", {"service": "db", "pid": 7})

    async def ends(self) -> None:
        """As one that is ended does, having begun to write."""
        task = spawn(self.keeper.run(), name="events")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    @property
    def events(self) -> tuple[Event, ...]:
        return self.ring.after(0).events

    @property
    def names(self) -> list[str]:
        return [one.event for one in self.events]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state"


def kept(directory: Path) -> Path:
    (path,) = directory.glob("*.events")
    return path


async def test_the_next_process_begins_with_them(directory: Path) -> None:
    first = Process(directory)
    first.hears("a", "b", "c")
    await first.ends()
    second = Process(directory)
    second.hears("d")
    second.keeper.recall()
    second.hears("e")
    assert [(one.number, one.event) for one in second.events] == list(enumerate("abcde", 1))
    assert second.events[0] == first.events[0]
    assert not second.ring.after(3).missed
    await second.ends()
    third = Process(directory)
    third.keeper.recall()
    assert third.names == list("abcde")


async def test_they_are_added_as_they_come(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.events.keeper.INTERVAL_S", 0.0)
    process = Process(directory)
    process.hears("a")
    task = spawn(process.keeper.run(), name="events")

    def lines() -> int:
        return (
            len(kept(directory).read_bytes().splitlines())
            if directory.exists() and list(directory.glob("*.events"))
            else 0
        )

    await eventually(lambda: lines() == 1)
    before = kept(directory).stat().st_ino
    process.hears("b")
    await eventually(lambda: lines() == 2)
    assert kept(directory).stat().st_ino == before
    # As logrotate does.
    kept(directory).rename(directory / "old")
    process.hears("c")
    await eventually(lambda: lines() == 1)
    task.cancel()
    await asyncio.wait([task])
    assert modes(directory) == [0o700, 0o600]


async def test_never_too_many(directory: Path) -> None:
    process = Process(directory)
    for _ in range(6):
        process.hears(*(["x"] * (MOST // 2)))
        due = process.keeper._due()
        assert due is not None
        process.keeper._done(due, process.keeper._try_to_write(kept_path(process), due))
        assert len(kept(directory).read_bytes().splitlines()) <= MOST_LINES + MOST // 2
    after = Process(directory)
    after.keeper.recall()
    assert len(after.events) == MOST
    assert after.events[-1].number == 3 * MOST


def kept_path(process: Process) -> Path:
    assert process.keeper._path is not None
    return process.keeper._path


async def test_a_line_that_a_crash_has_cut_is_left_out(directory: Path) -> None:
    first = Process(directory)
    first.hears("a", "b")
    await first.ends()
    content = kept(directory).read_bytes()
    kept(directory).write_bytes(content[:-9] + b'\n{"event":"\x80"}\n')
    second = Process(directory)
    second.keeper.recall()
    second.hears("c")
    assert second.names == ["a", "c"]
    await second.ends()
    third = Process(directory)
    third.keeper.recall()
    assert third.names == ["a", "c"]


async def test_what_others_may_write_is_not_used(directory: Path) -> None:
    first = Process(directory)
    first.hears("a")
    await first.ends()
    kept(directory).chmod(0o644)
    second = Process(directory)
    second.keeper.recall()
    assert second.events == ()
    assert "other users may read or write it" in second.keeper.problem
    assert "remove the file" in second.keeper.problem


async def test_a_full_disk_is_reported_and_made_good(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugin.events.keeper.INTERVAL_S", 0.0)
    process = Process(directory)
    process.hears("a")
    task = spawn(process.keeper.run(), name="events")
    await eventually(lambda: bool(list(directory.glob("*.events"))))

    def full(path: Path, content: bytes) -> None:
        with path.open("ab") as opened:
            opened.write(content[:5])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(file, "append", full)
        patched.setattr(file, "write", full)
        process.hears("b")
        await eventually(lambda: process.keeper.problem)
        assert "No space left on device; make room" in process.keeper.problem
    await eventually(lambda: not process.keeper.problem)
    task.cancel()
    await asyncio.wait([task])
    after = Process(directory)
    after.keeper.recall()
    assert after.names == ["a", "b"]


async def test_without_a_directory_nothing_is_kept() -> None:
    process = Process(None)
    process.keeper.recall()
    await process.keeper.run()
    assert process.keeper.problem == ""
