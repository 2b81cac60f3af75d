"""Saves the state when it has changed, and puts it back at a start. Faults of the disk are reported, no more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from plugin.addresses import HostPort
from plugin.errors import ConfigError, SavedStateRefused
from plugin.observe.freshness import Freshness
from plugin.observe.store import FactStore
from plugin.process.tasks import finish_in_thread
from plugin.saved_state import file, form
from plugin.saved_state.facts import Rest, gather, put_back
from plugin.saved_state.form import Owner, SavedState
from plugin.settings import GatewaySettings
from proxy.logs import emit

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
"""Between two writes of a state that keeps changing."""
REFRESH_S = 300.0
"""Between two writes of one that does not: its age is in it."""
REFRESHES_PER_MAXIMUM = 4.0
FUTURE_S = 60.0
"""A clock that was set back by less is no reason to doubt a state."""


class StateKeeper:
    """For one gateway. Without a directory it keeps nothing."""

    def __init__(
        self,
        directory: Path | None,
        owner: Owner,
        store: FactStore,
        freshness: Freshness,
        *,
        worth_saving: Callable[[], bool],
        generation: Callable[[], int],
        bound: Callable[[], tuple[HostPort, ...]] = lambda: (),
    ) -> None:
        """``generation`` is the number of the newest state that workers have. ``worth_saving`` says whether the first
        answers have all come, so that no better state is replaced. ``bound`` is where it listens, if that is to be
        known at the next start."""
        self._directory = directory.absolute() if directory is not None else None
        self._owner = owner
        self._store = store
        self._freshness = freshness
        self._worth_saving = worth_saving
        self._generation = generation
        self._bound = bound
        self._refresh_s = REFRESH_S
        if freshness.max_age_s:
            self._refresh_s = min(REFRESH_S, freshness.max_age_s / REFRESHES_PER_MAXIMUM)
        self._saved_version = (-1, -1)
        self._saved_at_s = 0.0
        self._confirmed = False
        self.restored: SavedState | None = None
        self.problem = ""
        """Why nothing could be restored or saved, with the remedy; empty when all is well."""

    def restore(self, *, in_force: bool = False) -> Rest:
        """Put back what was saved, wholly or not at all.

        :param in_force: the workers have their state from this very file, whatever number it has by now.
        """
        if self._directory is None:
            return Rest()
        path = file.path_of(self._directory, self._owner)
        try:
            file.check_directory(self._directory)
            state = _read(path, self._owner)
        except SavedStateRefused as refused:
            self._report(str(refused), "state.refused")
            return Rest()
        if state is None:
            return Rest()
        if self._generation() > state.generation and not in_force:
            message = f"workers of an earlier start have a newer state than {path}; they go on with it"
            emit(logger, logging.INFO, "state.outdated", message)
            return Rest()
        age_s = _seconds_since(state)
        self._freshness.restored({kind: kind_age_s + age_s for kind, kind_age_s in state.ages_s.items()})
        # Before anything of it can be in force.
        self._freshness.look()
        rest = put_back(state, self._store, now_s=time.time())
        self.restored = state
        message = f"begins with the state in {path}, saved {age_s:.0f} s ago, until Consul answers"
        emit(logger, logging.INFO, "state.restored", message, services=len(state.services))
        return rest

    @property
    def unconfirmed_from_s(self) -> float:
        """Unix time at which what is in force was saved, until Consul has confirmed it; else 0."""
        if self.restored is not None and not self._confirmed:
            self._confirmed = self._freshness.all_confirmed()
        return self.restored.saved_at_s if self.restored is not None and not self._confirmed else 0.0

    async def run(self) -> None:
        """Save until cancelled, and a last time then: what was denied a moment ago must stay so."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_S)
                if self._is_due(time.monotonic() - self._saved_at_s >= self._refresh_s):
                    await self.save()
        finally:
            if self._is_due(False):
                version, state = self._snapshot()
                self._saved(version, self._try_to_write(state))

    async def save_if_due(self) -> None:
        if self._is_due(False):
            await self.save()

    async def save(self) -> None:
        version, state = self._snapshot()
        self._saved_at_s = time.monotonic()
        await finish_in_thread(partial(self._try_to_write, state), partial(self._saved, version))

    def _is_due(self, old: bool) -> bool:
        if self._directory is None or not self._worth_saving():
            return False
        mesh = self._store.mesh_facts()
        whole = self._store.entry.fact.known and mesh.roots.known and bool(mesh.datacenter)
        return whole and (old or self._version() != self._saved_version)

    def _version(self) -> tuple[int, int]:
        return self._store.revision, self._generation()

    def _snapshot(self) -> tuple[tuple[int, int], SavedState]:
        state = gather(
            self._store,
            self._owner,
            self._freshness.ages_s(),
            saved_at_s=time.time(),
            boot_id=_boot_id(),
            saved_at_boottime_s=time.clock_gettime(time.CLOCK_BOOTTIME),
            generation=self._generation(),
            bound=tuple(map(str, self._bound())),
        )
        return self._version(), state

    def _try_to_write(self, state: SavedState) -> str:
        """The problem, or an empty text. Blocks for as long as the disk takes."""
        assert self._directory is not None
        try:
            file.check_directory(self._directory)
            file.write(file.path_of(self._directory, self._owner), form.encode(state))
        except SavedStateRefused as refused:
            return str(refused)
        except OSError as error:
            what = f"the state cannot be saved in {self._directory}: {error.strerror}"
            return f"{what}; make room, or let this user write there. Serving goes on"
        return ""

    def _saved(self, version: tuple[int, int], problem: str) -> None:
        if problem:
            self._report(problem, "state.not_saved")
            return
        self._saved_version = version
        if self.problem:
            emit(logger, logging.INFO, "state.saved", f"the state is saved in {self._directory} again")
        self.problem = ""

    def _report(self, problem: str, event: str) -> None:
        if problem != self.problem:
            emit(logger, logging.ERROR, event, problem)
        self.problem = problem


def _seconds_since(state: SavedState) -> float:
    """By a clock that nobody sets if the machine has not been started since; a little before now counts as now."""
    if state.boot_id and state.boot_id == _boot_id():
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - state.saved_at_boottime_s)
    since_s = time.time() - state.saved_at_s
    return 0.0 if -FUTURE_S <= since_s < 0 else since_s


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def owner_of(settings: GatewaySettings) -> Owner:
    return Owner(
        service=settings.service,
        service_id=settings.id,
        namespace=settings.consul.namespace,
        partition=settings.consul.partition,
    )


def saved_addresses(directory: Path | None, owner: Owner) -> tuple[HostPort, ...]:
    """Where it listened when it saved its state; empty when that is not known. What is wrong with the file is for
    :meth:`StateKeeper.restore` to say."""
    if directory is None:
        return ()
    try:
        file.check_directory(directory)
        state = _read(file.path_of(directory.absolute(), owner), owner)
        return tuple(HostPort.parse(one, what="a saved address") for one in state.bound) if state is not None else ()
    except (SavedStateRefused, ConfigError):
        return ()


def _read(path: Path, owner: Owner) -> SavedState | None:
    """``None`` when there is none. :raises SavedStateRefused: naming the file and the remedy."""
    try:
        content = file.read(path)
        if content is None:
            return None
        state = form.decode(content)
        _check(state, owner)
    except SavedStateRefused as refused:
        remedy = "remove it, or wait for Consul, whose answers replace it"
        raise SavedStateRefused(f"the saved state {path} is not used: {refused}; {remedy}") from refused
    return state


def _check(state: SavedState, owner: Owner) -> None:
    if state.owner != owner:
        whose = f"{state.owner.service} ({state.owner.service_id}) in {state.owner.partition or 'default'}"
        raise SavedStateRefused(f"it is of another gateway, {whose}/{state.owner.namespace or 'default'}")
    if state.entry is None or state.roots is None or state.roots.value is None or not state.datacenter:
        raise SavedStateRefused("it lacks the links or the mesh")
    if _seconds_since(state) < -FUTURE_S:
        raise SavedStateRefused("it was saved in the future; set the clock of this machine")
