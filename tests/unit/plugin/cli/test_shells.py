"""Completion in the shells themselves: what is typed, the Tab key, and the line that comes of it."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.eventually import SCALE

ROOT = Path(__file__).parents[4]
DEADLINE_S = 30.0
TYPED = {
    "consul-tgw sta": "consul-tgw status",
    "consul-tgw connections ki": "consul-tgw connections kill",
    "consul-tgw connections --sor": "consul-tgw connections --sort",
    "consul-tgw completion zs": "consul-tgw completion zsh",
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each under the name that its shell looks for."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, name in (("bash", "consul-tgw"), ("zsh", "_consul-tgw"), ("fish", "consul-tgw.fish")):
        command = [sys.executable, "-m", "plugin", "completion", shell]
        (folder / name).write_text(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    return folder


def environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": "/nonexistent", "TERM": "xterm", "LC_ALL": "C.UTF-8"}


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, *command: str) -> None:
        self.output = ""
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe(command[0], command, environment())

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._terminal)

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait_for(self, text: str) -> None:
        until_s = time.monotonic() + DEADLINE_S * SCALE
        while text not in self.output:
            left_s = until_s - time.monotonic()
            assert left_s > 0, f"no {text!r} in {self.output!r}"
            if select.select([self._terminal], [], [], left_s)[0]:
                self.output += os.read(self._terminal, 65536).decode(errors="replace")


def after_tab(terminal: Terminal, typed: str) -> str:
    """The line that Tab makes of ``typed``: printed by the shell, with what it begins with put in front of it."""
    # Ctrl-A is the begin of the line, Ctrl-E its end.
    terminal.type(f"{typed}\t\x01printf '<%s>' \x05\r")
    terminal.output = ""
    terminal.wait_for("\n<")
    terminal.wait_for(">")
    words = terminal.output.rpartition("\n<")[2]
    while not words.endswith(">"):
        words = words[: words.rindex(">") + 1]
    return " ".join(words.strip("<>").split("><"))


def test_bash(scripts: Path) -> None:
    terminal = Terminal("bash", "--norc", "--noprofile", "-i")
    try:
        terminal.type(f"bind 'set enable-bracketed-paste off'; source {scripts}/consul-tgw; PS1=; echo rea''dy\r")
        terminal.wait_for("ready")
        assert {typed: after_tab(terminal, typed) for typed in TYPED} == TYPED
    finally:
        terminal.close()


def test_zsh(scripts: Path) -> None:
    terminal = Terminal("zsh", "-f", "-i")
    try:
        terminal.type(f"fpath=({scripts} $fpath); autoload -U compinit; compinit -u -D; PS1= RPS1=; echo rea''dy\r")
        terminal.wait_for("ready")
        assert {typed: after_tab(terminal, typed) for typed in TYPED} == TYPED
    finally:
        terminal.close()


def test_fish(scripts: Path) -> None:
    """It is asked what it would show: the same code as for the key."""
    for typed, line in TYPED.items():
        ask = f"source {scripts}/consul-tgw.fish; complete --do-complete '{typed}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", ask], env=environment(), capture_output=True, text=True, check=False
        )
        found = [one.split("\t")[0] for one in done.stdout.splitlines()]
        assert (done.returncode, found) == (0, [line.split()[-1]]), done
