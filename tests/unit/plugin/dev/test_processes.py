"""Children are started, watched, signalled and ended; waiting has deadlines; ports are free."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from plugin.dev.processes import Child, Launcher, can_connect, free_ports, run, wait_until
from plugin.errors import StartError
from tests.support.eventually import eventually

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 1; done"


def shell(script: str, folder: Path) -> Child:
    return Child("a shell", ["sh", "-c", script], folder / "child.log")


async def test_child_writes_to_its_log_and_ends_when_told(tmp_path: Path) -> None:
    child = shell("echo out; echo err >&2; sleep 100", tmp_path)
    await eventually(lambda: child.log_tail() == "out\nerr")
    assert child.exit_code is None
    await child.terminate()
    assert child.exit_code == -signal.SIGTERM


async def test_child_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    child = shell(STUBBORN, tmp_path)
    await eventually(lambda: child.log_tail() == "ready")
    await child.terminate(deadline_s=0.2)
    assert child.exit_code == -signal.SIGKILL


async def test_children_of_a_child_end_with_it(tmp_path: Path) -> None:
    child = shell("sleep 100 & echo $!; wait", tmp_path)
    await eventually(child.log_tail)
    grandchild = int(child.log_tail())
    await child.terminate()
    await eventually(lambda: not _runs(grandchild))


async def test_paused_child_can_be_ended(tmp_path: Path) -> None:
    # Without a shell: one that is stopped while it starts its command by vfork counts as waiting, not as stopped.
    child = Child("sleep", ["sleep", "100"], tmp_path / "child.log")
    child.pause()
    await eventually(lambda: _state(child.pid) == "T")
    await child.terminate()
    assert child.exit_code == -signal.SIGTERM


async def test_signalling_an_ended_child_does_nothing(tmp_path: Path) -> None:
    child = shell("exit 3", tmp_path)
    await eventually(lambda: child.exit_code == 3)
    child.send_signal(signal.SIGTERM)
    await child.terminate()
    assert child.exit_code == 3
    with pytest.raises(ProcessLookupError):
        child.cpu_s()


async def test_child_is_measured(tmp_path: Path) -> None:
    child = Child("a loop", [sys.executable, "-c", "while True: pass"], tmp_path / "child.log")
    try:
        await eventually(lambda: child.cpu_s() >= 0.1)
        assert child.memory_bytes() > 1_000_000
    finally:
        await child.kill()


async def test_start_waits_for_readiness(tmp_path: Path) -> None:
    child = shell("echo up; sleep 100", tmp_path)
    await child.started(lambda: child.log_tail() == "up", deadline_s=30)
    await child.terminate()


async def test_start_of_a_child_that_ends_shows_the_end_of_its_log(tmp_path: Path) -> None:
    child = shell("echo the reason; exit 7", tmp_path)
    with pytest.raises(StartError, match=r"(?s)ended with 7 .*the reason"):
        await child.started(lambda: False, deadline_s=30)


async def test_start_that_takes_too_long_shows_the_end_of_its_log(tmp_path: Path) -> None:
    child = shell("echo thinking; sleep 100", tmp_path)
    await eventually(child.log_tail)
    with pytest.raises(StartError, match=r"(?s)in vain.*thinking"):
        await child.started(lambda: False, deadline_s=0.1)
    await child.terminate()


async def test_run_returns_what_was_printed() -> None:
    assert await run(["sh", "-c", "read line; echo got $line"], input_text="it\n") == "got it\n"


async def test_run_tells_why_it_failed() -> None:
    with pytest.raises(StartError, match="ended with 4: the reason"):
        await run(["sh", "-c", "echo the reason >&2; exit 4"])


async def test_run_has_a_deadline(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(StartError, match="has not ended within"):
        await run(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 100"], deadline_s=1.0)
    await eventually(lambda: not _runs(int(_text(pid_file))))


async def test_waiting_ends_with_the_answer_or_the_deadline() -> None:
    answers = iter([0, 0, 1])
    await wait_until(lambda: next(answers), 30, what="one", every_s=0.001)
    with pytest.raises(StartError, match="in vain until the moon falls"):
        await wait_until(lambda: False, 0.01, what="the moon falls")


def test_free_ports_are_distinct_and_can_be_bound() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            assert can_connect("127.0.0.1", port)
        assert not can_connect("127.0.0.1", port)


def test_free_ports_are_never_handed_out_twice() -> None:
    assert not set(free_ports(50)) & set(free_ports(50))


def test_another_process_is_not_given_our_ports() -> None:
    """As another run of tests beside this one would be, between our look and our use."""
    (port,) = free_ports(1)
    asks = f"from plugin.dev.processes import _reserve; print(_reserve({port}))"
    answer = subprocess.run([sys.executable, "-c", asks], stdout=subprocess.PIPE, check=True, text=True)
    assert answer.stdout == "False\n"


class Recorder(Launcher):
    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.calls: list[str] = []

    async def start(self) -> None:
        self.calls.append("start")
        if self.fails:
            raise StartError("no")

    async def stop(self) -> None:
        self.calls.append("stop")


async def test_launcher_that_fails_to_start_is_stopped() -> None:
    launcher = Recorder(fails=True)
    with pytest.raises(StartError):
        async with launcher:
            raise AssertionError("entered")
    assert launcher.calls == ["start", "stop"]


async def test_launcher_is_stopped_at_the_end() -> None:
    async with Recorder(fails=False) as launcher:
        assert launcher.calls == ["start"]
    assert launcher.calls == ["start", "stop"]


async def test_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time; from plugin.dev.processes import Child\n"
        "child = Child('sleep', ['sleep', '100'], pathlib.Path(sys.argv[1]) / 'log')\n"
        "print(child.pid, flush=True); time.sleep(100)"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(tmp_path), stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[4]
    )
    assert parent.stdout is not None
    async with asyncio.timeout(60):
        pid = int(await parent.stdout.readline())
    await eventually(lambda: _command(pid) == "sleep")
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await eventually(lambda: not _runs(pid))


def _text(path: Path) -> str:
    return path.read_text()


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _state(pid: int) -> str:
    """proc(5)'s letter; ``X`` when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _runs(pid: int) -> bool:
    # A zombie waits only for whoever adopted it.
    return _state(pid) not in ("X", "Z")
