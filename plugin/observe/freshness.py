"""How old the state is: seconds since Consul confirmed each kind of fact, on the monotonic clock.

The age of everything is that of the kind that was confirmed longest ago, among those that Consul confirms all the time
by itself. Leaves and the default action are asked for at their own pace and only shown. Of facts that are read for each
service the newest answer counts: one service that may not be read is that service's problem, not an old state.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping

from plugin.consul.poller import WatchState
from plugin.consul.watch import WAIT_S
from proxy.logs import emit

logger = logging.getLogger(__name__)

WARNING_S = 120.0
"""Twice as long as a question may be held while all is well."""
POLLS_PER_MAXIMUM = 3.0
"""With a maximum age, questions are held so much shorter that a healthy state never comes near it."""
LOOK_S = 1.0
LOOK_WHILE_STALE_S = 0.1

LINKS, ROOTS, ENTRIES, INTENTIONS, INSTANCES = "links", "roots", "config entries", "intentions", "instances"
LEAVES, DEFAULT = "leaves", "default action"
CONFIRMED_ALL_THE_TIME = frozenset({LINKS, ROOTS, ENTRIES, INTENTIONS, INSTANCES})

_OF_SERVICE = re.compile(r"(?P<what>instances|leaf) of .+")
_KINDS = {
    "linked services": LINKS,
    "terminating-gateway entry": LINKS,
    "roots": ROOTS,
    "service-defaults": ENTRIES,
    "service-resolver": ENTRIES,
    "proxy-defaults": ENTRIES,
    "mesh": ENTRIES,
    "jwt-provider": ENTRIES,
    "intentions": INTENTIONS,
    "intentions of linked services": INTENTIONS,
    "critical checks of any service": INSTANCES,
    "warning checks of any service": INSTANCES,
    "any service": INSTANCES,
    "sidecars of any service": INSTANCES,
    "default intention action": DEFAULT,
}
"""By the names that the observer gives to its watches."""


def wait_s(max_age_s: float) -> float:
    """How long a blocking query may be held; ``max_age_s`` 0 is no maximum."""
    return min(WAIT_S, max_age_s / POLLS_PER_MAXIMUM) if max_age_s else WAIT_S


class Freshness:
    def __init__(
        self,
        states: Callable[[], Iterable[WatchState]],
        *,
        max_age_s: float = 0.0,
        stale: Callable[[bool], None] = lambda stale: None,
    ) -> None:
        """``stale`` is told when the state becomes older than ``max_age_s`` (0: never), and when it no longer is."""
        self._states = states
        self._stale = stale
        self._since_s: dict[str, float] = {}
        """Monotonic time, by kind, of what was restored."""
        self.max_age_s = max_age_s
        self.too_old = False
        self._warned = False

    def restored(self, ages_s: Mapping[str, float]) -> None:
        """Count from these ages until Consul confirms something newer."""
        now_s = time.monotonic()
        self._since_s = {kind: now_s - age_s for kind, age_s in ages_s.items()}

    def ages_s(self) -> dict[str, float]:
        """By kind; kinds of which nothing is known yet are left out."""
        groups: dict[tuple[str, str], float | None] = {}
        for state in self._states():
            group = _group(state.name)
            known = [age for age in (groups.get(group), state.age_s) if age is not None]
            groups[group] = min(known, default=None)
        now_s = time.monotonic()
        ages: dict[str, float] = {}
        for (kind, _), age_s in groups.items():
            if age_s is None and kind in self._since_s:
                age_s = now_s - self._since_s[kind]
            if age_s is not None:
                ages[kind] = max(age_s, ages.get(kind, 0.0))
        for kind, since_s in self._since_s.items():
            ages.setdefault(kind, now_s - since_s)
        return ages

    def all_confirmed(self) -> bool:
        """Nothing of what was restored is still in force unconfirmed."""
        states = [state for state in self._states() if _group(state.name)[0] in CONFIRMED_ALL_THE_TIME]
        confirmed = {_group(state.name) for state in states if state.age_s is not None}
        return bool(states) and all(_group(state.name) in confirmed for state in states)

    def age_s(self) -> float | None:
        """Of everything; ``None`` while nothing is known."""
        return oldest(self.ages_s())

    async def run(self) -> None:
        """Warn once when the state is old and say when it is fresh again; tell when it is too old. For ever."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_WHILE_STALE_S if self.too_old else LOOK_S)

    def look(self) -> None:
        age_s = self.age_s()
        if age_s is None:
            return
        too_old = bool(self.max_age_s) and age_s > self.max_age_s
        if too_old != self.too_old:
            self.too_old = too_old
            self._stale(too_old)
            self._say_too_old(age_s)
        if (age_s > WARNING_S) != self._warned:
            self._warned = not self._warned
            self._say_old(age_s)

    def _say_old(self, age_s: float) -> None:
        if self._warned:
            message = f"Consul has not confirmed the state for {age_s:.0f} s; it stays in force"
            emit(logger, logging.WARNING, "state.old", message)
        else:
            emit(logger, logging.INFO, "state.fresh", "Consul confirms the state again")

    def _say_too_old(self, age_s: float) -> None:
        if self.too_old:
            message = f"the state is {age_s:.0f} s old, more than --max-state-age: new connections are denied"
            emit(logger, logging.ERROR, "state.too_old", message)
        else:
            emit(logger, logging.INFO, "state.usable", "the state is young enough again: new connections are let in")


def oldest(ages_s: Mapping[str, float]) -> float | None:
    """``None`` when none of the kinds that Consul confirms all the time is among them."""
    return max((age_s for kind, age_s in ages_s.items() if kind in CONFIRMED_ALL_THE_TIME), default=None)


def _group(name: str) -> tuple[str, str]:
    """The kind, and what shares one age within it."""
    if (match := _OF_SERVICE.fullmatch(name)) and name not in _KINDS:
        return (INSTANCES if match["what"] == "instances" else LEAVES), match["what"]
    return _KINDS.get(name, name), name
