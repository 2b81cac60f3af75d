"""Keeps the last events in a file, so that a new control process knows what happened before it.

In ``--state-dir``, beside the saved state and with its rules: private to one user, refused when anybody else could have
touched it. Lines of JSON are appended, and now and then the file is replaced by the last events alone. It is opened
anew for each write: who moves it away begins a new one. Faults of the disk are reported, no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from plugin.errors import SavedStateRefused
from plugin.events.ring import MOST, Event, EventRing
from plugin.process.tasks import finish_in_thread
from plugin.saved_state import file
from plugin.saved_state.form import Owner
from proxy.logs import emit

logger = logging.getLogger(__name__)

INTERVAL_S = 1.0
IDLE_S = 60.0
MOST_LINES = 2 * MOST
"""In the file, before it is replaced by the last events."""
_SUFFIX = ".events"


@dataclass(frozen=True, slots=True)
class _Due:
    content: bytes
    newest: int
    whole: bool
    """It takes the place of what is in the file."""
    lines: int


class EventKeeper:
    """For one gateway. Without a directory it keeps nothing."""

    def __init__(self, directory: Path | None, owner: Owner, ring: EventRing) -> None:
        self._path = file.path_of(directory.absolute(), owner).with_suffix(_SUFFIX) if directory is not None else None
        self._ring = ring
        self._written = 0
        """The number of the last event that is in the file."""
        self._lines = 0
        """In the file."""
        self._whole = True
        """The file has to be replaced: nothing of it is known to be whole."""
        self.problem = ""
        """Why events cannot be kept, with the remedy; empty when all is well."""

    def recall(self) -> None:
        """Put what an earlier control process has kept before what this one has heard already."""
        if self._path is None:
            return
        try:
            file.check_directory(self._path.parent)
            content = file.read(self._path)
        except SavedStateRefused as refused:
            self._report(f"the events in {self._path} are not used: {refused}; remove the file")
            return
        self._ring.recall(list(_events(content or b""))[-MOST:])

    async def run(self) -> None:
        """Write what comes until cancelled, and a last time then."""
        if self._path is None:
            return
        try:
            while True:
                await self._ring.wait_after(self._written, IDLE_S)
                if (due := self._due()) is not None:
                    work = partial(self._try_to_write, self._path, due)
                    await finish_in_thread(work, partial(self._done, due))
                await asyncio.sleep(INTERVAL_S)
        finally:
            if (due := self._due()) is not None:
                self._done(due, self._try_to_write(self._path, due))

    def _due(self) -> _Due | None:
        """``None`` when there is nothing to write."""
        page = self._ring.after(self._written)
        if not page.events and not self._whole:
            return None
        whole = self._whole or self._lines >= MOST_LINES
        events = self._ring.after(0).events if whole else page.events
        content = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        return _Due(content, page.newest, whole, len(events))

    @staticmethod
    def _try_to_write(path: Path, due: _Due) -> str:
        """The problem, or an empty text. Blocks for as long as the disk takes."""
        try:
            file.check_directory(path.parent)
            if due.whole:
                file.write(path, due.content)
            else:
                file.append(path, due.content)
        except SavedStateRefused as refused:
            return f"events are not kept in {path}: {refused}; mend that, or remove the file"
        except OSError as error:
            what = f"events cannot be kept in {path.parent}: {error.strerror}"
            return f"{what}; make room, or let this user write there. Serving goes on"
        return ""

    def _done(self, due: _Due, problem: str) -> None:
        if problem:
            # A part of a line may be there.
            self._whole = True
            self._report(problem)
            return
        self._whole = False
        self._written = due.newest
        self._lines = due.lines if due.whole else self._lines + due.lines
        if self.problem:
            self.problem = ""
            emit(logger, logging.INFO, "events.kept", "events are kept again")

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            emit(logger, logging.ERROR, "events.not_kept", problem)


def _events(content: bytes) -> Iterable[Event]:
    """Those lines that are whole: a crash may have cut the last one."""
    for line in content.split(b"\n"):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield msgspec.json.decode(line, type=Event)
