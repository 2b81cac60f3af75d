"""What the lab takes from this machine: the programs that `make setup` made, the checkout, and secrets made for it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from lab import plan
from lab.topology import Federation, Topology
from plugin.dev import locate, processes
from plugin.errors import StartError

_CHECKOUT = Path(__file__).resolve().parent.parent
SECRETS = "/etc/lab/secrets"
"""Where a host finds its own."""


def environment() -> dict[str, str]:
    """What all scripts in namespaces are told. :raises StartError: when a program is missing."""
    return {
        "LAB_CONSUL": str(locate.consul()),
        "LAB_ENVOY": str(locate.envoy()),
        "LAB_CONSUL_TGW": str(_gateway()),
        "LAB_SECRETS": SECRETS,
    }


def shared() -> list[Path]:
    """Folders with those programs, with the scripts, and with the Python that runs the gateway."""
    python = Path(sys.executable).resolve().parent.parent
    found = (_CHECKOUT, locate.consul().parent, locate.envoy().parent, Path(sys.prefix), python)
    return [path for path in dict.fromkeys(found) if path != Path("/usr")]


async def make_secrets(topology: Topology, federation: Federation, folder: Path) -> None:
    """Make all secrets, those of each host into its ``secrets`` in ``folder``. :raises StartError:"""
    await processes.run(
        [str(plan.SCRIPTS / "secrets.sh"), str(folder)],
        environment={**os.environ, "LAB_CONSUL": str(locate.consul())},
        input_text=json.dumps(plan.as_json(topology, federation)),
    )


def _gateway() -> Path:
    program = Path(sys.prefix) / "bin" / "consul-tgw"
    if not os.access(program, os.X_OK):
        raise StartError(f"no {program}: run `make setup`")
    return program
