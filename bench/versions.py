"""What the figures were measured with."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

from OpenSSL import SSL

from bench import accounting, tools
from plugin.dev import locate
from plugin.dev.processes import run
from plugin.errors import StartError
from scripts.build_consul import find_go

_PROJECT = Path(__file__).resolve().parent.parent


async def machine(*, peers: bool) -> dict[str, str]:
    """Part to version, in the order in which they are shown; ``peers``: HAProxy and ghostunnel too."""
    consul = await asyncio.to_thread(locate.consul)
    envoy = await asyncio.to_thread(locate.envoy)
    go = await asyncio.to_thread(find_go)
    found = {
        "Processor": f"{accounting.processor_model()}, {len(os.sched_getaffinity(0))} usable",
        "Kernel": f"{platform.system()} {platform.release()}",
        "consul-tgw": await _ours(),
        "Python": platform.python_version(),
        "OpenSSL": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(),
        "Envoy": _first_version(await run([str(envoy), "--version"])),
        "Consul": _first_version(await run([str(consul), "version"])),
        "Go (client)": _first_version(await run([go, "version"])),
    }
    if peers and (haproxy := tools.haproxy()) is not None:
        found["HAProxy"] = await _haproxy(haproxy)
    if peers and tools.ghostunnel() is not None:
        found["ghostunnel"] = tools.GHOSTUNNEL_VERSION
    return found


async def _ours() -> str:
    """The version and the commit that it is at, and what it says of its code."""
    commit = ""
    with contextlib.suppress(StartError):
        commit = (await run(["git", "describe", "--always", "--dirty"], folder=_PROJECT)).strip()
    said = await run([sys.executable, "-m", "plugin", "version"], folder=_PROJECT)
    code = [line for line in said.splitlines() if line.startswith("workers ")]
    version = importlib.metadata.version("consul-tgw")
    return ", ".join([f"{version} at {commit}" if commit else version, *code])


async def _haproxy(program: Path) -> str:
    """With its OpenSSL, which decides about much of it."""
    said = await run([str(program), "-vv"])
    library = re.search(r"Running on OpenSSL version : (OpenSSL \S+)", said)
    return _first_version(said) + (f", {library[1]}" if library else "")


def _first_version(text: str) -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else text.strip()
