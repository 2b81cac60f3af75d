"""A lab that is kept by a process of its own: started, found again by other commands, and ended.

The keeper holds a lock on its folder as long as it lives, and writes there what it is at. Its lab ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from lab import topology
from lab.lab import Lab, Progress, Running, require_root
from lab.namespaces import Inside
from lab.topology import Federation
from plugin.dev.processes import dies_with_us
from plugin.errors import StartError

FOLDER = Path("/run/consul-tgw-lab")
STOP_DEADLINE_S = 60.0
_CHECKOUT = Path(__file__).resolve().parent.parent
_POLL_S = 0.1


class State(msgspec.Struct, kw_only=True):
    """What the keeper says of its lab."""

    keeper: int
    federation: Federation
    topology: str
    """The file."""
    begun: list[Part] = []
    hosts: dict[str, int] = {}
    """Their first processes."""
    switch: int = 0
    seconds: float = 0.0
    """What it took to come up; 0 until then."""
    problem: str = ""
    """Why it has not come up."""


class Part(msgspec.Struct):
    """A part of the work; ``seconds`` once it is done."""

    what: str
    hosts: int
    seconds: float | None = None


async def keep(folder: Path, path: Path, federation: Federation) -> None:
    """Be the keeper, until SIGTERM or SIGINT. :raises StartError, ConfigError: when there is no lab to keep."""
    with _locked(_made(folder)):
        state = State(keeper=os.getpid(), federation=federation, topology=str(path))
        asked_to_stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)

        def report(progress: Progress) -> None:
            if progress.seconds is None:
                state.begun.append(Part(progress.what, len(progress.hosts)))
            else:
                state.begun[-1].seconds = progress.seconds
            _write(folder, state)

        _write(folder, state)
        lab = Lab(topology.load(path), federation, folder, report)
        try:
            if await _start(lab, asked_to_stop):
                running = lab.running()
                state.hosts = {name: host.pid for name, host in running.hosts.items()}
                state.switch = running.switch.pid
                state.seconds = sum(part.seconds or 0.0 for part in state.begun)
                _write(folder, state)
                await asked_to_stop.wait()
        except StartError as error:
            state.problem = str(error)
            _write(folder, state)
            raise
        finally:
            await lab.stop()
            if not state.problem:
                _file(folder).unlink(missing_ok=True)


async def _start(lab: Lab, asked_to_stop: asyncio.Event) -> bool:
    """Whether it came up before it was asked to stop."""
    starting = asyncio.ensure_future(lab.start())  # noqa: TID251 - waited for right here
    stopping = asyncio.ensure_future(asked_to_stop.wait())  # noqa: TID251
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not starting.done():
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return False
    starting.result()
    return True


def start(folder: Path, path: Path, federation: Federation, *, tied: bool = False) -> None:
    """Start a keeper, which is ``tied`` to this process or goes on without it.

    :raises StartError: when there is one.
    """
    with _locked(_made(folder)):
        _file(folder).unlink(missing_ok=True)
    command = [sys.executable, "-m", "lab", "keep", f"--folder={folder}", f"--topology={path}"]
    command.append(f"--federation={federation.value}")
    with (folder / "keeper.log").open("wb") as log:
        subprocess.Popen(
            dies_with_us(command) if tied else command,
            cwd=_CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def follow(folder: Path, deadline_s: float = 600.0) -> Iterator[State]:
    """What the keeper is at, again and again, until the lab is up.

    :raises KeyboardInterrupt: at SIGINT, and only between two looks: an exception out of a handler is lost where it
        comes in a destructor.
    :raises StartError: when it does not come up.
    """
    interrupted = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        for state in _states(folder, deadline_s):
            if interrupted.is_set():
                raise KeyboardInterrupt
            if state is not None:
                yield state
    finally:
        signal.signal(signal.SIGINT, before)


def _states(folder: Path, deadline_s: float) -> Iterator[State | None]:
    """``None`` while there is none yet."""
    give_up_at = time.monotonic() + deadline_s
    seen = False
    while time.monotonic() < give_up_at:
        state = read(folder)
        yield state
        if state is not None:
            seen = True
            if state.problem:
                raise StartError(f"{state.problem}\nWhat the hosts' programs have said is in {folder / 'logs'}")
            if state.seconds:
                return
        if (seen or time.monotonic() > give_up_at - deadline_s + 10.0) and not _is_kept(folder):
            said = (folder / "keeper.log").read_text(errors="replace").strip()
            raise StartError(f"the process that keeps the lab has ended: {said or 'it has said nothing'}")
        time.sleep(_POLL_S)
    raise StartError(f"the lab has not come up within {deadline_s:.0f} s")


def read(folder: Path) -> State | None:
    """``None`` when no keeper has written one."""
    try:
        return msgspec.json.decode(_file(folder).read_bytes(), type=State)
    except FileNotFoundError:
        return None


def running(folder: Path) -> Running:
    """The lab that is up. :raises StartError: when none is."""
    require_root()
    state = read(folder)
    if state is None or not state.seconds or not _is_kept(folder):
        raise StartError("no lab is up: `make lab ARGS=up` brings one up")
    return Running(
        topology=topology.load(Path(state.topology)),
        federation=state.federation,
        hosts={name: Inside(name, pid) for name, pid in state.hosts.items()},
        switch=Inside("switch", state.switch),
    )


def stop(folder: Path) -> bool:
    """End the lab and its keeper; whether there was one. :raises StartError: when it does not end."""
    require_root()
    state = read(folder)
    if state is None or not _is_kept(folder):
        return False
    os.kill(state.keeper, signal.SIGTERM)
    give_up_at = time.monotonic() + STOP_DEADLINE_S
    while _is_kept(folder):
        if time.monotonic() >= give_up_at:
            raise StartError(
                f"process {state.keeper}, which keeps the lab, has not ended within {STOP_DEADLINE_S:.0f} s"
            )
        time.sleep(_POLL_S)
    return True


def is_up(folder: Path) -> bool:
    """Whether a lab is kept there that has come up."""
    state = read(folder)
    return state is not None and state.seconds > 0 and _is_kept(folder)


def _made(folder: Path) -> Path:
    require_root()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _is_kept(folder: Path) -> bool:
    try:
        with _locked(folder):
            return False
    except FileNotFoundError:
        return False
    except StartError:
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(f"a lab is up already, kept in {folder}: `make lab ARGS=down` ends it") from error
        yield


def _file(folder: Path) -> Path:
    return folder / "state.json"


def _write(folder: Path, state: State) -> None:
    new = folder / "state.new"
    new.write_bytes(msgspec.json.encode(state))
    new.replace(_file(folder))
