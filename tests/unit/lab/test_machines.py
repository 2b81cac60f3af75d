"""The steps on virtual machines: in the plan's order, on all hosts of a step at once, over Vagrant's way in.

Programs called ``vagrant`` and ``ssh`` write down what they are asked for.
"""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import pytest

from lab import machines, plan
from lab.topology import Federation, Topology, load
from plugin.errors import StartError

VAGRANT = "#!/bin/sh\n[ \"$*\" = ssh-config ] && echo 'Host all'\n"
SSH = """#!/bin/bash
[[ $1 == -F && $(<"$2") == 'Host all' ]] || exit 9
given=; [[ $4 == *peering-establish.sh ]] && given=$(cat)
echo "$3 $4 given:$given" >>"$LOG"
[[ $4 == *peering-token.sh ]] && echo a-token
[[ $4 == *"$FAILS" ]] && { echo "this went wrong"; exit 3; }
exit 0
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in (("vagrant", VAGRANT), ("ssh", SSH)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("LOG", str(tmp_path / "log"))
    monkeypatch.setenv("FAILS", "nothing")
    return tmp_path / "log"


@pytest.fixture(scope="module")
def topology() -> Topology:
    return load()


@pytest.mark.parametrize("federation", Federation)
def test_steps_are_carried_out_in_order(log: Path, topology: Topology, federation: Federation) -> None:
    said: list[str] = []
    asyncio.run(machines.carry_out(topology, federation, said.append))
    lines = log.read_text().splitlines()
    for step in plan.steps(topology, federation):
        done, lines = lines[: len(step.hosts)], lines[len(step.hosts) :]
        assert sorted(one.split()[0] for one in done) == sorted(step.hosts)
        for one in done:
            host, _, rest = one.partition(" ")
            command, _, given = rest.rpartition(" given:")
            told = machines.environment(topology, federation, host)
            words = [*(f"{name}={value}" for name, value in told.items())]
            script = f"{machines.CHECKOUT}/vagrant/provision/{step.script}"
            assert shlex.split(command) == ["sudo", "env", *words, script]
            assert given == ("a-token" if step.input_from == "peering-token.sh" else "")
    assert lines == []
    assert len(said) == len(plan.steps(topology, federation))


def test_what_fails_is_said_and_nothing_follows(log: Path, topology: Topology, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "server.sh")
    with pytest.raises(StartError, match="this went wrong"):
        asyncio.run(machines.carry_out(topology, Federation.PEERING, lambda said: None))
    assert "terminating-gateway.sh" not in log.read_text()


def test_what_is_copied_is_a_program_by_itself(tmp_path: Path) -> None:
    machines.copy_programs(tmp_path)
    for name in ("consul", "envoy"):
        copied = tmp_path / "programs" / name
        assert copied.read_bytes()[:4] == b"\x7fELF", f"{name} is no program by itself"
    before = (tmp_path / "programs" / "consul").stat().st_ino
    machines.copy_programs(tmp_path)
    assert (tmp_path / "programs" / "consul").stat().st_ino == before
