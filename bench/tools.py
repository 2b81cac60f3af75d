"""``python -m bench.tools``: fetches the programs that are measured beside the gateways, which nothing else needs.

HAProxy is Debian's package; ghostunnel is built from the Go module that ``tools/ghostunnel/go.mod`` pins. One that
cannot be had is left out of the measurement, and the page says so.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from plugin.dev import locate
from scripts.build_go_tool import build_go_tool
from scripts.setup import ROOT, install_packages
from scripts.steps import Failed, say

PEERS = frozenset({"HAProxy", "ghostunnel"})
GHOSTUNNEL_VERSION = "1.8.4"
"""What ``tools/ghostunnel/go.mod`` builds."""
_GHOSTUNNEL = "github.com/ghostunnel/ghostunnel"
_SERVERS = "/usr/sbin:/usr/local/sbin"


def haproxy() -> Path | None:
    found = shutil.which("haproxy") or shutil.which("haproxy", path=_SERVERS)
    return Path(found) if found else None


def ghostunnel() -> Path | None:
    built = _built()
    return built if os.access(built, os.X_OK) else None


def _built() -> Path:
    return locate.cache_dir() / f"ghostunnel-{GHOSTUNNEL_VERSION}" / "ghostunnel"


def fetch_haproxy() -> None:
    if haproxy() is None:
        say("bench: installing HAProxy; its service stays as Debian configures it, without a listener")
        install_packages(["haproxy"])


def fetch_ghostunnel() -> None:
    if ghostunnel() is None:
        say("bench: building ghostunnel, which takes a minute or two")
        if shutil.which("gcc") is None:
            install_packages(["gcc", "libc6-dev"])
        # Without C, what it has in place of PKCS#11 does not fit the rest of this version.
        build_go_tool(ROOT / "tools" / "ghostunnel", _GHOSTUNNEL, _built(), cgo=True)


def main() -> None:
    for fetch in (fetch_haproxy, fetch_ghostunnel):
        try:
            fetch()
        except Failed as failure:
            say(f"bench: NOT HAD, so it will be left out\n{failure}\n")


if __name__ == "__main__":
    main()
