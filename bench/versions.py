"""What the figures were measured with."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import re

from OpenSSL import SSL

from bench import accounting
from plugin.dev import locate
from plugin.dev.processes import run
from scripts.build_consul import find_go


async def machine() -> dict[str, str]:
    """Part to version, in the order in which they are shown."""
    consul = await asyncio.to_thread(locate.consul)
    envoy = await asyncio.to_thread(locate.envoy)
    go = await asyncio.to_thread(find_go)
    return {
        "Processor": f"{accounting.processor_model()}, {len(os.sched_getaffinity(0))} usable",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "OpenSSL": SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode(),
        "Envoy": _first_version(await run([str(envoy), "--version"])),
        "Consul": _first_version(await run([str(consul), "version"])),
        "Go (client)": _first_version(await run([go, "version"])),
    }


def _installed(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _first_version(text: str) -> str:
    found = re.search(r"\d+\.\d+(\.\d+)?", text)
    return found[0] if found else text.strip()
