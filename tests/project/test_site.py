"""The documentation as a site: built by what the lock names, strictly, and asking no other host for anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command import ROOT


@pytest.mark.timeout(300)
def test_the_site_is_built() -> None:
    """As ``make docs`` does. A warning of mkdocs, such as a link that leads nowhere, fails it."""
    for command in (["scripts/tools", "docs"], [sys.executable, "-m", "scripts.site"]):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
    built = ROOT / "build" / "site"
    assert "consul-tgw" in (built / "index.html").read_text()
    for page in ("docs/commands", "docs/decisions/index", "docs/reference/metrics", "consul-config/index"):
        assert (built / f"{page}.html").is_file(), page
