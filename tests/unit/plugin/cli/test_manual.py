from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from plugin.cli import _NAMES, commands
from plugin.cli.man import man
from plugin.errors import ConfigError
from plugin.manual import pages

ROOT = Path(__file__).parents[4]


def test_every_command_has_a_page_with_all_its_options() -> None:
    made = pages(commands, "1.0", 0.0)
    assert {f"consul-tgw-{name}.1" for name in _NAMES} <= made.keys()
    assert "consul-tgw-connections-kill.1" in made
    context = click.Context(commands)
    for name in _NAMES:
        command = commands.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option):
                assert max(option.opts, key=len).replace("-", "\\-") in made[f"consul-tgw-{name}.1"]
    assert made["consul-tgw.1"].startswith('.TH "CONSUL\\-TGW" 1 "1970-01-01" "consul-tgw 1.0"')
    assert pages(commands, "1.0", 0.0) == made


def test_no_line_is_taken_for_a_request_of_roff() -> None:
    known = {".TH", ".SH", ".PP", ".TP", ".B", ".BR", ".nf", ".fi"}
    for text in pages(commands, "1.0", 0.0).values():
        assert {line.split()[0] for line in text.splitlines() if line.startswith((".", "'"))} <= known


def test_groff_has_nothing_to_say() -> None:
    for text in pages(commands, "1.0", 0.0).values():
        done = subprocess.run(["groff", "-man", "-ww", "-z"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_pages_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    man.main(["connections", "kill"], standalone_mode=False)
    assert "consul\\-tgw\\-connections\\-kill" in capsys.readouterr().out
    man.main(["--directory", str(tmp_path / "man1")], standalone_mode=False)
    assert len(list((tmp_path / "man1").iterdir())) > len(_NAMES)
    for wrong in (["nothing"], ["run", "--directory", str(tmp_path)]):
        with pytest.raises(ConfigError):
            man.main(wrong, standalone_mode=False)


def complete(words: str, begun: str = "") -> list[str]:
    environment = {
        **os.environ,
        "_CONSUL_TGW_COMPLETE": "bash_complete",
        "COMP_WORDS": f"{words} {begun}".rstrip() if begun else words,
        "COMP_CWORD": str(len(words.split())),
    }
    command = [sys.executable, "-m", "plugin"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_commands_and_options_are_completed() -> None:
    assert complete("consul-tgw", "sta") == ["status"]
    assert complete("consul-tgw connections", "--so") == ["--source", "--sort"]
    assert complete("consul-tgw connections --sort") == ["age", "bytes", "rate", "idle"]
