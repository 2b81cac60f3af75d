"""The Vagrantfile defines the topology: Debian's Vagrant reads it, and what it has understood is compared.

VirtualBox is not there: a stub of its program says a version, which is all that reading needs. No box is looked for.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from lab import machines
from lab.topology import Federation, load

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "vagrant"
HARNESS = ROOT / "tests" / "support" / "vagrantfile.rb"
DEADLINE_S = 90.0
PROVIDER = "#!/bin/sh\necho 7.0.20r163906\n"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which Vagrant is asked; nothing of this user's own Vagrant is in it."""
    folder = tmp_path_factory.mktemp("vagrant")
    stub = folder / "bin" / "VBoxManage"
    stub.parent.mkdir()
    stub.write_text(PROVIDER)
    stub.chmod(0o755)
    # The Python that runs this has the project; where its environment is, only that knows.
    venv = folder / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (venv / "bin" / "python").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VAGRANT", "LAB_"))}
    return kept | {
        "PATH": f"{stub.parent}:{os.environ['PATH']}",
        "VAGRANT_HOME": str(folder / "home"),
        "VAGRANT_DOTFILE_PATH": str(folder / "dotfiles"),
        "VAGRANT_CHECKPOINT_DISABLE": "1",
        "CONSUL_TGW_VENV": str(venv),
    }


def ask(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    assert shutil.which("vagrant"), "no vagrant: run `make setup`, which installs Debian's"
    return subprocess.run(
        command, cwd=FOLDER, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def understood(environment: dict[str, str], **settings: str) -> dict[str, Any]:
    """Machines by name. Vagrant takes two seconds to tell, so each answer is kept."""
    key = json.dumps(settings)
    if key not in _UNDERSTOOD:
        _UNDERSTOOD[key] = _understood(environment, settings)
    return _UNDERSTOOD[key]


_UNDERSTOOD: dict[str, dict[str, Any]] = {}


def _understood(environment: dict[str, str], settings: dict[str, str]) -> dict[str, Any]:
    said = ask(["ruby", str(HARNESS), str(FOLDER)], environment | settings)
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def test_vagrant_takes_it(reader: dict[str, str]) -> None:
    said = ask(["vagrant", "validate"], reader)
    assert (said.returncode, said.stdout.strip()) == (0, "Vagrantfile validated successfully."), said.stderr


@pytest.mark.parametrize("federation", Federation)
def test_machines_are_the_hosts_of_the_topology(reader: dict[str, str], federation: Federation) -> None:
    topology = yaml.safe_load((FOLDER / "topology.yaml").read_text())
    found = understood(reader, LAB_FEDERATION=federation.value)
    assert list(found) == list(topology["hosts"])
    for name, host in topology["hosts"].items():
        machine = found[name]
        assert machine["hostname"] == name
        wanted = host["addresses"] | host.get("addresses_under", {}).get(federation.value, {})
        networks = [one for one in machine["networks"] if one["kind"] == "private_network"]
        assert {one["virtualbox__intnet"]: one["ip"] for one in networks} == {
            f"consul-tgw-{network}": address for network, address in wanted.items()
        }
        for one in networks:
            subnet = topology["networks"][one["virtualbox__intnet"].removeprefix("consul-tgw-")]["subnet"]
            assert one["netmask"] == str(ipaddress.IPv4Network(subnet).netmask)
            # Under libvirt as well: one network for each, which leads nowhere.
            assert one["libvirt__network_name"] == one["virtualbox__intnet"]
            assert one["libvirt__forward_mode"] == "none"
        # Vagrant's own way in is the only thing that is forwarded.
        forwarded = [one for one in machine["networks"] if one["kind"] == "forwarded_port"]
        assert [one["guest"] for one in forwarded] == [22]
        set_to = {one[1][2]: one[1][3] for one in machine["customizations"] if one[1][0] == "modifyvm"}
        assert (int(set_to["--memory"]), int(set_to["--cpus"])) == (host.get("memory_mb", 512), 1)


@pytest.mark.parametrize("federation", Federation)
def test_scripts_are_those_of_the_plan_with_what_they_are_told(reader: dict[str, str], federation: Federation) -> None:
    found = understood(reader, LAB_FEDERATION=federation.value)
    plan = machines.as_json(load(), federation)
    for name, machine in found.items():
        steps = [step for step in plan["steps"] if name in step["hosts"] and not step["input_from"]]
        assert [one["name"] for one in machine["scripts"]] == [step["script"] for step in steps]
        for one in machine["scripts"]:
            assert one["inline"] == f"exec {machines.CHECKOUT}/vagrant/provision/{one['name']}"
            assert os.access(FOLDER / "provision" / one["name"], os.X_OK), f"{one['name']} is not a program"
            assert one["environment"] == plan["hosts"][name]["environment"]
            assert one["run"] == ("once" if one["name"] == "base.sh" else "never")
        folders = {one["guestpath"]: one for one in machine["folders"] if not one.get("disabled")}
        assert set(folders) == {machines.CHECKOUT, machines.PROGRAMS, machines.SECRETS}
        assert {one["type"] for one in folders.values()} == {"rsync"}
        assert Path(folders[machines.CHECKOUT]["hostpath"]).resolve() == ROOT
        assert folders[machines.SECRETS]["hostpath"].endswith(f"build/machines/{federation}/hosts/{name}/secrets")
    assert {step["script"] for step in plan["steps"]} >= {"base.sh", "server.sh", "terminating-gateway.sh"}


@pytest.mark.parametrize(("asked", "box"), [("ubuntu", "bento/ubuntu-24.04"), ("generic/debian12", "generic/debian12")])
def test_the_box_can_be_chosen(reader: dict[str, str], asked: str, box: str) -> None:
    assert {one["box"] for one in understood(reader, LAB_BOX=asked).values()} == {box}
    unasked = understood(reader, LAB_FEDERATION=Federation.PEERING.value)
    assert {one["box"] for one in unasked.values()} == {"debian/bookworm64"}


def test_what_is_missing_is_said(reader: dict[str, str], tmp_path: Path) -> None:
    said = ask(["vagrant", "validate"], reader | {"CONSUL_TGW_VENV": str(tmp_path)})
    assert said.returncode != 0
    assert "run `make setup`" in said.stderr + said.stdout
    said = ask(["vagrant", "validate"], reader | {"LAB_FEDERATION": "carrier-pigeons"})
    assert said.returncode != 0
    assert "carrier-pigeons" in said.stderr + said.stdout
