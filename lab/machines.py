"""The lab as virtual machines of Vagrant: what ``vagrant/Vagrantfile`` is told, what machines are given, and the steps.

Vagrant makes the machines one after the other. The steps wait for one another across hosts, so they are carried out
here, over Vagrant's own way in, at the same time on all hosts of a step.
"""

from __future__ import annotations

import asyncio
import filecmp
import os
import shlex
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab import plan, programs
from lab.namespaces import together
from lab.topology import Federation, Topology
from plugin.dev import locate, processes
from plugin.errors import StartError

FOLDER = plan.SCRIPTS.parent
"""Of the Vagrantfile."""

# Where a machine has what it is given.
CHECKOUT = "/opt/consul-tgw"
PROGRAMS = "/opt/lab"
SECRETS = "/etc/lab/secrets"

STEP_DEADLINE_S = 1200.0
"""Packages come over the network, and the gateway's are compiled in part."""
_LOGIN_DEADLINE_S = 120.0


def environment(topology: Topology, federation: Federation, host: str) -> dict[str, str]:
    """What scripts are told on a machine. Without ``LAB_CONSUL_TGW``: the gateway is installed there."""
    return plan.environment(topology, federation, host) | {
        "LAB_CONSUL": f"{PROGRAMS}/consul",
        "LAB_ENVOY": f"{PROGRAMS}/envoy",
        "LAB_SECRETS": SECRETS,
    }


def as_json(topology: Topology, federation: Federation) -> dict[str, Any]:
    """The plan, with the places on a machine; what the Vagrantfile defines is this."""
    shown = plan.as_json(topology, federation)
    for name, host in shown["hosts"].items():
        host["environment"] = environment(topology, federation, name)
    return shown | {"checkout": CHECKOUT, "programs": PROGRAMS, "secrets": SECRETS}


async def prepare(topology: Topology, federation: Federation, folder: Path) -> None:
    """Make what machines are given: ``programs``, and ``hosts/NAME/secrets``; those that are there stay.

    :raises StartError: when a program is missing, or secrets cannot be made.
    """
    await asyncio.to_thread(copy_programs, folder)
    await programs.make_secrets(topology, federation, folder / "hosts")


def copy_programs(folder: Path) -> None:
    """Consul and Envoy of this machine into ``programs`` of ``folder``. :raises StartError: when one is missing."""
    programs = folder / "programs"
    programs.mkdir(parents=True, exist_ok=True)
    for name, source in (("consul", locate.consul()), ("envoy", envoy())):
        copy = programs / name
        if not copy.exists() or not filecmp.cmp(source, copy):
            shutil.copy2(source, copy)


def envoy() -> Path:
    """The program itself: what PyPI's package puts on the path is a script of Python that starts it.

    :raises StartError: when there is none.
    """
    found = locate.envoy()
    if found.read_bytes()[:4] == b"\x7fELF":
        return found
    packaged = sorted(found.resolve().parent.parent.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not packaged:
        raise StartError(f"{found} is a script, and the Envoy that it starts is not beside it: run `make setup`")
    return packaged[0]


async def carry_out(topology: Topology, federation: Federation, report: Callable[[str], None]) -> None:
    """Carry out the plan's steps on machines that run. :raises StartError: with what failed where."""
    with tempfile.TemporaryDirectory(prefix="consul-tgw-lab-") as folder:
        way_in = Path(folder) / "ssh-config"
        way_in.write_text(await _run(["vagrant", "ssh-config"], deadline_s=_LOGIN_DEADLINE_S))
        printed: dict[str, str] = {}
        for step in plan.steps(topology, federation):
            report(f"{step.script}: {', '.join(step.hosts)}")
            commands = [
                _on_machine(way_in, host, step.script, environment(topology, federation, host)) for host in step.hosts
            ]
            given = printed.get(step.input_from, "")
            printed[step.script] = "".join(await together(*(_run(one, given) for one in commands)))


def _on_machine(way_in: Path, host: str, script: str, told: dict[str, str]) -> list[str]:
    # ssh joins its words with spaces, and a shell takes them apart.
    words = ["sudo", "env", *(f"{name}={value}" for name, value in told.items())]
    return ["ssh", "-F", str(way_in), host, shlex.join([*words, f"{CHECKOUT}/vagrant/provision/{script}"])]


async def _run(command: list[str], input_text: str = "", *, deadline_s: float = STEP_DEADLINE_S) -> str:
    return await processes.run(
        command, environment=os.environ, folder=FOLDER, input_text=input_text, deadline_s=deadline_s
    )
