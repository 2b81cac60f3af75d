"""The last events of the control process, numbered, for whoever asks what changed when.

An event is what the log has a stable name for, whatever the log's level is. Bounded, and in memory: what survives a
control process is ``keeper.py``'s. Waiting costs nothing: whoever waits is woken by the next event.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence

import msgspec

MOST = 1_000
MOST_CHANGES = 100
"""Of one event that are kept."""
_LEVELS = ((40, "error"), (30, "warning"), (20, "info"))
_OWN_FIELDS = frozenset({"changes", "services", "generation", "index"})


class Change(msgspec.Struct, frozen=True):
    """One thing that an update changed."""

    what: str
    """In words: ``intention web => db: allow -> deny``."""
    service: str = ""
    """Empty: what all services share."""
    index: int = 0
    """Consul's index of the answer that it comes from; 0 where there is none (files, DNS)."""


class Event(msgspec.Struct, frozen=True):
    number: int
    """Counted from the first one that is known: of the control process, or of the one that began the kept file."""
    time_s: float
    """Unix time."""
    level: str
    """``debug``, ``info``, ``warning`` or ``error``."""
    event: str
    """The stable name, as in the log."""
    message: str
    services: tuple[str, ...] = ()
    """External services that it concerns."""
    generation: int = 0
    """Of ``state.updated``: the number of the state that it made."""
    index: int = 0
    """The greatest index among the changes."""
    changes: tuple[Change, ...] = ()
    """The first ``MOST_CHANGES`` of them."""
    fields: dict[str, str | int | float | bool] = {}


class EventPage(msgspec.Struct, frozen=True):
    """The answer of ``/api/events``."""

    events: tuple[Event, ...]
    """The oldest first."""
    newest: int
    """The number to ask after for what comes next."""
    missed: bool = False
    """There were more after the number that was asked for, and they are forgotten, or it is of an earlier process."""


class EventRing:
    """For one event loop."""

    def __init__(self, most: int = MOST) -> None:
        self._events: deque[Event] = deque(maxlen=most)
        self._next = 1
        self._came: asyncio.Event | None = None
        self._stopped = False

    def stop_waiting(self) -> None:
        """Nobody waits from now on: the process ends."""
        self._stopped = True
        self._wake()

    def _wake(self) -> None:
        if self._came is not None:
            self._came.set()
            self._came = None

    def heard(self, level: int, name: str, message: str, fields: Mapping[str, object]) -> None:
        """As :func:`proxy.logs.emit` was called."""
        named = fields.get("services")
        services = tuple(map(str, named)) if isinstance(named, tuple) else ()
        if not services and (service := fields.get("service")):
            services = (str(service),)
        changes = fields.get("changes")
        event = Event(
            number=self._next,
            time_s=time.time(),
            level=next((text for least, text in _LEVELS if level >= least), "debug"),
            event=name,
            message=message,
            services=services,
            generation=_number(fields.get("generation")),
            index=_number(fields.get("index")),
            changes=changes[:MOST_CHANGES] if isinstance(changes, tuple) else (),
            fields={key: _plain(value) for key, value in fields.items() if key not in _OWN_FIELDS},
        )
        self._next += 1
        self._events.append(event)
        self._wake()

    def recall(self, earlier: Sequence[Event]) -> None:
        """Put events of an earlier process before those heard here, whose numbers go on from there; before anybody
        asks."""
        heard = list(self._events)
        last = earlier[-1].number if earlier else 0
        numbered = (msgspec.structs.replace(event, number=last + at) for at, event in enumerate(heard, 1))
        self._events.clear()
        self._events.extend((*earlier, *numbered))
        self._next = last + len(heard) + 1

    def after(self, number: int) -> EventPage:
        """Everything that is kept and came after ``number``."""
        newest = self._next - 1
        oldest = self._events[0].number if self._events else self._next
        if number > newest:
            return EventPage(tuple(self._events), newest, missed=True)
        events = tuple(event for event in self._events if event.number > number)
        return EventPage(events, newest, missed=number + 1 < oldest)

    async def wait_after(self, number: int, wait_s: float) -> EventPage:
        """As :meth:`after`, but wait up to ``wait_s`` while there is none."""
        if number == self._next - 1 and wait_s > 0 and not self._stopped:
            if self._came is None:
                self._came = asyncio.Event()
            try:
                async with asyncio.timeout(wait_s):
                    await self._came.wait()
            except TimeoutError:
                pass
        return self.after(number)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _plain(value: object) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)
