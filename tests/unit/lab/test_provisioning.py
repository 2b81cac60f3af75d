"""The shell that all scripts share, and what they pin."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from lab import plan, topology
from lab.topology import Federation
from plugin.dev import locate

ROOT = Path(__file__).resolve().parents[3]
LIB = plan.SCRIPTS / "lib"
AWKWARD = ["/bin/bash", "-c", 'set -a; . "/etc/env"; exec x $FLAGS', "100%", "back\\slash", "it's", "", "two words"]


def bash(script: str, *arguments: str) -> str:
    """What the script prints, with the library read."""
    library = f"LAB_ANYONE=yes; set -euo pipefail; . {LIB}/common.sh; . {LIB}/service.sh; {script}"
    done = subprocess.run(["bash", "-c", library, "lab.sh", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pinned_versions_are_those_of_the_set_up() -> None:
    pinned = dict(re.findall(r"^(\w+)_VERSION=(.+)$", (LIB / "versions.sh").read_text(), re.M))
    assert pinned["CONSUL"] == locate.CONSUL_VERSION
    lock = (ROOT / "requirements" / "dev.lock").read_text()
    assert f"\nenvoy-server=={pinned['ENVOY']}." in lock


def test_every_script_of_the_plan_is_there_and_described() -> None:
    described = (plan.SCRIPTS / "README.md").read_text()
    lab = topology.load()
    scripts = {step.script for federation in Federation for step in plan.steps(lab, federation)}
    for script in scripts:
        assert (plan.SCRIPTS / script).stat().st_mode & 0o111, script
        assert f"`{script}`" in described


def test_every_variable_of_the_plan_is_described() -> None:
    described = (plan.SCRIPTS / "README.md").read_text()
    lab = topology.load()
    for name in lab.hosts:
        for variable in plan.environment(lab, Federation.PEERING, name):
            assert f"`{variable}`" in described, variable


def test_a_command_keeps_its_words_in_a_unit() -> None:
    """As systemd reads them: systemd.service(5), "Command lines"."""
    (words,) = bash('_systemd_words "$@"', *AWKWARD).splitlines()
    read = [one.replace("%%", "%").replace("$$", "$") for one in shlex.split(words)]
    assert read == AWKWARD


def test_a_unit_has_the_user_and_the_command() -> None:
    unit = bash('_unit web nobody "$@"', "/usr/bin/some", "--flag")
    assert "\nUser=nobody\n" in unit
    assert '\nExecStart="/usr/bin/some" "--flag" \n' in unit


def test_a_file_is_written_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    script = 'for i in 1 2; do if write "$1" 640 "$(id -un)" <<<"$2"; then echo changed; else echo same; fi; done'
    assert bash(script, str(file), "content").split() == ["changed", "same"]
    assert file.read_text() == "content\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert bash(script, str(file), "other").split() == ["changed", "same"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_is_waited_for_in_vain_is_named_with_the_last_answer() -> None:
    script = "(wait_for 0 'it answers' bash -c 'echo no; exit 1') 2>&1 || true"
    assert bash(script) == "lab.sh: waited 0 s in vain until it answers; last: no\n"


@pytest.mark.parametrize("script", [step.name for step in sorted(plan.SCRIPTS.glob("*.sh"))])
def test_without_its_settings_a_script_does_nothing(script: str) -> None:
    done = subprocess.run(
        [str(plan.SCRIPTS / script)],
        env={"PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.match(rf"{re.escape(script)}: (LAB_\w+ is not set: see provision/README.md|not root)", done.stderr)
