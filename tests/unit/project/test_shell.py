"""All shell of the repository passes shellcheck, with what a script sources."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SHELL = re.compile(rb"#!.*\b(?:ba|da)?sh\b|# shellcheck shell=")


def shell_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in files if path.is_file() and (path.suffix == ".sh" or starts_as_shell(path))]


def starts_as_shell(path: Path) -> bool:
    with path.open("rb") as file:
        return any(SHELL.match(line) for line in file.read(512).splitlines()[:3])


def shellcheck(*paths: Path) -> subprocess.CompletedProcess[str]:
    assert shutil.which("shellcheck"), "no shellcheck: run `make setup`, which installs Debian's"
    return subprocess.run(
        ["shellcheck", "--external-sources", "--source-path=SCRIPTDIR", "--format=gcc", *map(str, paths)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_all_of_it() -> None:
    files = shell_files()
    assert {"scripts/setup", ".ci/run", "vagrant/provision/base.sh"} <= {str(one.relative_to(ROOT)) for one in files}
    said = shellcheck(*files)
    assert (said.returncode, said.stdout) == (0, "")


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    (tmp_path / "wrong.sh").write_text("#!/usr/bin/env bash\nrm -r $1/*\n")
    assert "SC2086" in shellcheck(tmp_path / "wrong.sh").stdout


@pytest.mark.parametrize(
    ("text", "is_shell"),
    [
        ("#!/usr/bin/env bash\n", True),
        ("#!/bin/sh -e\n", True),
        ("# Sourced.\n# shellcheck shell=bash\n", True),
        ("#!/usr/bin/env python3\n", False),
        ("plain text\n", False),
    ],
)
def test_which_files_are_shell(tmp_path: Path, text: str, is_shell: bool) -> None:
    (tmp_path / "file").write_text(text)
    assert starts_as_shell(tmp_path / "file") is is_shell
