from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from plugin.errors import StartError
from plugin.workers import process
from plugin.workers.process import Process, worker_command, worker_environment
from tests.support.eventually import eventually


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        yield child
        child.kill()


def test_a_worker_never_sees_the_token() -> None:
    secrets = dict.fromkeys(("CONSUL_HTTP_TOKEN", "CONSUL_HTTP_ADDR", "VAULT_TOKEN", "PGPASSWORD"), "secret")
    kept = worker_environment({**secrets, "LANG": "C", "PYTHONHASHSEED": "0"})
    assert {kept[name] for name in ("LANG", "PYTHONHASHSEED")} == {"C", "0"}
    assert kept.keys() <= {"LANG", "PYTHONHASHSEED", "PYTHONPATH", "GLIBC_TUNABLES"}


def test_the_allocator_is_tuned_unless_the_operator_did() -> None:
    assert worker_environment({})["GLIBC_TUNABLES"] == "glibc.malloc.tcache_count=127"
    assert worker_environment({"GLIBC_TUNABLES": "glibc.malloc.check=3"})["GLIBC_TUNABLES"] == "glibc.malloc.check=3"


def test_a_worker_is_told_whom_to_become() -> None:
    assert worker_command() == (sys.executable, "-P", "-m", "proxy")
    assert worker_command((12, 34), debuggable=True)[4:] == ("--user=12", "--group=34", "--debuggable")


def test_a_source_tree_is_found_from_anywhere(tmp_path: Path) -> None:
    code = "import proxy; print(proxy.__file__)"
    command = [sys.executable, "-P", "-c", code]
    subprocess.run(command, env=worker_environment(), cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(StartError, match="/nowhere/python"):
        process.start(["/nowhere/python"], 0, ())


async def test_the_end_of_a_child_is_told_once_with_its_code(sleeper: subprocess.Popen[bytes]) -> None:
    codes: list[int | None] = []
    watched = Process(sleeper.pid, codes.append, sleeper)
    watched.signal(signal.SIGKILL)
    await asyncio.wait_for(watched.exited.wait(), 20)
    assert codes == [-signal.SIGKILL]
    watched.signal(signal.SIGKILL)


@pytest.fixture
def foreign() -> int:
    """A sleeper that is nobody's child here: the shell that started it has gone."""
    shell = subprocess.run(["sh", "-c", "sleep 600 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True)
    return int(shell.stdout)


async def test_a_process_of_somebody_else_is_watched_too(foreign: int) -> None:
    codes: list[int | None] = []
    watched = Process(foreign, codes.append)
    os.kill(foreign, signal.SIGKILL)
    await asyncio.wait_for(watched.exited.wait(), 20)
    assert codes == [None]


async def test_an_adopted_child_has_its_code_and_does_not_stay_as_a_zombie(sleeper: subprocess.Popen[bytes]) -> None:
    """After exec(2) the workers are still our children, and nothing else is known of them."""
    codes: list[int | None] = []
    watched = Process(sleeper.pid, codes.append)
    os.kill(sleeper.pid, signal.SIGKILL)
    await asyncio.wait_for(watched.exited.wait(), 20)
    assert codes == [-signal.SIGKILL]
    with pytest.raises(ProcessLookupError):
        os.kill(sleeper.pid, 0)


async def test_without_process_descriptors_it_is_asked_for(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(pid: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    codes: list[int | None] = []
    watched = Process(sleeper.pid, codes.append, sleeper)
    watched.signal(signal.SIGTERM)
    await eventually(lambda: codes == [-signal.SIGTERM])


async def test_a_forgotten_process_goes_on(sleeper: subprocess.Popen[bytes]) -> None:
    codes: list[int | None] = []
    Process(sleeper.pid, codes.append, sleeper).forget()
    assert sleeper.poll() is None
    assert codes == []
