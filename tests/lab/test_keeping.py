"""Commands that bring a lab up and down, and what is left of it: nothing, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab.namespaces import Inside, Namespaces
from plugin.errors import StartError
from tests.support.eventually import eventually

ROOT = Path(__file__).resolve().parents[2]


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def exists(path: str) -> bool:
    return Path(path).exists()


def started(*arguments: str) -> subprocess.Popen[str]:
    """A Python of its own."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, cwd=ROOT, text=True)


async def test_a_host_is_gone_with_all_that_ran_in_it(tmp_path: Path) -> None:
    async with Namespaces("some-host", tmp_path / "host") as host:
        inside = host.inside()
        assert (await inside.run("hostname")).strip() == "some-host"
        assert (await inside.run("cat", "/proc/1/comm")).strip() == "bash"
        await inside.run("bash", "-c", "echo written >/etc/only-in-the-host; setsid sleep 600 >/dev/null 2>&1 &")
        left = await eventually(lambda: _sleeps_of(inside))
        assert not exists("/etc/only-in-the-host")
        assert str(tmp_path) not in mounts()
    assert not [pid for pid in left if exists(f"/proc/{pid}")]
    assert str(tmp_path) not in mounts()


async def test_a_host_is_gone_when_whoever_made_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import asyncio, pathlib, sys\n"
        "from lab.namespaces import Namespaces\n"
        "async def main():\n"
        "    async with Namespaces('some-host', pathlib.Path(sys.argv[1])) as host:\n"
        "        print(host.inside().pid, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    maker = started("-c", script, str(tmp_path / "host"))
    try:
        assert maker.stdout is not None
        first = int(maker.stdout.readline())
        await Inside("some-host", first).run("bash", "-c", "setsid sleep 600 >/dev/null 2>&1 &")
        assert exists(f"/proc/{first}")
    finally:
        maker.kill()
        maker.wait()
    await eventually(lambda: not exists(f"/proc/{first}"), what="the host has ended")


async def test_what_is_run_in_a_host_ends_with_whoever_waits_for_it(tmp_path: Path) -> None:
    async with Namespaces("some-host", tmp_path / "host") as host:
        inside = host.inside()
        with pytest.raises(StartError, match="has not ended within"):
            await inside.run("sleep", "600", deadline_s=0.2)
        await eventually(lambda: not _sleeps_of(inside), what="the command has ended")


def test_without_root_it_says_so(tmp_path: Path) -> None:
    code = "import os; from lab.__main__ import main; os.setuid(65534); main(['up', '--folder', '/nowhere'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Error: not root" in done.stderr


@pytest.mark.parametrize("arguments", [["check"], ["shell", "cloud-app-1"]])
def test_without_a_lab_the_command_says_how_to_get_one(tmp_path: Path, arguments: list[str]) -> None:
    done = _lab(arguments[0], "--folder", str(tmp_path), *arguments[1:])
    assert done.returncode == 1
    assert "no lab is up: `make lab ARGS=up` brings one up" in done.stderr


def test_a_bad_topology_is_named_before_anything_is_made(tmp_path: Path) -> None:
    bad = tmp_path / "topology.yaml"
    bad.write_text("networks: {}\ndatacenters: {}\nhosts: {}\n")
    folder = tmp_path / "lab"
    done = _lab("up", "--folder", str(folder), "--topology", str(bad))
    assert done.returncode == 1
    assert f"Error: {bad}: networks: there is no wan" in done.stderr
    assert not folder.exists()


async def test_up_is_ended_by_a_signal_while_it_comes_up(tmp_path: Path) -> None:
    up = started("-m", "lab", "up", "--folder", str(tmp_path))
    try:
        ready = tmp_path / "hosts" / "legacy-1" / "ready"
        await eventually(lambda: ready.exists() and ready.read_text(), 60.0, what="hosts are there")
        again = _lab("up", "--folder", str(tmp_path))
        assert again.returncode == 1
        assert "a lab is up already" in again.stderr
        up.send_signal(signal.SIGINT)
        up.wait(60.0)
        assert _lab("down", "--folder", str(tmp_path)).stdout == "No lab was up.\n"
        assert not (tmp_path / "hosts").exists()
    finally:
        up.kill()
        up.wait()
        _lab("down", "--folder", str(tmp_path))


def _lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def _sleeps_of(host: Inside) -> list[int]:
    """Processes of the host that sleep, besides that with which its first one waits; by their numbers here."""
    namespace = os.stat(f"/proc/{host.pid}/ns/pid").st_ino
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.stat(folder / "ns" / "pid").st_ino == namespace:
                command = (folder / "cmdline").read_bytes()
                if command.split(b"\0")[:2] == [b"sleep", b"600"]:
                    found.append(int(folder.name))
        except OSError:
            continue
    return found
