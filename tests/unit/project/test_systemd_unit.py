"""The unit that is shipped: systemd reads it without a complaint and finds the sandbox closed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
UNIT = ROOT / "packaging" / "systemd" / "consul-tgw.service"
MOST_EXPOSED = 20
"""Tenths, of 0 (closed) to 100: a service without any of these settings has 96."""


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with programs and files that this machine has."""
    environment = tmp_path / "env"
    environment.touch()
    text = UNIT.read_text().replace("/usr/bin/consul-tgw", sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(
        text.replace("/etc/consul-tgw/env", str(environment)).replace("=consul-tgw\nGroup=consul-tgw", "=daemon")
    )
    return copy


def analyse(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_systemd_understands_every_line(unit: Path) -> None:
    said = analyse("verify", str(unit))
    ours = [line for line in said.stdout.splitlines() if unit.name in line]
    assert (said.returncode, ours) == (0, [])


def test_systemd_understands_the_socket_unit_with_it(unit: Path) -> None:
    socket_unit = unit.parent / "consul-tgw.socket"
    socket_unit.write_text((UNIT.parent / "consul-tgw.socket").read_text())
    said = analyse("verify", str(socket_unit), str(unit))
    ours = [line for line in said.stdout.splitlines() if "consul-tgw" in line]
    assert (said.returncode, ours) == (0, [])


def test_a_mistake_in_the_socket_unit_would_be_noticed(unit: Path) -> None:
    socket_unit = unit.parent / "consul-tgw.socket"
    text = (UNIT.parent / "consul-tgw.socket").read_text()
    socket_unit.write_text(text.replace("ListenStream=10.0.0.5:8443", "ListenStream=10.0.0.5:no-port"))
    said = analyse("verify", str(socket_unit), str(unit))
    assert "ListenStream" in said.stdout or said.returncode != 0


def test_its_sandbox_is_closed(unit: Path) -> None:
    said = analyse("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit))
    exposure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said.stdout)
    assert exposure, said.stdout
    assert said.returncode == 0, said.stdout


def test_an_open_unit_would_be_noticed(unit: Path) -> None:
    closed = ("Protect", "Private", "Restrict", "SystemCall", "Capability", "NoNew", "User", "Ambient")
    unit.write_text("\n".join(line for line in unit.read_text().splitlines() if not line.startswith(closed)))
    assert analyse("security", "--offline=true", f"--threshold={MOST_EXPOSED}", str(unit)).returncode != 0


def test_it_starts_what_there_is() -> None:
    assert re.search(r"^ExecStart=\S+/consul-tgw run \$GATEWAY_FLAGS$", UNIT.read_text(), re.MULTILINE)


def test_it_reloads_with_the_flags_of_the_file() -> None:
    assert re.search(r"^ExecReload=\S+/consul-tgw reload -- \$GATEWAY_FLAGS$", UNIT.read_text(), re.MULTILINE)
